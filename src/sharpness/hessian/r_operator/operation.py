"""The interface of an operation: its four passes of the R-operator (see ``r_operator.product``)."""

# ruff: noqa: ARG002 (the defaults of the interface ignore their arguments)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Tensors = Sequence[Tensor]
Parts = Sequence[Tensor | None]


@dataclass
class Context:
    """What the passes of one operation share; None stands for a tensor that is zero or not needed."""

    weights: Tensors
    saved: Any  # what ``forward`` saved
    needed: Sequence[bool]  # by input, whether it depends on a weight for which the Hessian has rows
    adjoint: Tensor | None = None  # of the output, if the operation needs it
    weight_tangents: Parts = ()  # entries of the vector for the weights
    input_tangents: Parts = ()
    intermediate: Any = None  # saved by ``r_forward`` for ``r_backward``


class UntraceableError(ValueError):
    """The network's operations depend on its data, so that they cannot be traced."""


class Operation:
    """y = f(x, w), with inputs x and weights w; subclasses implement the passes."""

    allocates_tangent = True  # the tangent of y never shares memory with that of x
    allocates_adjoint = True  # nor do the results of ``r_backward`` with its argument
    is_recordable = True  # whether every product runs the same kernels, which a GPU may record and replay

    def needs_adjoint(self, *, active: bool) -> bool:
        """Whether ``r_backward`` reads the adjoint of y; ``active``: an input depends on a weight."""
        return False

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """Return the output, and what to save for the other passes."""
        raise NotImplementedError

    def backward(self, ctx: Context, adjoint: Tensor) -> Parts:
        """Return the adjoints of the inputs, given that of the output; what ``forward`` saved may be completed."""
        raise NotImplementedError

    def r_forward(self, ctx: Context, *, owned: bool) -> Tensor | None:
        """Return the tangent of the output; ``owned``: the first input tangent may be overwritten."""
        raise NotImplementedError

    def r_backward(self, ctx: Context, r_adjoint: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        """Return the tangents of the inputs' adjoints and of the weights' gradients.

        Args:
            ctx: of this operation.
            r_adjoint: tangent of the output's adjoint.
            owned: ``r_adjoint`` may be overwritten.
        """
        raise NotImplementedError
