"""The shape of a network's logits, and whether those of an example depend on other examples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sharpness.hessian.double_backward.product import DoubleBackward
from sharpness.hessian.inputs import Inputs, mapped, num_examples, part, tensors_of
from sharpness.hessian.loss import Loss
from sharpness.hessian.losses.own import OwnLoss

_EXAMPLES = 4
_MORE_EXAMPLES = 8
# Relative to the largest logit, in float64: fewer examples may run in other kernels, which round differently.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Outputs:
    """Outputs of one network, at any weights."""

    input_shapes: list[torch.Size]  # of an example
    shape: torch.Size  # of its outputs, such as [classes, ...]
    mixes_examples: bool  # the logits of an example depend on what else is in its chunk


def outputs_of(loss: Loss, weights: list[Tensor], buffers: list[Tensor], inputs: Inputs) -> Outputs:
    """Inspect the network's logits for a few examples, in double precision.

    Norms without running statistics mix examples, as does anything else that a network computes across them.

    Args:
        loss: of the network.
        weights: by parameter.
        buffers: by floating-point buffer.
        inputs: [n, ...].
    """
    state = [tensor.double() for tensor in weights], [tensor.double() for tensor in buffers]
    few = part(inputs, 0, _EXAMPLES)
    together = DoubleBackward(loss, []).logits(*state, few)
    mixes = (
        any(map(_uses_the_batch, loss.evaluating.modules()))
        or _mixes(loss, *state, few)
        or _mixes_nearby(loss, *state, part(inputs, 0, _MORE_EXAMPLES))
    )
    number = num_examples(inputs)
    return Outputs(shapes_of(few), together.shape[1:], mixes_examples=(number is None or number > 1) and mixes)


def shapes_of(inputs: Inputs) -> list[torch.Size]:
    """Shapes of one example of ``inputs``."""
    return [tensor.shape[1:] for tensor in tensors_of(inputs)]


def _mixes(loss: Loss, weights: list[Tensor], buffers: list[Tensor], inputs: Inputs) -> bool:
    """Whether the logits change if the examples are split in two."""
    network, number = DoubleBackward(loss, []), num_examples(inputs)
    if number is None or number < 2:
        return False
    together = network.logits(weights, buffers, inputs)
    halves = part(inputs, 0, (number + 1) // 2), part(inputs, (number + 1) // 2, number)
    try:
        outputs = [network.logits(weights, buffers, half) for half in halves]
        apart = sum(outputs, start=torch.zeros(())) if isinstance(loss.criterion, OwnLoss) else torch.cat(outputs)
    except (RuntimeError, ValueError):  # a norm that needs more values
        return True
    if isinstance(loss.criterion, OwnLoss) and torch.isnan(apart).any():
        return False  # a mean over no terms, as where all labels of a half are ignored
    size = float(together.nan_to_num(0, 0, 0).abs().amax()) if together.numel() else 0.0
    return apart.shape != together.shape or not torch.allclose(
        apart, together, rtol=0, atol=_ROUNDING * size, equal_nan=True
    )


def _mixes_nearby(loss: Loss, weights: list[Tensor], buffers: list[Tensor], inputs: Inputs) -> bool:
    """``_mixes`` at perturbed weights and examples, since zeros or equal examples may hide it."""
    try:
        return _mixes(loss, _perturbed(weights), buffers, _perturbed_inputs(inputs))
    except Exception:  # whatever a network or a loss raises that does not accept such numbers
        return False


def _uses_the_batch(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.running_mean is None


def _perturbed_inputs(inputs: Inputs) -> Inputs:
    drawn = torch.Generator().manual_seed(0)
    return mapped(lambda tensor: _noisy(tensor, drawn), inputs)


def _perturbed(tensors: list[Tensor]) -> list[Tensor]:
    """Add noise of a tenth of their size, at least 0.01, to floating-point tensors."""
    drawn = torch.Generator().manual_seed(0)
    return [_noisy(tensor, drawn) for tensor in tensors]


def _noisy(tensor: Tensor, drawn: torch.Generator) -> Tensor:
    if not tensor.is_floating_point() or not tensor.numel():
        return tensor
    noise = torch.randn(tensor.shape, generator=drawn, dtype=torch.float64, device="cpu").to(tensor)
    return tensor + noise * tensor.abs().mean().clamp_min(0.1) / 10
