"""The loss as a function of flat vectors: what L(weights) is, the flat order of weights, the average over examples.

The flat order keeps the kernels of convolutions channels last ([out, height, width, in]), so that every view of the
vector is already in the layout in which convolutions are fastest.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

_CHANNELS_LAST = (0, 2, 3, 1)
_CHANNELS_FIRST = (0, 3, 1, 2)


@dataclass(frozen=True)
class Evaluation:
    """Averages over examples, as zero-dimensional tensors on the device."""

    cross_entropy: Tensor
    accuracy: Tensor  # fraction


class Loss:
    """L(weights): mean cross-entropy over the examples plus ``l2`` times the sum of squared kernel weights.

    Biases and batch-norm scales are not regularised, as in the authors' code. Batch norm uses its moving statistics
    (evaluation mode) except where ``training`` is asked for, which updates ``buffers`` in place.

    Shapes used by all methods: weights [P], buffers [B] (batch norm's moving statistics; B is 0 without batch norm),
    inputs [n, channels, height, width], targets [n].
    """

    def __init__(self, model: nn.Module, *, l2: float) -> None:
        self.l2 = l2
        self.num_weights = sum(parameter.numel() for parameter in model.parameters())
        self._names = [name for name, _ in model.named_parameters()]
        self._shapes = [parameter.shape for parameter in model.parameters()]
        self._buffer_names = [name for name, buffer in model.named_buffers() if buffer.is_floating_point()]
        self._buffer_shapes = [buffer.shape for buffer in model.buffers() if buffer.is_floating_point()]
        # Only the structure of the model is used: its own weights stay as they are.
        skeleton = copy.deepcopy(model).to("meta").requires_grad_(False)
        self._evaluating = skeleton.eval()
        self._training = copy.deepcopy(skeleton).train()

    def logits(self, weights: Tensor, buffers: Tensor, inputs: Tensor, *, training: bool = False) -> Tensor:
        """Outputs of the network before the softmax, [n, classes]."""
        state = dict(zip(self._names, _views(weights, self._shapes), strict=True))
        state.update(zip(self._buffer_names, _views(buffers, self._buffer_shapes), strict=True))
        model = self._training if training else self._evaluating
        outputs: Tensor = functional_call(model, state, (inputs.contiguous(memory_format=torch.channels_last),))
        return outputs

    def summed(self, weights: Tensor, buffers: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy summed over the examples, without the L2 term: chunks of it add up."""
        return functional.cross_entropy(self.logits(weights, buffers, inputs), targets, reduction="sum")

    def penalty(self, weights: Tensor) -> Tensor:
        """The L2 term."""
        kernels = [view for view in _views(weights, self._shapes) if view.dim() > 1]
        return self.l2 * torch.stack([kernel.square().sum() for kernel in kernels]).sum()

    def penalty_curvature(self, vector: Tensor) -> Tensor:
        """The Hessian of the L2 term times ``vector``; its gradient where ``vector`` is the weights."""
        parts = (view if view.dim() > 1 else torch.zeros_like(view) for view in _views(vector, self._shapes))
        return 2 * self.l2 * torch.cat([_flat(part).reshape(-1) for part in parts])

    def gradient(
        self, weights: Tensor, buffers: Tensor, inputs: Tensor, targets: Tensor, *, training: bool = False
    ) -> Tensor:
        """Gradient of the loss on one batch, [P]."""
        leaf = weights.detach().requires_grad_()
        outputs = self.logits(leaf, buffers, inputs, training=training)
        (gradient,) = torch.autograd.grad(functional.cross_entropy(outputs, targets), leaf)
        return gradient + self.penalty_curvature(weights) if self.l2 else gradient

    @torch.no_grad()
    def evaluate(
        self, weights: Tensor, buffers: Tensor, inputs: Tensor, targets: Tensor, *, chunk_size: int = 512
    ) -> Evaluation:
        """Cross-entropy (without the L2 term) and accuracy over all examples."""
        cross_entropy = torch.zeros((), dtype=weights.dtype, device=weights.device)
        correct = torch.zeros((), dtype=weights.dtype, device=weights.device)
        for some, labels in zip(torch.split(inputs, chunk_size), torch.split(targets, chunk_size), strict=True):
            outputs = self.logits(weights, buffers, some)
            cross_entropy += functional.cross_entropy(outputs, labels, reduction="sum")
            correct += (outputs.argmax(dim=1) == labels).sum()
        return Evaluation(cross_entropy / len(targets), correct / len(targets))

    def value(self, weights: Tensor, buffers: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss over all examples, L2 term included, without a graph."""
        cross_entropy = self.evaluate(weights, buffers, inputs, targets).cross_entropy
        return cross_entropy + self.penalty(weights) if self.l2 else cross_entropy


def flatten(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Copies of a model's weights [P] and of its floating-point buffers [B], flat."""
    weights = torch.cat([_flat(parameter.detach()).reshape(-1) for parameter in model.parameters()])
    buffers = [buffer.reshape(-1) for buffer in model.buffers() if buffer.is_floating_point()]
    return weights, torch.cat(buffers) if buffers else weights.new_empty(0)


def _views(flat: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    pieces = torch.split(flat, [shape.numel() for shape in shapes])
    return [_shaped(piece, shape) for piece, shape in zip(pieces, shapes, strict=True)]


def _shaped(piece: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 4:
        return piece.view(shape)
    return piece.view([shape[axis] for axis in _CHANNELS_LAST]).permute(_CHANNELS_FIRST)


def _flat(tensor: Tensor) -> Tensor:
    return tensor.permute(_CHANNELS_LAST) if tensor.dim() == 4 else tensor
