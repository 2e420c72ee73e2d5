"""Products with the Hessian of a network's loss, from flat vectors: what the operators at all its weights share."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import get_args

import torch
from torch import Tensor

from sharpness.hessian import arguments
from sharpness.hessian.double_backward.product import State
from sharpness.hessian.forms import Form, by_parameter, checked_form
from sharpness.hessian.loss import Loss
from sharpness.hessian.outputs import Outputs, outputs_of
from sharpness.hessian.r_operator.product import Kept
from sharpness.runtime.device import tensor_float_32
from sharpness.runtime.precision import LowPrecision


class HessianProduct:
    """Products with the Hessian of a loss at any weights, on any examples: what a network's checkpoints share.

    A network whose operations can be listed is served by the R-operator; any other by double backward, which takes
    about twice the time and is logged, once for a kind of network. Which it is, and whether it is right, is found out
    once, at the first weights.

    Args:
        loss: of the network.
        precision: "bfloat16" runs the passes over the network in it; vectors and sums over chunks stay as precise as
            the weights are. "tf32" lets a GPU multiply numbers of single precision in TensorFloat-32; elsewhere it
            changes nothing. None: everything is as precise as the weights.
        parameters: names of the weights that the Hessian has rows for, as a pattern (``layer3.*``).

    Raises:
        ValueError: no parameter has such a name; the precision is unknown.
    """

    def __init__(self, loss: Loss, *, precision: LowPrecision | None = None, parameters: str = "*") -> None:
        arguments.one_of("precision", precision, (None, *get_args(LowPrecision)))
        self.loss = loss
        self.layout = loss.layout.matching(parameters)
        self.precision = precision
        self._chosen = [name in self.layout.names for name in loss.layout.names]
        self._form: Form | None = None
        self._outputs: Outputs | None = None

    def in_full_precision(self) -> HessianProduct:
        """The same product with all passes as precise as the weights."""
        product = copy.copy(self)
        product.precision = None
        return product

    @property
    def is_static(self) -> bool:
        """Whether every product runs the same kernels and waits for none; known after the first ``linearise``."""
        return self._form is not None and self._form.is_static

    def rounded(self, tensor: Tensor) -> Tensor:
        """Weights, buffers or a vector in the precision of the passes; as they are where that is theirs."""
        return tensor.to(torch.bfloat16) if self.precision == "bfloat16" else tensor

    def outputs(self, weights: Tensor, buffers: Tensor, inputs: Tensor) -> Outputs:
        """What the network gives, found out at the first weights, and with it in which form products are computed.

        Raises:
            FloatingPointError: the curvature overflows at these weights.
            RuntimeError: a product differs from double backward.
        """
        if self._outputs is None or self._form is None:
            parts = self._parts(weights, buffers)
            with self.loss.differentiating():
                self._form = checked_form(self.loss, self.layout, self._chosen, *parts, inputs)
                self._outputs = outputs_of(self.loss, *parts, inputs)
        return self._outputs

    def linearise(self, weights: Tensor, buffers: Tensor, inputs: Tensor, targets: Tensor) -> Kept | State:
        """Everything in the product that does not depend on the vector; shapes as in ``Loss``.

        Chunks of examples share the memory of weights and buffers that are ``rounded`` already.

        Raises:
            FloatingPointError: the curvature overflows at these weights.
            RuntimeError: a product differs from double backward.
        """
        self.outputs(weights, buffers, inputs)
        assert self._form is not None
        with self.loss.differentiating(), self._multiplying():
            return self._form.linearise(*self._parts(weights, buffers), inputs, targets)

    def add_product(self, kept: Kept | State, vector: Tensor, total: Tensor) -> None:
        """Add to ``total`` the Hessian of the cross-entropy, summed over what ``kept`` is of, times ``vector`` [p]."""
        assert self._form is not None
        with self.loss.differentiating(), self._multiplying():
            parts = (by_parameter(self.layout, self._chosen, flat) for flat in (self.rounded(vector), total))
            self._form.add_product(kept, *parts)  # type: ignore[arg-type]

    def _parts(self, weights: Tensor, buffers: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return self.loss.layout.views(self.rounded(weights)), self.loss.buffer_layout.views(self.rounded(buffers))

    def _multiplying(self) -> AbstractContextManager[None]:
        return tensor_float_32() if self.precision == "tf32" else nullcontext()
