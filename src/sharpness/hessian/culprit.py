"""Find the layer of a network that torch differentiates wrongly, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from sharpness.hessian.differences import fault_of, off_difference
from sharpness.hessian.double_backward.casts import working_in
from sharpness.hessian.double_backward.differentiable import once_differentiable, twice_differentiable
from sharpness.hessian.inputs import Inputs
from sharpness.hessian.layout import Layout
from sharpness.hessian.loss import Loss, as_precise
from sharpness.hessian.skeleton import inside

# Largest relative difference between a slope and a finite difference that rounding explains.
_OFF_VALUES = 1e-3


@working_in(torch.float64)
def reason_of(loss: Loss, state: Mapping[str, Tensor], inputs: Inputs, fault: str) -> str:
    """Say in one sentence why a network's Hessian cannot be computed, naming the smallest faulty layer.

    Args:
        loss: of the network.
        state: its parameters and buffers by name, float64.
        inputs: some examples.
        fault: of the whole network, as the end of a sentence.
    """
    network = loss.evaluating
    calls = _calls(loss, state, as_precise(inputs, torch.float64))
    for name, layer in sorted(network.named_modules(), key=lambda pair: len(list(pair[1].modules()))):
        if name and name in calls:
            prefix = f"{name}."
            own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
            if found := _fault(layer, own, *calls[name]):
                return _sentence(*found, f"{name} ({type(layer).__name__})")
    return _sentence("second", fault, type(inside(network)).__name__)


def _sentence(which: str, fault: str, place: str) -> str:
    sentence = f"torch's {which} derivative of {place} {fault}"
    # Torch may be right: a deliberately different gradient looks the same.
    return sentence if "does not exist" in fault else f"{sentence}, or it detaches values or has gradients of its own"


def _calls(
    loss: Loss, state: Mapping[str, Tensor], inputs: Inputs
) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Record the arguments of every layer's first call."""
    calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs, name=name: calls.setdefault(name, (args, kwargs)) and None, with_kwargs=True
        )
        for name, layer in loss.evaluating.named_modules()
    ]
    try:
        with torch.no_grad(), twice_differentiable():
            loss.called(loss.evaluating, dict(state), inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


@torch.enable_grad()
def _fault(
    layer: nn.Module, state: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[str, str] | None:
    """Return which derivative of a layer is wrong ("first" or "second") and how; None if neither is."""
    names = list(dict(layer.named_parameters()))
    given, tree = pytree.tree_flatten((args, dict(kwargs)))
    floating = [number for number, value in enumerate(given) if _is_floating(value)]
    start = [state[name] for name in names] + [given[number] for number in floating]
    if not start:
        return None
    generator = torch.Generator().manual_seed(0)
    layout = Layout(tuple(map(str, range(len(start)))), tuple(tensor.shape for tensor in start))
    vectors = torch.randn(2, layout.size, generator=generator).to(start[0])

    def scalar(leaves: list[Tensor]) -> Tensor:
        values = list(given)
        for number, leaf in zip(floating, leaves[len(names) :], strict=True):
            values[number] = leaf.clone()  # a layer may change its input in place
        new_args, new_kwargs = pytree.tree_unflatten(values, tree)
        outputs = functional_call(layer, {**state, **dict(zip(names, leaves, strict=False))}, new_args, new_kwargs)
        weighing = torch.Generator().manual_seed(1)
        total = leaves[0].new_zeros(())
        for output in pytree.tree_leaves(outputs):
            if _is_floating(output):
                total = total + (output * torch.randn(output.shape, generator=weighing).to(output)).sum()
        return total

    def value(step: float) -> Tensor:
        with torch.no_grad(), once_differentiable():
            return scalar([x + step * v for x, v in zip(start, layout.views(vectors[0]), strict=True)])

    def gradient(step: float) -> Tensor:
        pieces = layout.views(vectors[0])
        leaves = [(x + step * v).detach().requires_grad_() for x, v in zip(start, pieces, strict=True)]
        with once_differentiable():
            total = scalar(leaves)
        if not total.requires_grad:
            return torch.zeros_like(vectors[0])
        found = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
        return layout.flat(found)

    def image(vector: Tensor) -> Tensor:
        leaves = [x.detach().requires_grad_() for x in start]
        with twice_differentiable():
            total = scalar(leaves)
        if not total.requires_grad:
            return torch.zeros_like(vector)
        first = torch.autograd.grad(total, leaves, create_graph=True, allow_unused=True, materialize_grads=True)
        smooth = [(g * v).sum() for g, v in zip(first, layout.views(vector), strict=True) if g.requires_grad]
        if not smooth:
            return torch.zeros_like(vector)
        second = torch.autograd.grad(torch.stack(smooth).sum(), leaves, allow_unused=True, materialize_grads=True)
        return layout.flat(second)

    length = float(layout.flat(start).norm() / vectors[0].norm()) or 1.0
    if (off := _off_values(value, gradient(0.0) @ vectors[0], length)) > _OFF_VALUES:
        return "first", f"is off a central difference of its values by {off:.1e} of its length"
    try:
        images = torch.stack([image(vector) for vector in vectors])
    except RuntimeError as error:
        return "second", f"does not exist: {str(error).splitlines()[0]}"
    fault = fault_of(vectors, images, lambda: off_difference(gradient, images[0], length))
    return ("second", fault) if fault else None


def _off_values(value: Callable[[float], Tensor], slope: Tensor, length: float) -> float:
    step = 1e-6 * length
    difference = (value(step) - value(-step)) / (2 * step)
    return float((difference - slope).abs() / slope.abs().clamp_min(1e-6))


def _is_floating(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
