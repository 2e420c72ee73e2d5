"""Products with a curvature by double backward: for any network, at about twice the cost of the R-operator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sharpness.hessian.curvature import CurvatureKind, at_outputs
from sharpness.hessian.double_backward.casts import working_in
from sharpness.hessian.double_backward.differentiable import once_differentiable, twice_differentiable
from sharpness.hessian.inputs import Inputs, mapped
from sharpness.hessian.loss import Loss, as_precise
from sharpness.hessian.losses.criterion import Criterion, precise

Parts = Sequence[Tensor | None]


class EvaluationPoint:
    """Weights and examples at which double backward starts anew for every product; nothing is cached."""

    num_bytes = 0

    def __init__(self, weights: list[Tensor], buffers: list[Tensor], inputs: Inputs, targets: Tensor) -> None:
        self.weights, self.buffers, self.inputs, self.targets = weights, buffers, inputs, targets


class DoubleBackward:
    """Differentiate the inner product of gradient and vector, with a new graph each time.

    Args:
        loss: of the network.
        chosen: by parameter: whether the curvature has rows for it.
        criterion: the loss of outputs and targets; None is that of ``loss``.
        kind: of curvature.
    """

    is_static = False

    def __init__(
        self,
        loss: Loss,
        chosen: Sequence[bool],
        criterion: Criterion | None = None,
        kind: CurvatureKind = "hessian",
    ) -> None:
        self._loss = loss
        self._chosen = chosen
        self.criterion = loss.criterion if criterion is None else criterion
        self.kind = kind

    def logits(
        self, weights: Sequence[Tensor], buffers: Sequence[Tensor], inputs: Inputs, *, once: bool = False
    ) -> Tensor:
        """Compute logits in twice differentiable operations; ``once``: in torch's own functions."""
        return self.logits_of(self.named(weights, buffers), weights[0].dtype, inputs, once=once)

    @torch.no_grad()
    def total(
        self, weights: Sequence[Tensor], buffers: Sequence[Tensor], inputs: Inputs
    ) -> tuple[float, float | Tensor]:
        """Sum over the terms of a batch, and count them, by the user's own loss."""
        with working_in(weights[0].dtype), once_differentiable():
            return self._loss.total(self.named(weights, buffers), as_precise(inputs, weights[0].dtype))

    def logits_of(self, state: dict[str, Tensor], dtype: torch.dtype, inputs: Inputs, *, once: bool = False) -> Tensor:
        """Compute logits from named weights and buffers of ``dtype``; the network may replace entries of ``state``."""
        inputs = as_precise(inputs, dtype)
        # A contiguous copy: the network may change its input in place, or view it.
        inputs = mapped(lambda tensor: tensor.clone(memory_format=torch.contiguous_format), inputs)
        with working_in(dtype), once_differentiable() if once else twice_differentiable():
            return self._loss.called(self._loss.evaluating, state, inputs)

    def named(self, weights: Sequence[Tensor], buffers: Sequence[Tensor]) -> dict[str, Tensor]:
        """Weights and buffers by name."""
        state = {name: weight.contiguous() for name, weight in zip(self._loss.layout.names, weights, strict=True)}
        state.update(zip(self._loss.buffer_layout.names, buffers, strict=True))
        return state

    def linearise(
        self, weights: list[Tensor], buffers: list[Tensor], inputs: Inputs, targets: Tensor
    ) -> EvaluationPoint:
        """Return the point itself."""
        return EvaluationPoint(weights, buffers, inputs, targets)

    @torch.enable_grad()
    def add_product(self, point: EvaluationPoint, vector: Parts, total: Parts) -> None:
        """Add the curvature of the summed loss times ``vector`` to ``total``, both by parameter."""
        along = [part for part in vector if part is not None]
        parts = self._hessian_product(point, along) if self.kind == "hessian" else self._outer_product(point, along)
        if parts is not None:
            _add(parts, total)

    def _hessian_product(self, point: EvaluationPoint, vector: Sequence[Tensor]) -> Sequence[Tensor] | None:
        loss, chosen = self._loss_of(point)
        if not loss.requires_grad:
            return None  # the loss does not depend on any chosen weight
        gradients = torch.autograd.grad(loss, chosen, create_graph=True, materialize_grads=True)
        pairs = zip(gradients, vector, strict=True)
        smooth = [(gradient, part) for gradient, part in pairs if gradient.requires_grad]
        if not smooth:
            return None  # the loss is linear in the chosen weights
        moving, along = zip(*smooth, strict=True)
        return torch.autograd.grad(moving, chosen, along, materialize_grads=True)

    def _outer_product(self, point: EvaluationPoint, vector: Sequence[Tensor]) -> Sequence[Tensor] | None:
        """Jᵀ C J v, with the Jacobian J of the outputs and the curvature C of the loss at them."""
        outputs, chosen = self._outputs_of(point)
        if not outputs.requires_grad:
            return None
        # J v is the derivative of Jᵀ a, which is linear in a, in the direction of v.
        adjoint = torch.zeros_like(outputs, requires_grad=True)
        gradients = torch.autograd.grad(outputs, chosen, adjoint, create_graph=True, materialize_grads=True)
        moving = [(gradient, part) for gradient, part in zip(gradients, vector, strict=True) if gradient.requires_grad]
        of, along = zip(*moving, strict=True)
        (tangent,) = torch.autograd.grad(of, adjoint, along, retain_graph=True)
        _, curvature = at_outputs(self.kind, self.criterion, outputs.detach(), point.targets)
        return torch.autograd.grad(outputs, chosen, curvature.times(tangent).to(outputs), materialize_grads=True)

    @torch.enable_grad()
    def add_gradient(self, point: EvaluationPoint, total: Parts) -> None:
        """Add the gradient of the summed loss, in torch's own functions, to ``total``, by parameter."""
        loss, chosen = self._loss_of(point, once=True)
        if loss.requires_grad:
            _add(torch.autograd.grad(loss, chosen, materialize_grads=True), total)

    @torch.enable_grad()
    def is_apart(self, weights: list[Tensor], buffers: list[Tensor], inputs: Inputs) -> bool:
        """Whether no path of the graph leads from the outputs to a chosen weight."""
        outputs, chosen = self._outputs_of(EvaluationPoint(weights, buffers, inputs, torch.empty(0)), once=True)
        if not outputs.requires_grad:
            return True
        return all(part is None for part in torch.autograd.grad(outputs.sum(), chosen, allow_unused=True))

    def _loss_of(self, point: EvaluationPoint, *, once: bool = False) -> tuple[Tensor, list[Tensor]]:
        outputs, chosen = self._outputs_of(point, once=once)
        return self.criterion.summed(precise(outputs), point.targets), chosen

    def _outputs_of(self, point: EvaluationPoint, *, once: bool = False) -> tuple[Tensor, list[Tensor]]:
        leaves = [
            weight.detach().requires_grad_(chosen) for weight, chosen in zip(point.weights, self._chosen, strict=True)
        ]
        outputs = self.logits(leaves, point.buffers, point.inputs, once=once)
        return outputs, [leaf for leaf in leaves if leaf.requires_grad]


def _add(parts: Sequence[Tensor], total: Parts) -> None:
    for whole, part in zip((part for part in total if part is not None), parts, strict=True):
        whole += part
