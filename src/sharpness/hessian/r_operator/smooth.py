"""GELU and layer norm: what transformers have between their dense layers, by rules of their own."""

# ruff: noqa: ARG002 (every operation has the same signature)

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sharpness.hessian.r_operator.operation import Context, Operation, Parts, Tensors


class Gelu(Operation):
    """x Φ(x) entry by entry, Φ being the normal distribution function, or its approximation by a tanh."""

    is_recordable = False

    def __init__(self, approximate: str) -> None:
        self._approximate = approximate

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """Save both derivatives; ``backward`` multiplies the second by the adjoint."""
        (values,), slopes = inputs, _slopes_of_tanh if self._approximate == "tanh" else _slopes
        precise = values.float() if values.dtype.itemsize < 4 else values
        saved = tuple(slope.to(values.dtype) for slope in slopes(precise))
        return functional.gelu(values, approximate=self._approximate), [saved, False]

    def backward(self, ctx: Context, adjoint: Tensor) -> Parts:
        (slope, bend), _ = ctx.saved
        bend.mul_(adjoint)
        ctx.saved[1] = True
        return (adjoint * slope,)

    def r_forward(self, ctx: Context, *, owned: bool) -> Tensor | None:
        (slope, bend), is_bent = ctx.saved
        (tangent,) = ctx.input_tangents
        if tangent is None:
            return None
        if is_bent:
            ctx.intermediate = bend * tangent
        return tangent.mul_(slope) if owned else tangent * slope

    def r_backward(self, ctx: Context, r_adjoint: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        (slope, _), _ = ctx.saved
        of_inputs = r_adjoint.mul_(slope) if owned else r_adjoint * slope
        return (of_inputs if ctx.intermediate is None else of_inputs.add_(ctx.intermediate),), ()


def _slopes(values: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivative of GELU: Φ + x φ and (2 - x²) φ."""
    density = torch.exp(values.square() / -2) / math.sqrt(2 * math.pi)
    return torch.special.ndtr(values).addcmul_(values, density), (2 - values.square()).mul_(density)


def _slopes_of_tanh(values: Tensor) -> tuple[Tensor, Tensor]:
    """The same of x (1 + tanh u) / 2, with u = sqrt(2/π) (x + 0.044715 x³)."""
    root, cubic = math.sqrt(2 / math.pi), 0.044715
    squares = values.square()
    tanh = torch.tanh(root * (values + cubic * values * squares))
    inner, inner_bend = root * (1 + 3 * cubic * squares), 6 * root * cubic * values
    falling = 1 - tanh.square()
    slope = (1 + tanh + values * falling * inner) / 2
    return slope, falling * (inner + values * (inner_bend / 2 - tanh * inner.square()))


class LayerNorm(Operation):
    """y = w n + b, where n = (x - mean) / std over the last axes, with or without w and b."""

    is_recordable = False

    def __init__(self, num_axes: int, epsilon: float) -> None:
        self._axes, self._epsilon = list(range(-num_axes, 0)), epsilon

    def needs_adjoint(self, *, active: bool) -> bool:
        return active

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """Save the normalised input and 1 / std; ``backward`` adds the adjoint of the input and the mean in it."""
        variance, mean = torch.var_mean(inputs[0], self._axes, correction=0, keepdim=True)
        inverse = (variance + self._epsilon).rsqrt()
        normalised = (inputs[0] - mean).mul_(inverse)
        return _affine(normalised, weights), [normalised, inverse, None, None]

    def backward(self, ctx: Context, adjoint: Tensor) -> Parts:
        normalised, inverse, *_ = ctx.saved
        scaled = _scaled(adjoint, ctx.weights)
        along = self._mean(normalised * scaled)
        of_inputs = (scaled - self._mean(scaled)).addcmul_(normalised, along, value=-1).mul_(inverse)
        ctx.saved[2:] = of_inputs, along
        return (of_inputs,)

    def r_forward(self, ctx: Context, *, owned: bool) -> Tensor | None:
        """Leave the tangents of n, and of std over std, to ``r_backward``."""
        normalised, inverse, *_ = ctx.saved
        (tangent,), total = ctx.input_tangents, None
        if tangent is not None:
            along = self._mean(normalised * tangent)
            moved = (tangent - self._mean(tangent)).addcmul_(normalised, along, value=-1).mul_(inverse)
            ctx.intermediate = moved, inverse * along
            total = _scaled(moved, ctx.weights)
        scale, shift = _pair(ctx.weight_tangents)
        if scale is not None:
            total = normalised * scale if total is None else torch.addcmul(total, normalised, scale)
        if shift is not None:
            total = shift.expand_as(normalised).clone() if total is None else total + shift
        # Without a weight, the tangent of n itself, which nobody may overwrite.
        return total.clone() if total is not None and ctx.intermediate and total is ctx.intermediate[0] else total

    def r_backward(self, ctx: Context, r_adjoint: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        normalised, *_ = ctx.saved
        moved, stretch = ctx.intermediate or (None, None)
        of_inputs = self._r_adjoint_of_inputs(ctx, r_adjoint, moved, stretch) if ctx.needed[0] else None
        scale, shift = _pair(ctx.weight_tangents)
        of_scale = of_shift = None
        if scale is not None:
            products = r_adjoint * normalised
            if moved is not None and ctx.adjoint is not None:
                products.addcmul_(ctx.adjoint, moved)
            of_scale = products.sum_to_size(scale.shape)
        if shift is not None:
            of_shift = r_adjoint.sum_to_size(shift.shape)
        return (of_inputs,), (of_scale, of_shift)[: len(ctx.weight_tangents)]

    def _r_adjoint_of_inputs(
        self, ctx: Context, r_adjoint: Tensor, moved: Tensor | None, stretch: Tensor | None
    ) -> Tensor:
        normalised, inverse, of_inputs, along = ctx.saved
        scaled = _scaled(r_adjoint, ctx.weights)
        scale, _ = _pair(ctx.weight_tangents)
        if scale is not None and ctx.adjoint is not None:
            scaled = torch.addcmul(scaled, ctx.adjoint, scale)
        of_mean = self._mean(normalised * scaled)
        if moved is None or stretch is None or ctx.adjoint is None:
            return (scaled - self._mean(scaled)).addcmul_(normalised, of_mean, value=-1).mul_(inverse)
        of_mean = of_mean + self._mean(moved * _scaled(ctx.adjoint, ctx.weights))
        total = (scaled - self._mean(scaled)).addcmul_(normalised, of_mean, value=-1)
        total.addcmul_(moved, along, value=-1).mul_(inverse)
        return total.addcmul_(of_inputs, stretch, value=-1)

    def _mean(self, values: Tensor) -> Tensor:
        return values.mean(self._axes, keepdim=True)


def _pair(parts: Parts) -> tuple[Tensor | None, Tensor | None]:
    """Those of scale and shift, None for one that the layer has not."""
    scale, shift, *_ = [*parts, None, None]
    return scale, shift


def _scaled(values: Tensor, weights: Tensors) -> Tensor:
    return values * weights[0] if weights else values


def _affine(normalised: Tensor, weights: Tensors) -> Tensor:
    return torch.addcmul(weights[1], normalised, weights[0]) if len(weights) == 2 else _scaled(normalised, weights)
