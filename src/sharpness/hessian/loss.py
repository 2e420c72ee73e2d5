"""The loss as a function of flat weights: the only place that averages over examples."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from sharpness.hessian.double_backward.differentiable import without_dropout
from sharpness.hessian.inputs import Inputs, Reduced, calling, mapped, split, unfolded
from sharpness.hessian.kernels import kernels_of
from sharpness.hessian.layout import Layout
from sharpness.hessian.losses.classes import CrossEntropy
from sharpness.hessian.losses.criterion import Criterion
from sharpness.hessian.losses.own import OwnLoss
from sharpness.hessian.skeleton import copy_of, inside, skeleton_of, ties_of, weight_behind
from sharpness.runtime.device import alone, misled_by_onednn, without_onednn


@dataclass(frozen=True)
class Evaluation:
    """Averages over examples, as zero-dimensional tensors on the device."""

    loss: Tensor  # without the L2 term
    accuracy: Tensor  # fraction of labels; NaN if the loss has none

    @property
    def cross_entropy(self) -> Tensor:
        """The loss, by the name of the usual one."""
        return self.loss


class Loss:
    """L(weights): mean loss over the examples plus ``l2`` times the sum of squared kernel weights.

    Biases and scales of norms are not regularised, as in the authors' code; see ``kernels_of``. Dropout is off. Batch
    norm uses running statistics (evaluation mode), except with ``training=True``, which updates ``buffers`` in place.

    Shapes in all methods: weights [P], kernels of two-dimensional convolutions channels last as in ``layout``; buffers
    [B] (batch norm's running statistics; B is 0 without batch norm); inputs [n, channels, height, width]; targets [n].
    If logits have further axes, so have targets, and averages are over all labels except -100, as in torch. The
    caller's autocast has no effect.

    Args:
        model: only its structure is used; its weights are left unchanged.
        l2: factor of the penalty.
        batch_statistics: normalise batch norm with the statistics of the given examples, and update nothing.
        criterion: the loss of outputs and targets (``losses.choice.criterion_of`` makes it of torch's); None is the
            cross-entropy of classes.
    """

    def __init__(
        self, model: nn.Module, *, l2: float, batch_statistics: bool = False, criterion: Criterion | None = None
    ) -> None:
        skeleton = skeleton_of(model)
        self.l2 = l2
        self.criterion = CrossEntropy() if criterion is None else criterion
        self.batch_statistics = batch_statistics
        self.layout = Layout.of(dict(model.named_parameters()), channels_last=True)
        buffers = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
        self.buffer_layout = Layout.of(buffers, channels_last=True)
        self.num_weights = self.layout.size
        self._kernels = kernels_of(model)
        self._without_onednn = misled_by_onednn(model)
        # Cached: searching for tied weights at every call takes longer than a small layer.
        self.ties = ties_of(skeleton)
        """Further names of tied weights and buffers, with their first names."""
        self.trained = frozenset(name for name, weight in model.named_parameters() if weight.requires_grad)
        """Names of the weights that require a gradient."""
        self.given = [weakref.ref(parameter) for parameter in model.parameters()]
        """The model's own parameters, to detect a network that uses them instead of the given weights."""
        weights = {id(parameter): name for name, parameter in model.named_parameters()}
        behind = {name: weight_behind(buffer, weights) for name, buffer in buffers.items() if not buffer.is_leaf}
        self.computed_buffers = {name: weight for name, weight in behind.items() if weight is not None}
        """Buffers that the model computed from a weight, with the weight's name; they would not follow the weights."""
        self._channels_last: bool | None = None  # decided at the first images
        self._training = _with_relu_in_place(copy_of(skeleton).train())
        self._forward_only = _with_relu_in_place(copy_of(skeleton).eval())
        self.evaluating = skeleton.eval()
        """The network in evaluation mode, with weights and buffers on the meta device."""
        if batch_statistics:
            _use_batch_statistics(self.evaluating)
            _use_batch_statistics(self._forward_only)

    def logits(self, weights: Tensor, buffers: Tensor, inputs: Inputs, *, training: bool = False) -> Tensor:
        """Compute the network's outputs before the softmax, [n, classes, ...]."""
        with alone(weights.device):
            return self._logits(weights, buffers, inputs, training=training)

    def _logits(self, weights: Tensor, buffers: Tensor, inputs: Inputs, *, training: bool = False) -> Tensor:
        return self._outputs(self._training if training else self.evaluating, weights, buffers, inputs)

    def _outputs(self, model: nn.Module, weights: Tensor, buffers: Tensor, inputs: Inputs) -> Tensor:
        state = self.layout.named(weights)
        if _channels_first(weights) or not self._takes_channels_last(weights, buffers, inputs):
            state = {name: view.contiguous() for name, view in state.items()}
            inputs = mapped(Tensor.contiguous, inputs)
        else:
            inputs = channels_last(inputs) if isinstance(inputs, Tensor) else inputs
        with nullcontext() if model is self._training else without_dropout():
            return self.called(model, state | self.buffer_layout.named(buffers), inputs)

    def called(self, network: nn.Module, state: dict[str, Tensor], inputs: Inputs) -> Tensor:
        """Call ``network``, of the model's structure, with the weights and buffers in ``state``, tied ones included.

        The network may replace buffers in ``state``. If the loss is the user's own, the result is the sum over terms.
        """
        self._with_ties(state)
        if isinstance(inputs, Tensor) and not isinstance(self.criterion, OwnLoss):
            outputs: Tensor = functional_call(network, state, (inputs,), tie_weights=False)
            return outputs
        named = {f"network.{name}": tensor for name, tensor in state.items()}
        outputs = functional_call(self._reduced(network, inputs), named, (inputs,), tie_weights=False)
        state.update({name: named[f"network.{name}"] for name in state})
        return outputs

    def total(self, state: dict[str, Tensor], inputs: Inputs) -> tuple[float, float | Tensor]:
        """Sum over the terms of a batch, and count them, by the user's own loss, with what ``state`` names."""
        own = self.criterion
        assert isinstance(own, OwnLoss)
        found: list[float | Tensor] = []

        def total(model: nn.Module, batch: Inputs) -> Tensor:
            value, number = own.total(inside(model), batch)
            found.append(number)
            return value

        named = {f"network.{name}": tensor for name, tensor in self._with_ties(state).items()}
        value = functional_call(Reduced(self.evaluating, total), named, (inputs,), tie_weights=False)
        return float(value), found[0].detach().reshape(()) if isinstance(found[0], Tensor) else found[0]

    def _with_ties(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        for place, name in self.ties.items():
            if name in state:
                state.setdefault(place, state[name])
        return state

    def traceable(self, inputs: Inputs) -> nn.Module:
        """Return the network in evaluation mode as a module of one argument, inputs of the structure of ``inputs``."""
        if isinstance(inputs, Tensor) and not isinstance(self.criterion, OwnLoss):
            return self.evaluating
        return self._reduced(self.evaluating, inputs, traced=True)

    def _reduced(self, network: nn.Module, inputs: Inputs, *, traced: bool = False) -> nn.Module:
        if not isinstance(own := self.criterion, OwnLoss):
            call = calling(inside(network), inputs)
        else:
            call = _traced_total(own, inputs) if traced else (lambda model, batch: own.total(model, batch)[0])
        return Reduced(network, lambda model, given: call(inside(model), given))

    def _takes_channels_last(self, weights: Tensor, buffers: Tensor, inputs: Inputs) -> bool:
        """Whether images may be channels last: not if the network views a whole plane."""
        if self._channels_last is None and isinstance(inputs, Tensor) and inputs.dim() == 4:
            state = self.layout.named(weights.detach()) | self.buffer_layout.named(buffers)
            self._channels_last = True
            try:
                with torch.no_grad(), without_dropout():
                    self.called(self.evaluating, state, channels_last(inputs[:2]))
            except RuntimeError as error:
                self._channels_last = "view size is not compatible" not in str(error)
        return self._channels_last is not False

    def summed(self, weights: Tensor, buffers: Tensor, inputs: Inputs, targets: Tensor) -> Tensor:
        """Compute the loss summed over terms, without the L2 term."""
        with alone(weights.device):
            return self.criterion.plain_sum(self._logits(weights, buffers, inputs), targets)

    def penalty(self, weights: Tensor) -> Tensor:
        """Compute the L2 term."""
        kernels = [view for name, view in self.layout.named(weights).items() if name in self._kernels]
        if not kernels:
            return weights.new_zeros(())
        return self.l2 * torch.stack([kernel.square().sum() for kernel in kernels]).sum()

    def penalty_curvature(self, vector: Tensor, layout: Layout | None = None) -> Tensor:
        """Multiply ``vector`` by the Hessian of the L2 term; for the weights this is its gradient.

        Args:
            vector: [P], or shorter if ``layout`` covers only some of the weights.
            layout: of the vector.
        """
        product = torch.zeros_like(vector)
        layout = layout or self.layout
        parts = layout.named(vector)
        for name, view in layout.named(product).items():
            if name in self._kernels:
                torch.mul(parts[name], 2 * self.l2, out=view)
        return product

    def gradient(self, weights: Tensor, buffers: Tensor, inputs: Inputs, targets: Tensor) -> Tensor:
        """Compute the gradient of the loss on one batch, [P]."""
        return self.value_and_gradient(weights, buffers, inputs, targets)[1]

    def value_and_gradient(
        self,
        weights: Tensor,
        buffers: Tensor,
        inputs: Inputs,
        targets: Tensor,
        *,
        training: bool = False,
        low_precision: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Compute the mean loss of one batch, without the L2 term, and the gradient of the loss with it, [P].

        Args:
            weights: shapes as in the class.
            buffers: updated in place by batch norm if ``training``.
            inputs: one batch.
            targets: its classes.
            training: batch norm uses the batch's statistics and updates ``buffers``.
            low_precision: run convolutions and matrix products in bfloat16, everything else in the weights' precision.
        """
        with alone(weights.device), torch.inference_mode(False), torch.enable_grad():
            leaf = weights.detach().requires_grad_()
            with torch.autocast(weights.device.type, torch.bfloat16, enabled=low_precision):
                outputs = self._logits(leaf, buffers, inputs, training=training)
            value = self.criterion.mean(outputs.to(weights.dtype), targets)
            with self.differentiating():
                (gradient,) = torch.autograd.grad(value, leaf)
        if self.l2:
            gradient += self.penalty_curvature(weights)
        return value.detach(), gradient

    def differentiating(self) -> AbstractContextManager[None]:
        """Context in which gradients are correct on every processor."""
        return without_onednn() if self._without_onednn else nullcontext()

    @torch.no_grad()
    def evaluate(
        self, weights: Tensor, buffers: Tensor, inputs: Inputs, targets: Tensor, *, chunk_size: int | None = None
    ) -> Evaluation:
        """Compute mean loss (without the L2 term) and accuracy over all examples.

        Args:
            weights: shapes as in the class.
            buffers: unchanged.
            inputs: all examples.
            targets: their classes.
            chunk_size: examples per forward pass; None chooses a fast size for the device.
        """
        if chunk_size is None:
            # The activations of 128 images stay in a CPU's cache from layer to layer.
            chunk_size = 512 if weights.is_cuda else 128
        total = torch.zeros((), dtype=weights.dtype, device=weights.device)
        correct = torch.zeros((), dtype=weights.dtype, device=weights.device)
        with alone(weights.device):
            for some, labels in zip(split(inputs, chunk_size), torch.split(targets, chunk_size), strict=True):
                outputs = self._outputs(self._forward_only, weights, buffers, some)
                total += self.criterion.plain_sum(outputs, labels)
                correct += self.criterion.num_correct(outputs, labels)
        divisor = self.criterion.divisor(self.criterion.weight(targets))  # type: ignore[arg-type]
        return Evaluation(total / divisor, correct / self.criterion.num_labels(targets))

    def value(self, weights: Tensor, buffers: Tensor, inputs: Inputs, targets: Tensor) -> Tensor:
        """Compute the loss over all examples, including the L2 term, without a graph."""
        value = self.evaluate(weights, buffers, inputs, targets).loss
        return value + self.penalty(weights) if self.l2 else value


def _traced_total(own: OwnLoss, like: Inputs) -> Callable[[nn.Module, Any], Any]:
    """Return a function that calls a user's own loss while it is traced on a batch of the structure of ``like``."""
    return lambda model, batch: own.function(model, unfolded(batch, like))[0]


def flatten(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Copy a model's weights and floating-point buffers into flat vectors, as ``Loss`` takes them.

    Returns:
        Weights [P] and buffers [B], kernels of two-dimensional convolutions channels last.
    """
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    buffers = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    flat = Layout.of(weights, channels_last=True).flat(list(weights.values()))
    if not buffers:
        return flat, flat.new_empty(0)
    return flat, Layout.of(buffers, channels_last=True).flat(list(buffers.values()))


def as_precise(inputs: Inputs, dtype: torch.dtype) -> Any:
    """Convert real or complex inputs to the precision of ``dtype``, the weights' type; leave integers unchanged."""
    if not isinstance(inputs, Tensor):
        return mapped(lambda tensor: as_precise(tensor, dtype), inputs)
    if inputs.is_complex():
        return inputs.to(dtype.to_complex())
    return inputs.to(dtype) if inputs.is_floating_point() else inputs


def channels_last(inputs: Tensor) -> Tensor:
    """Convert images to channels last, in which convolutions are fastest; leave other inputs unchanged."""
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs


def _channels_first(weights: Tensor) -> bool:
    """Whether convolutions are fastest channels first: on a GPU without tensor cores."""
    return weights.is_cuda and not torch.is_autocast_enabled("cuda")


def _with_relu_in_place(model: nn.Module) -> nn.Module:
    """Let ReLUs work in place where nothing else reads the output of the layer before."""
    # Layers whose gradient does not need their output.
    producers = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.MaxPool2d)
    for block in model.modules():
        if type(block) is nn.Sequential:
            for before, layer in itertools.pairwise(block):
                if type(before) in producers and type(layer) is nn.ReLU:
                    layer.inplace = True
    return model


def _use_batch_statistics(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            layer.train()
            layer.track_running_stats = False  # neither use nor update them
