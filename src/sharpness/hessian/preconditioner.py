"""Preconditioners: the diagonal D with which a curvature C becomes D^-1/2 C D^-1/2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

Preconditioner = Tensor | np.ndarray[Any, Any] | torch.optim.Optimizer


def inverse_root(
    preconditioner: Preconditioner, model: nn.Module, layout: Layout, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Compute the diagonal of D^-1/2, [P].

    Args:
        preconditioner: the diagonal of D, [P], positive numbers in the order of ``layout``; or an optimizer that has
            taken a step, for what it divided that by, entry by entry.
        model: whose parameters the optimizer trains.
        layout: of the vector, in torch's order.
        dtype: of the result.
        device: of the result.

    Raises:
        TypeError: it is neither a vector nor an optimizer.
        ValueError: the vector has the wrong shape or an entry that is not positive and finite; the optimizer has no
            preconditioner, or has not yet taken a step with a parameter that has rows.
    """
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


def _of_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, layout: Layout) -> Tensor:
    kind = next((kind for kind in _DENOMINATORS if isinstance(optimizer, kind)), None)
    if kind is None:
        known = ", ".join(kind.__name__ for kind in _DENOMINATORS)
        raise ValueError(f"{type(optimizer).__name__} has no diagonal preconditioner that is known here: {known} have")
    parameters = dict(model.named_parameters())
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    parts = []
    for name in layout.names:
        parameter = parameters[name]
        if id(parameter) not in groups:
            raise ValueError(f"the optimizer does not train {name}: give parameters='trained', or the patterns it has")
        state: Mapping[str, Any] = optimizer.state.get(parameter, {})
        if float(state.get("step", 0)) < 1:
            raise ValueError(f"the optimizer has no state of {name} yet: let it take a step first")
        parts.append(_DENOMINATORS[kind](state, groups[id(parameter)]).double())
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
