"""Hessian-vector products by double backward: of any network, at about twice the time of the R-operator's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call

from sharpness import cross_entropy
from sharpness.loss import Loss


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

    def logits(self, weights: Sequence[Tensor], buffers: Sequence[Tensor], inputs: Tensor) -> Tensor:
        state = {name: weight.contiguous() for name, weight in zip(self._loss.layout.names, weights, strict=True)}
        state.update(zip(self._loss.buffer_layout.names, buffers, strict=True))
        if inputs.is_floating_point():
            inputs = inputs.to(weights[0].dtype)
        # A copy, since the network may change its input in place; as users' networks expect to find it in memory.
        inputs = inputs.clone(memory_format=torch.contiguous_format)
        outputs: Tensor = functional_call(self._loss.evaluating, state, (inputs,))
        return outputs

    def linearise(self, weights: list[Tensor], buffers: list[Tensor], inputs: Tensor, targets: Tensor) -> State:
        return State(weights, buffers, inputs, targets)

    @torch.enable_grad()
    def add_product(self, state: State, vector: Sequence[Tensor | None], total: Sequence[Tensor | None]) -> None:
        leaves = [
            weight.detach().requires_grad_(chosen) for weight, chosen in zip(state.weights, self._chosen, strict=True)
        ]
        logits = self.logits(leaves, state.buffers, state.inputs)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = cross_entropy.summed(logits, state.targets)
        if not loss.requires_grad:
            return  # no chosen weight has an influence on the loss
        chosen = [leaf for leaf in leaves if leaf.requires_grad]
        gradients = torch.autograd.grad(loss, chosen, create_graph=True, materialize_grads=True)
        pairs = zip(gradients, (part for part in vector if part is not None), strict=True)
        smooth = [(gradient, part) for gradient, part in pairs if gradient.requires_grad]
        if not smooth:
            return  # the loss is linear in the chosen weights
        moving, along = zip(*smooth, strict=True)
        parts = torch.autograd.grad(moving, chosen, along, materialize_grads=True)
        for whole, part in zip((part for part in total if part is not None), parts, strict=True):
            whole += part
