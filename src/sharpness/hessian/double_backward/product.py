"""Hessian-vector products by double backward: for any network, at about twice the cost of the R-operator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sharpness.hessian import cross_entropy
from sharpness.hessian.double_backward.casts import working_in
from sharpness.hessian.double_backward.differentiable import once_differentiable, twice_differentiable
from sharpness.hessian.loss import Loss, as_precise

Parts = Sequence[Tensor | None]


class EvaluationPoint:
    """Weights and examples at which double backward starts anew for every product; nothing is cached."""

    num_bytes = 0

    def __init__(self, weights: list[Tensor], buffers: list[Tensor], inputs: Tensor, targets: Tensor) -> None:
        self.weights, self.buffers, self.inputs, self.targets = weights, buffers, inputs, targets


class DoubleBackward:
    """Differentiate the inner product of gradient and vector, with a new graph each time."""

    is_static = False

    def __init__(self, loss: Loss, chosen: Sequence[bool]) -> None:
        self._loss = loss
        self._chosen = chosen

    def logits(
        self, weights: Sequence[Tensor], buffers: Sequence[Tensor], inputs: Tensor, *, once: bool = False
    ) -> Tensor:
        """Compute logits in twice differentiable operations; ``once``: in torch's own functions."""
        return self.logits_of(self.named(weights, buffers), weights[0].dtype, inputs, once=once)

    def logits_of(self, state: dict[str, Tensor], dtype: torch.dtype, inputs: Tensor, *, once: bool = False) -> Tensor:
        """Compute logits from named weights and buffers of ``dtype``; the network may replace entries of ``state``."""
        inputs = as_precise(inputs, dtype)
        # A contiguous copy: the network may change its input in place, or view it.
        inputs = inputs.clone(memory_format=torch.contiguous_format)
        with working_in(dtype), once_differentiable() if once else twice_differentiable():
            return self._loss.called(self._loss.evaluating, state, inputs)

    def named(self, weights: Sequence[Tensor], buffers: Sequence[Tensor]) -> dict[str, Tensor]:
        """Weights and buffers by name."""
        state = {name: weight.contiguous() for name, weight in zip(self._loss.layout.names, weights, strict=True)}
        state.update(zip(self._loss.buffer_layout.names, buffers, strict=True))
        return state

    def linearise(
        self, weights: list[Tensor], buffers: list[Tensor], inputs: Tensor, targets: Tensor
    ) -> EvaluationPoint:
        """Return the point itself."""
        return EvaluationPoint(weights, buffers, inputs, targets)

    @torch.enable_grad()
    def add_product(self, point: EvaluationPoint, vector: Parts, total: Parts) -> None:
        """Add the HVP of the summed cross-entropy with ``vector`` to ``total``, both by parameter."""
        loss, chosen = self._loss_of(point)
        if not loss.requires_grad:
            return  # the loss does not depend on any chosen weight
        gradients = torch.autograd.grad(loss, chosen, create_graph=True, materialize_grads=True)
        pairs = zip(gradients, (part for part in vector if part is not None), strict=True)
        smooth = [(gradient, part) for gradient, part in pairs if gradient.requires_grad]
        if not smooth:
            return  # the loss is linear in the chosen weights
        moving, along = zip(*smooth, strict=True)
        _add(torch.autograd.grad(moving, chosen, along, materialize_grads=True), total)

    @torch.enable_grad()
    def add_gradient(self, point: EvaluationPoint, total: Parts) -> None:
        """Add the gradient of the summed cross-entropy, in torch's own functions, to ``total``, by parameter."""
        loss, chosen = self._loss_of(point, once=True)
        if loss.requires_grad:
            _add(torch.autograd.grad(loss, chosen, materialize_grads=True), total)

    def _loss_of(self, point: EvaluationPoint, *, once: bool = False) -> tuple[Tensor, list[Tensor]]:
        leaves = [
            weight.detach().requires_grad_(chosen) for weight, chosen in zip(point.weights, self._chosen, strict=True)
        ]
        logits = self.logits(leaves, point.buffers, point.inputs, once=once)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = cross_entropy.summed(logits, point.targets)
        return loss, [leaf for leaf in leaves if leaf.requires_grad]


def _add(parts: Sequence[Tensor], total: Parts) -> None:
    for whole, part in zip((part for part in total if part is not None), parts, strict=True):
        whole += part
