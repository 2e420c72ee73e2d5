"""Convolutions and dense layers: operations that are bilinear in input and kernel."""

# ruff: noqa: ARG002 (every operation has the same signature)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sharpness.hessian.r_operator.operation import Context, Operation, Parts, Tensors

aten = torch.ops.aten


class Bilinear(Operation):
    """y = x * w + b, for a product ``*`` that is linear in the input x and in the kernel w."""

    def needs_adjoint(self, *, active: bool) -> bool:
        """Not at the first layer, where the gradient of w is linear in the adjoint."""
        return active

    def product(self, inputs: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """x * w + b."""
        raise NotImplementedError

    def adjoint_of_inputs(self, adjoint: Tensor, like: Tensor, kernel: Tensor) -> Tensor:
        """Adjoint of x, which has the shape of ``like``; linear in w."""
        raise NotImplementedError

    def adjoint_of_kernel(self, adjoint: Tensor, inputs: Tensor, like: Tensor) -> Tensor:
        """Adjoint of w, which has the shape of ``like``; linear in x."""
        raise NotImplementedError

    def adjoint_of_bias(self, adjoint: Tensor) -> Tensor:
        """Adjoint of b."""
        raise NotImplementedError

    def two_products(self, inputs: Tensors, kernels: Tensors, bias: Tensor | None) -> Tensor:
        """x₁ * w₁ + x₂ * w₂ + b."""
        first, second = (self.product(x, w, b) for x, w, b in zip(inputs, kernels, (bias, None), strict=True))
        return first.add_(second)

    def two_adjoints_of_inputs(self, adjoints: Tensors, like: Tensor, kernels: Tensors) -> Tensor:
        """Sum of two ``adjoint_of_inputs``."""
        first, second = (self.adjoint_of_inputs(a, like, w) for a, w in zip(adjoints, kernels, strict=True))
        return first.add_(second)

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """Save the input."""
        kernel, *bias = weights
        return self.product(inputs[0], kernel, bias[0] if bias else None), inputs[0]

    def backward(self, ctx: Context, adjoint: Tensor) -> Parts:
        return (self.adjoint_of_inputs(adjoint, ctx.saved, ctx.weights[0]),)

    def r_forward(self, ctx: Context, *, owned: bool) -> Tensor | None:
        """x * w' + x' * w + b'."""
        kernel, tangent = ctx.weight_tangents[0], ctx.input_tangents[0]
        bias = ctx.weight_tangents[1] if len(ctx.weight_tangents) > 1 else None
        if kernel is not None and tangent is not None:
            return self.two_products((ctx.saved, tangent), (kernel, ctx.weights[0]), bias)
        if kernel is not None:
            return self.product(ctx.saved, kernel, bias)
        if tangent is None and bias is not None:
            tangent = torch.zeros_like(ctx.saved)
        return None if tangent is None else self.product(tangent, ctx.weights[0], bias)

    def r_backward(self, ctx: Context, r_adjoint: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        """Each adjoint is bilinear, so its tangent is a sum of two products."""
        kernel, tangent, adjoint = ctx.weight_tangents[0], ctx.input_tangents[0], ctx.adjoint
        of_inputs = of_kernel = of_bias = None
        if ctx.needed[0] and kernel is not None and adjoint is not None:
            of_inputs = self.two_adjoints_of_inputs((r_adjoint, adjoint), ctx.saved, (ctx.weights[0], kernel))
        elif ctx.needed[0]:
            of_inputs = self.adjoint_of_inputs(r_adjoint, ctx.saved, ctx.weights[0])
        if kernel is not None:
            of_kernel = self.adjoint_of_kernel(r_adjoint, ctx.saved, kernel)
            if tangent is not None and adjoint is not None:
                of_kernel.add_(self.adjoint_of_kernel(adjoint, tangent, kernel))
        if len(ctx.weight_tangents) > 1 and ctx.weight_tangents[1] is not None:
            of_bias = self.adjoint_of_bias(r_adjoint)
        return (of_inputs,), (of_kernel, of_bias)[: len(ctx.weight_tangents)]


class Convolution(Bilinear):
    """A convolution in any number of dimensions, with zero padding."""

    def __init__(self, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int) -> None:
        self._geometry = list(stride), list(padding), list(dilation), False, [0] * len(stride), groups
        self._is_ungrouped = groups == 1

    def product(self, inputs: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        outputs: Tensor = aten.convolution(inputs, kernel, bias, *self._geometry)
        return outputs

    def adjoint_of_inputs(self, adjoint: Tensor, like: Tensor, kernel: Tensor) -> Tensor:
        return self._backward(adjoint, like, kernel, [True, False, False])[0]

    def adjoint_of_kernel(self, adjoint: Tensor, inputs: Tensor, like: Tensor) -> Tensor:
        return self._backward(adjoint, inputs, like, [False, True, False])[1]

    def adjoint_of_bias(self, adjoint: Tensor) -> Tensor:
        return sum_over_channels(adjoint)

    def two_products(self, inputs: Tensors, kernels: Tensors, bias: Tensor | None) -> Tensor:
        """One convolution with twice the channels, which is faster than the sum of two."""
        if not self._is_ungrouped:
            return super().two_products(inputs, kernels, bias)
        return self.product(torch.cat(list(inputs), 1), torch.cat(list(kernels), 1), bias)

    def two_adjoints_of_inputs(self, adjoints: Tensors, like: Tensor, kernels: Tensors) -> Tensor:
        """As ``two_products``."""
        if not self._is_ungrouped:
            return super().two_adjoints_of_inputs(adjoints, like, kernels)
        return self.adjoint_of_inputs(torch.cat(list(adjoints), 1), like, torch.cat(list(kernels), 0))

    def _backward(self, adjoint: Tensor, inputs: Tensor, kernel: Tensor, wanted: list[bool]) -> Tensors:
        parts: Tensors = aten.convolution_backward(adjoint, inputs, kernel, None, *self._geometry, wanted)
        return parts


class Dense(Bilinear):
    """A dense layer, x wᵀ + b over the last axis."""

    def product(self, inputs: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(inputs, kernel, bias)

    def adjoint_of_inputs(self, adjoint: Tensor, like: Tensor, kernel: Tensor) -> Tensor:
        return adjoint @ kernel

    def adjoint_of_kernel(self, adjoint: Tensor, inputs: Tensor, like: Tensor) -> Tensor:
        return adjoint.flatten(0, -2).T @ inputs.flatten(0, -2)

    def adjoint_of_bias(self, adjoint: Tensor) -> Tensor:
        return adjoint.flatten(0, -2).sum(0)


def sum_over_channels(values: Tensor) -> Tensor:
    """Sum [n, channels, ...] over all axes but the channels."""
    return values.sum([0, *range(2, values.dim())])
