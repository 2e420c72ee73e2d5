"""Hessian-vector products by double backward: of any network, at about twice the time of the R-operator's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sharpness.hessian import cross_entropy
from sharpness.hessian.double_backward.casts import working_in
from sharpness.hessian.double_backward.differentiable import once_differentiable, twice_differentiable
from sharpness.hessian.loss import Loss, as_precise


class State:
    """What double backward starts from at every product: nothing is kept."""

    num_bytes = 0

    def __init__(self, weights: list[Tensor], buffers: list[Tensor], inputs: Tensor, targets: Tensor) -> None:
        self.weights, self.buffers, self.inputs, self.targets = weights, buffers, inputs, targets


class DoubleBackward:
    """The derivative of the gradient's product with the vector, its graph built anew each time."""

    is_static = False

    def __init__(self, loss: Loss, chosen: Sequence[bool]) -> None:
        self._loss = loss
        self._chosen = chosen

    def logits(
        self, weights: Sequence[Tensor], buffers: Sequence[Tensor], inputs: Tensor, *, once: bool = False
    ) -> Tensor:
        """Of the network in what can be differentiated twice; ``once``: in torch's own functions."""
        return self.logits_of(self.named(weights, buffers), weights[0].dtype, inputs, once=once)

    def logits_of(self, state: dict[str, Tensor], dtype: torch.dtype, inputs: Tensor, *, once: bool = False) -> Tensor:
        """The same of a network's state, of ``dtype``, which is then as the network left it."""
        inputs = as_precise(inputs, dtype)
        # A copy, since the network may change its input in place; as users' networks expect to find it in memory.
        inputs = inputs.clone(memory_format=torch.contiguous_format)
        with working_in(dtype), once_differentiable() if once else twice_differentiable():
            return self._loss.called(self._loss.evaluating, state, inputs)

    def named(self, weights: Sequence[Tensor], buffers: Sequence[Tensor]) -> dict[str, Tensor]:
        """The network's state."""
        state = {name: weight.contiguous() for name, weight in zip(self._loss.layout.names, weights, strict=True)}
        state.update(zip(self._loss.buffer_layout.names, buffers, strict=True))
        return state

    def linearise(self, weights: list[Tensor], buffers: list[Tensor], inputs: Tensor, targets: Tensor) -> State:
        return State(weights, buffers, inputs, targets)

    @torch.enable_grad()
    def add_product(self, state: State, vector: Sequence[Tensor | None], total: Sequence[Tensor | None]) -> None:
        """Add the Hessian of the summed cross-entropy times ``vector`` to ``total``, both by parameter."""
        loss, chosen = self._loss_of(state)
        if not loss.requires_grad:
            return  # no chosen weight has an influence on the loss
        gradients = torch.autograd.grad(loss, chosen, create_graph=True, materialize_grads=True)
        pairs = zip(gradients, (part for part in vector if part is not None), strict=True)
        smooth = [(gradient, part) for gradient, part in pairs if gradient.requires_grad]
        if not smooth:
            return  # the loss is linear in the chosen weights
        moving, along = zip(*smooth, strict=True)
        _add(torch.autograd.grad(moving, chosen, along, materialize_grads=True), total)

    @torch.enable_grad()
    def add_gradient(self, state: State, total: Sequence[Tensor | None]) -> None:
        """Add the gradient of the summed cross-entropy, in torch's own functions, to ``total``, by parameter."""
        loss, chosen = self._loss_of(state, once=True)
        if loss.requires_grad:
            _add(torch.autograd.grad(loss, chosen, materialize_grads=True), total)

    def _loss_of(self, state: State, *, once: bool = False) -> tuple[Tensor, list[Tensor]]:
        leaves = [
            weight.detach().requires_grad_(chosen) for weight, chosen in zip(state.weights, self._chosen, strict=True)
        ]
        logits = self.logits(leaves, state.buffers, state.inputs, once=once)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = cross_entropy.summed(logits, state.targets)
        return loss, [leaf for leaf in leaves if leaf.requires_grad]


def _add(parts: Sequence[Tensor], total: Sequence[Tensor | None]) -> None:
    for whole, part in zip((part for part in total if part is not None), parts, strict=True):
        whole += part
