"""Any operation without a rule of its own, by torch's derivatives."""

# ruff: noqa: ARG002 (every operation has the same signature)

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp

from sharpness.hessian.r_operator.operation import Context, Operation, Parts, Tensors

_log = logging.getLogger(__name__)


class GenericOperation(Operation):
    """Any operation that torch can differentiate twice, recomputed from its inputs at every pass.

    Derivatives along the vector use forward mode, or double reverse mode if torch has no forward-mode formula, as for
    the adjoints of SiLU and group norm.

    Args:
        function: takes the weights, the buffers and the inputs.
    """

    # The function may return a view or its argument.
    allocates_tangent = False
    allocates_adjoint = False
    is_recordable = False  # not known of it

    def __init__(self, function: Callable[[Tensors, Tensors, Sequence[Any]], Any]) -> None:
        self._function = function
        self._tangent, self._r_adjoints = _ForwardMode(), _ForwardMode()

    def needs_adjoint(self, *, active: bool) -> bool:
        """Always: the function may be curved in its weights."""
        return True

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """Save buffers and inputs."""
        return self._function(weights, buffers, inputs), (inputs, buffers)

    def backward(self, ctx: Context, adjoint: Tensor) -> Parts:
        function, primals = self._smooth(ctx)
        parts = iter(vjp(function, *primals)[1](adjoint)[len(ctx.weights) :])
        return tuple(next(parts) if wanted else None for wanted in ctx.needed)

    def r_forward(self, ctx: Context, *, owned: bool) -> Tensor | None:
        function, primals = self._smooth(ctx)
        along = _tangents_of(ctx, primals)
        tangent: Tensor | None = self._tangent(function, primals, along)
        return _tangent_in_reverse(function, primals, along) if tangent is None else tangent

    def r_backward(self, ctx: Context, r_adjoint: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        function, primals = self._smooth(ctx)

        def adjoints(adjoint: Tensor, *primals: Tensor) -> tuple[Tensor, ...]:
            parts: tuple[Tensor, ...] = vjp(function, *primals)[1](adjoint)
            return parts

        adjoint = torch.zeros_like(r_adjoint) if ctx.adjoint is None else ctx.adjoint
        along = _tangents_of(ctx, primals)
        parts: Tensors | None = self._r_adjoints(adjoints, (adjoint, *primals), (r_adjoint, *along))
        if parts is None:
            parts = _r_adjoints_in_reverse(function, primals, along, adjoint, r_adjoint)
        num_weights = len(ctx.weights)
        gradients = tuple(
            None if entry is None else part
            for part, entry in zip(parts[:num_weights], ctx.weight_tangents, strict=True)
        )
        of_inputs = iter(parts[num_weights:])
        return tuple(next(of_inputs) if wanted else None for wanted in ctx.needed), gradients

    def _smooth(self, ctx: Context) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
        """Return the operation as a function of the weights and the needed inputs only, and their values."""
        inputs, buffers = ctx.saved
        num_weights = len(ctx.weights)

        def function(*primals: Tensor) -> Tensor:
            needed = iter(primals[num_weights:])
            given = [next(needed) if wanted else value for value, wanted in zip(inputs, ctx.needed, strict=True)]
            outputs: Tensor = self._function(primals[:num_weights], buffers, given)
            return outputs

        return function, (*ctx.weights, *(value for value, wanted in zip(inputs, ctx.needed, strict=True) if wanted))


class _ForwardMode:
    """A forward-mode derivative of one operation; the first call finds out whether torch has it."""

    def __init__(self) -> None:
        self._exists = True

    def __call__(self, function: Callable[..., Any], primals: Tensors, along: Tensors) -> Any:
        """Return the derivative along ``along``; None if torch has no formula for it."""
        if not self._exists:
            return None
        with warnings.catch_warnings():
            # Loading torch's forward-mode formulas makes torch warn about them.
            warnings.simplefilter("ignore")
            try:
                return jvp(function, tuple(primals), tuple(along))[1]
            except NotImplementedError as error:
                _log.debug("no forward mode, using double reverse mode: %s", error)
                self._exists = False
                return None


def _tangent_in_reverse(function: Callable[..., Tensor], primals: Tensors, along: Tensors) -> Tensor:
    """Tangent of the output: the transpose of the map from its adjoint to the inputs' adjoints, which is linear."""
    adjoint = torch.zeros_like(function(*primals))
    parts: Tensors = vjp(lambda given: vjp(function, *primals)[1](given), adjoint)[1](tuple(along))
    return parts[0]


def _r_adjoints_in_reverse(
    function: Callable[..., Tensor], primals: Tensors, along: Tensors, adjoint: Tensor, r_adjoint: Tensor
) -> Tensors:
    """Tangents of the adjoints: the gradient of <y, r_adjoint> + <adjoints, along>, since derivatives commute."""

    def both(*primals: Tensor) -> tuple[Tensor, Tensors]:
        linearised = vjp(function, *primals)
        return linearised[0], linearised[1](adjoint)

    parts: Tensors = vjp(both, *primals)[1]((r_adjoint, tuple(along)))
    return parts


def _tangents_of(ctx: Context, primals: Tensors) -> tuple[Tensor, ...]:
    """Tangents of the weights and the needed inputs, with zeros for None."""
    given = [
        *ctx.weight_tangents,
        *(tangent for tangent, wanted in zip(ctx.input_tangents, ctx.needed, strict=True) if wanted),
    ]
    return tuple(torch.zeros_like(p) if t is None else t for p, t in zip(primals, given, strict=True))
