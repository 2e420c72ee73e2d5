"""Preconditioners: the diagonal D with which a curvature C becomes D^-1/2 C D^-1/2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import NAdam, RMSprop
from torch.optim.adagrad import Adagrad
from torch.optim.adam import Adam
from torch.optim.adamw import AdamW

from sharpness.hessian import arguments
from sharpness.hessian.layout import Layout


@dataclass(frozen=True)
class StepsOf:
    """What the steps of an optimizer are divided by, groups of smaller learning rates included."""

    optimizer: torch.optim.Optimizer


Preconditioner = Tensor | np.ndarray[Any, Any] | torch.optim.Optimizer | StepsOf


def inverse_root(
    preconditioner: Preconditioner, model: nn.Module, layout: Layout, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Compute the diagonal of D^-1/2, [P].

    Args:
        preconditioner: the diagonal of D, [P], positive numbers in the order of ``layout``; or an optimizer that has
            taken a step, for what it divided that by, entry by entry; or ``StepsOf`` one.
        model: whose parameters the optimizer trains.
        layout: of the vector, in torch's order.
        dtype: of the result.
        device: of the result.

    Raises:
        TypeError: it is neither a vector nor an optimizer.
        ValueError: the vector has the wrong shape or an entry that is not positive and finite; the optimizer has no
            preconditioner, or has not yet taken a step with a parameter that has rows.
    """
    if isinstance(preconditioner, StepsOf):
        return _of_steps(preconditioner.optimizer, model, layout, dtype, device)
    if isinstance(preconditioner, torch.optim.Optimizer):
        diagonal = _of_optimizer(preconditioner, model, layout)
    elif isinstance(preconditioner, Tensor | np.ndarray):
        own = preconditioner.device if isinstance(preconditioner, Tensor) else device
        diagonal = arguments.tensor("the preconditioner", preconditioner, own)
    else:
        raise TypeError(
            "preconditioner must be a vector [P], the diagonal of D, or a torch optimizer such as Adam, got "
            f"{type(preconditioner).__name__}"
        )
    if diagonal.shape != (layout.size,):
        raise ValueError(f"the preconditioner must be a vector [{layout.size}], got shape {list(diagonal.shape)}")
    if diagonal.is_complex():
        raise TypeError(f"the preconditioner must be real, got {diagonal.dtype}")
    diagonal = diagonal.to(device=device, dtype=torch.float64)
    if not (good := (diagonal > 0) & torch.isfinite(diagonal)).all():
        at = int((~good).nonzero()[0])
        raise ValueError(f"the preconditioner must be positive and finite, entry {at} is {diagonal[at].item():g}")
    return diagonal.rsqrt().to(dtype)


def relative_rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return the learning rate of each group of parameters, relative to the largest; 1 where all are zero."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    largest = max(rate for rate, group in zip(rates, optimizer.param_groups, strict=True) if group["params"])
    return [rate / largest if largest else 1.0 for rate in rates]


def _of_steps(
    optimizer: torch.optim.Optimizer, model: nn.Module, layout: Layout, dtype: torch.dtype, device: torch.device
) -> Tensor:
    divides = any(isinstance(optimizer, kind) for kind in _DENOMINATORS)
    root = inverse_root(optimizer, model, layout, dtype, device) if divides else None
    rates = relative_rates(optimizer)
    if root is not None and set(rates) == {1.0}:
        return root
    parameters, groups = dict(model.named_parameters()), _groups(optimizer)
    factors = []
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        _check_trained(parameters[name], groups, name)
        factors.append(torch.full(shape, rates[groups[id(parameters[name])]] ** 0.5, dtype=dtype, device=device))
    return layout.flat(factors) if root is None else root * layout.flat(factors)


def _groups(optimizer: torch.optim.Optimizer) -> dict[int, int]:
    """The number of each parameter's group, by identity."""
    return {id(p): number for number, group in enumerate(optimizer.param_groups) for p in group["params"]}


def _check_trained(parameter: Tensor, groups: Mapping[int, object], name: str) -> None:
    if id(parameter) not in groups:
        raise ValueError(f"the optimizer does not train {name}: give parameters='trained', or the patterns it has")


def _of_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, layout: Layout) -> Tensor:
    kind = next((kind for kind in _DENOMINATORS if isinstance(optimizer, kind)), None)
    if kind is None:
        known = ", ".join(kind.__name__ for kind in _DENOMINATORS)
        raise ValueError(f"{type(optimizer).__name__} has no diagonal preconditioner that is known here: {known} have")
    parameters = dict(model.named_parameters())
    groups, parts = _groups(optimizer), []
    for name in layout.names:
        parameter = parameters[name]
        _check_trained(parameter, groups, name)
        state: Mapping[str, Any] = optimizer.state.get(parameter, {})
        if float(state.get("step", 0)) < 1:
            raise ValueError(f"the optimizer has no state of {name} yet: let it take a step first")
        parts.append(_DENOMINATORS[kind](state, optimizer.param_groups[groups[id(parameter)]]).double())
    return layout.flat(parts)


def _of_adam(state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    square = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    unbiased: Tensor = square.double() / (1 - float(group["betas"][1]) ** float(state["step"]))
    return unbiased.sqrt() + float(group["eps"])


def _of_rmsprop(state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    square: Tensor = state["square_avg"].double()
    if group["centered"]:
        square = square - state["grad_avg"].double().square()
    return square.clamp_min(0).sqrt() + float(group["eps"])


def _of_adagrad(state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    total: Tensor = state["sum"].double()
    return total.sqrt() + float(group["eps"])


_DENOMINATORS: Mapping[type, Callable[[Mapping[str, Any], Mapping[str, Any]], Tensor]] = {
    Adam: _of_adam,
    AdamW: _of_adam,
    NAdam: _of_adam,
    RMSprop: _of_rmsprop,
    Adagrad: _of_adagrad,
}
