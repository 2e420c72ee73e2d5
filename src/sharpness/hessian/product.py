"""Products of a curvature with flat vectors, as shared by the operators at all checkpoints of a network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import get_args

import torch
from torch import Tensor

from sharpness.hessian import arguments
from sharpness.hessian.curvature import CurvatureKind
from sharpness.hessian.double_backward.product import DoubleBackward, EvaluationPoint
from sharpness.hessian.forms import Form, by_parameter, checked_form
from sharpness.hessian.inputs import Inputs
from sharpness.hessian.loss import Loss
from sharpness.hessian.outputs import Outputs, outputs_of
from sharpness.hessian.r_operator.product import Linearisation
from sharpness.hessian.rows import rows_of
from sharpness.runtime.device import tensor_float_32
from sharpness.runtime.precision import LowPrecision


class HessianProduct:
    """Products with the Hessian, or another curvature, of a loss at any weights, on any examples.

    Networks that can be traced use the R-operator. All others fall back to double backward, at about twice the cost and
    with one logged warning per class of network. The choice is made, and checked, at the first weights.

    Args:
        loss: of the network.
        precision: "bfloat16" runs the passes over the network in bfloat16; vectors and sums over chunks keep the
            precision of the weights. "tf32" lets a GPU multiply float32 numbers in TensorFloat-32; elsewhere it has no
            effect. None: everything is in the precision of the weights.
        parameters: names of the weights for which the curvature has rows, as for ``rows_of``.
        curvature: the Hessian, the Gauss-Newton matrix or the covariance of gradients; for the last, products are with
            the sum of squared gradients, which an operator centres.

    Raises:
        ValueError: no parameter matches, or the precision is unknown.
    """

    def __init__(
        self,
        loss: Loss,
        *,
        precision: LowPrecision | None = None,
        parameters: str | Sequence[str] = "*",
        curvature: CurvatureKind = "hessian",
    ) -> None:
        arguments.one_of("precision", precision, (None, *get_args(LowPrecision)))
        arguments.one_of("curvature", curvature, get_args(CurvatureKind))
        self.loss = loss
        self.curvature = curvature
        self.layout = rows_of(loss, parameters)
        self.precision = precision
        self._chosen = [name in self.layout.names for name in loss.layout.names]
        self._form: Form | None = None
        self._outputs: Outputs | None = None

    def in_full_precision(self) -> HessianProduct:
        """Return the same product with all passes in the precision of the weights."""
        product = copy.copy(self)
        product.precision = None
        return product

    @property
    def is_static(self) -> bool:
        """Whether every product runs the same kernels without synchronising; known after the first ``linearise``."""
        return self._form is not None and self._form.is_static

    def rounded(self, tensor: Tensor) -> Tensor:
        """Convert weights, buffers or a vector to the precision of the passes."""
        return tensor.to(torch.bfloat16) if self.precision == "bfloat16" else tensor

    def outputs(self, weights: Tensor, buffers: Tensor, inputs: Inputs) -> Outputs:
        """Describe the network's outputs; the first call also chooses and checks how products are computed.

        Raises:
            FloatingPointError: the curvature overflows at these weights.
            RuntimeError: a product differs from double backward.
        """
        if self._outputs is None or self._form is None:
            parts = self._parts(weights, buffers)
            with self.loss.differentiating():
                self._form = checked_form(self.loss, self.layout, self._chosen, *parts, inputs, self.curvature)
                self._outputs = outputs_of(self.loss, *parts, inputs)
        return self._outputs

    def linearise(
        self, weights: Tensor, buffers: Tensor, inputs: Inputs, targets: Tensor
    ) -> Linearisation | EvaluationPoint:
        """Compute what does not depend on the vector; shapes as in ``Loss``.

        Weights and buffers that are ``rounded`` already are not copied, so that chunks share their memory.

        Raises:
            FloatingPointError: the curvature overflows at these weights.
            RuntimeError: a product differs from double backward.
        """
        self.outputs(weights, buffers, inputs)
        assert self._form is not None
        with self.loss.differentiating(), self._multiplying():
            return self._form.linearise(*self._parts(weights, buffers), inputs, targets)

    def add_product(self, linearised: Linearisation | EvaluationPoint, vector: Tensor, total: Tensor) -> None:
        """Add to ``total`` the curvature of the loss summed over the linearised examples times ``vector`` [p]."""
        assert self._form is not None
        with self.loss.differentiating(), self._multiplying():
            parts = (by_parameter(self.layout, self._chosen, flat) for flat in (self.rounded(vector), total))
            self._form.add_product(linearised, *parts)  # type: ignore[arg-type]

    def add_gradient(self, linearised: Linearisation | EvaluationPoint, total: Tensor) -> None:
        """Add to ``total`` [p] the gradient of the loss summed over the linearised examples; not for the Hessian."""
        assert self._form is not None
        with self.loss.differentiating(), self._multiplying():
            self._form.add_gradient(linearised, by_parameter(self.layout, self._chosen, total))  # type: ignore[arg-type]

    def total(self, weights: Tensor, buffers: Tensor, inputs: Inputs) -> tuple[float, float | Tensor]:
        """Sum over the terms of a batch, and count them, by the user's own loss."""
        return DoubleBackward(self.loss, []).total(*self._parts(weights, buffers), inputs)

    def _parts(self, weights: Tensor, buffers: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return self.loss.layout.views(self.rounded(weights)), self.loss.buffer_layout.views(self.rounded(buffers))

    def _multiplying(self) -> AbstractContextManager[None]:
        return tensor_float_32() if self.precision == "tf32" else nullcontext()
