"""Operations with rules of their own, beside convolutions and dense layers (see ``bilinear``)."""

# ruff: noqa: ARG002 (every operation has the same signature)

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sharpness.hessian.r_operator.bilinear import sum_over_channels
from sharpness.hessian.r_operator.operation import Context, Operation, Parts, Tensors

aten = torch.ops.aten


class Embedding(Operation):
    """Rows of a table at given indices; the row at ``padding`` is constant."""

    def __init__(self, padding: int | None) -> None:
        self._padding = padding

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """Save the indices."""
        return functional.embedding(inputs[0], weights[0]), inputs[0]

    def r_forward(self, ctx: Context, *, owned: bool) -> Tensor | None:
        if ctx.weight_tangents[0] is None:
            return None
        tangent = functional.embedding(ctx.saved, ctx.weight_tangents[0])
        return tangent if self._padding is None else tangent.masked_fill((ctx.saved == self._padding).unsqueeze(-1), 0)

    def r_backward(self, ctx: Context, r_adjoint: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        if ctx.weight_tangents[0] is None:
            return (None,), (None,)
        padding = -1 if self._padding is None else self._padding
        return (None,), (aten.embedding_dense_backward(r_adjoint, ctx.saved, len(ctx.weights[0]), padding, False),)


class Relu(Operation):
    """max(x, 0). Saves only its output, which the next operation saves anyway."""

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        outputs = inputs[0].relu()
        return outputs, outputs

    def backward(self, ctx: Context, adjoint: Tensor) -> Parts:
        return (aten.threshold_backward(adjoint, ctx.saved, 0),)

    def r_forward(self, ctx: Context, *, owned: bool) -> Tensor | None:
        return None if ctx.input_tangents[0] is None else _masked(ctx.input_tangents[0], ctx.saved, owned=owned)

    def r_backward(self, ctx: Context, r_adjoint: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        return (_masked(r_adjoint, ctx.saved, owned=owned),), ()


class MaxPool2d(Operation):
    """Maximum over each window."""

    def __init__(
        self,
        size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        ceil_mode: bool,
    ) -> None:
        self._window = list(size), list(stride), list(padding), list(dilation), ceil_mode

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """Save the indices of the maxima."""
        outputs, indices = aten.max_pool2d_with_indices(inputs[0], *self._window)
        return outputs, (indices, inputs[0].shape)

    def backward(self, ctx: Context, adjoint: Tensor) -> Parts:
        indices, shape = ctx.saved
        # The kernel reads only its shape and memory format.
        inputs = torch.empty(shape, dtype=adjoint.dtype, device=adjoint.device, memory_format=torch.channels_last)
        adjoint = adjoint.contiguous(memory_format=torch.channels_last)
        return (aten.max_pool2d_with_indices_backward(adjoint, inputs, *self._window, indices),)

    def r_forward(self, ctx: Context, *, owned: bool) -> Tensor | None:
        if ctx.input_tangents[0] is None:
            return None
        # Channels last, so that memory is gathered contiguously.
        indices = ctx.saved[0].permute(0, 2, 3, 1)
        flat = ctx.input_tangents[0].permute(0, 2, 3, 1).flatten(1, 2)
        return flat.gather(1, indices.flatten(1, 2)).view(indices.shape).permute(0, 3, 1, 2)

    def r_backward(self, ctx: Context, r_adjoint: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        return self.backward(ctx, r_adjoint), ()


class BatchNorm(Operation):
    """Batch norm with running statistics: y = w (x - mean) / std + b per channel."""

    def __init__(self, epsilon: float) -> None:
        self._epsilon = epsilon

    def needs_adjoint(self, *, active: bool) -> bool:
        return active

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """Save the normalised input."""
        (values,), (mean, variance) = inputs, buffers
        inverse = (variance + self._epsilon).rsqrt()
        normalised = (values - _channels(mean, values)) * _channels(inverse, values)
        outputs = torch.addcmul(_channels(weights[1], values), normalised, _channels(weights[0], values))
        return outputs, (normalised, inverse)

    def backward(self, ctx: Context, adjoint: Tensor) -> Parts:
        return (adjoint * _channels(ctx.weights[0] * ctx.saved[1], adjoint),)

    def r_forward(self, ctx: Context, *, owned: bool) -> Tensor | None:
        normalised, inverse = ctx.saved
        total = None
        if ctx.input_tangents[0] is not None:
            total = ctx.input_tangents[0] * _channels(ctx.weights[0] * inverse, normalised)
        if ctx.weight_tangents[0] is not None:
            total = _sum(total, normalised * _channels(ctx.weight_tangents[0], normalised))
        if ctx.weight_tangents[1] is not None:
            total = _sum(total, _channels(ctx.weight_tangents[1], normalised).expand_as(normalised).clone())
        return total

    def r_backward(self, ctx: Context, r_adjoint: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        normalised, inverse = ctx.saved
        of_inputs = of_scale = of_shift = None
        if ctx.needed[0]:
            of_inputs = r_adjoint * _channels(ctx.weights[0] * inverse, r_adjoint)
            if ctx.weight_tangents[0] is not None and ctx.adjoint is not None:
                of_inputs.addcmul_(ctx.adjoint, _channels(ctx.weight_tangents[0] * inverse, r_adjoint))
        if ctx.weight_tangents[0] is not None:
            of_scale = sum_over_channels(r_adjoint * normalised)
            if ctx.input_tangents[0] is not None and ctx.adjoint is not None:
                of_scale = of_scale + inverse * sum_over_channels(ctx.adjoint * ctx.input_tangents[0])
        if ctx.weight_tangents[1] is not None:
            of_shift = sum_over_channels(r_adjoint)
        return (of_inputs,), (of_scale, of_shift)


class Add(Operation):
    """The sum of two tensors, broadcast against each other."""

    allocates_adjoint = False

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        one, other = inputs
        return one + other, (getattr(one, "shape", ()), getattr(other, "shape", ()))

    def backward(self, ctx: Context, adjoint: Tensor) -> Parts:
        return tuple(
            adjoint.sum_to_size(shape) if wanted else None for shape, wanted in zip(ctx.saved, ctx.needed, strict=True)
        )

    def r_forward(self, ctx: Context, *, owned: bool) -> Tensor | None:
        shape = torch.broadcast_shapes(*ctx.saved)  # type: ignore[no-untyped-call]
        one, other = ctx.input_tangents
        if one is None or other is None:
            given = other if one is None else one
            return None if given is None else given.expand(shape).clone()
        return one + other

    def r_backward(self, ctx: Context, r_adjoint: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        return self.backward(ctx, r_adjoint), ()


class LinearMap(Operation):
    """A function linear in its single input, without weights: reshapes, means, average pools."""

    allocates_tangent = False
    allocates_adjoint = False

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """Save the shape of the input."""
        return self._function(inputs[0]), getattr(inputs[0], "shape", ())

    def backward(self, ctx: Context, adjoint: Tensor) -> Parts:
        """Differentiate at an arbitrary point: the derivative of a linear map is constant."""
        point = adjoint.new_empty(ctx.saved)
        if len(ctx.saved) == 4:
            point = point.contiguous(memory_format=torch.channels_last)
        with torch.enable_grad():
            return torch.autograd.grad(self._function(point.requires_grad_()), point, adjoint)

    def r_forward(self, ctx: Context, *, owned: bool) -> Tensor | None:
        return None if ctx.input_tangents[0] is None else self._function(ctx.input_tangents[0])

    def r_backward(self, ctx: Context, r_adjoint: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        return self.backward(ctx, r_adjoint), ()


class Parameter(Operation):
    """A weight that the network uses directly, not through a layer."""

    allocates_tangent = False

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        return weights[0], None

    def r_forward(self, ctx: Context, *, owned: bool) -> Tensor | None:
        return ctx.weight_tangents[0]

    def r_backward(self, ctx: Context, r_adjoint: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        return (), (r_adjoint,)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one.add_(other)


def _masked(tensor: Tensor, outputs: Tensor, *, owned: bool) -> Tensor:
    if not owned:
        masked: Tensor = aten.threshold_backward(tensor, outputs, 0)
        return masked
    aten.threshold_backward.grad_input(tensor, outputs, 0, grad_input=tensor)
    return tensor


def _channels(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 2))
