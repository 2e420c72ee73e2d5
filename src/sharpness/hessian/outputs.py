"""What a network gives for a few examples: how many classes, and whether each example has logits of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sharpness.hessian.double_backward.product import DoubleBackward
from sharpness.hessian.loss import Loss

_EXAMPLES = 4
_MORE_EXAMPLES = 8
# Of the largest logit; in double precision, in which other kernels may run for fewer examples.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Outputs:
    """Of one network, at any weights."""

    of: torch.Size  # the shape of an example
    shape: torch.Size  # that of its logits, [classes, ...]
    mixes_examples: bool  # the logits of an example depend on what else is in its chunk


def outputs_of(loss: Loss, weights: list[Tensor], buffers: list[Tensor], inputs: Tensor) -> Outputs:
    """Look at the network's logits for a few of the examples, in double precision.

    Norms that use the batch's statistics in evaluation mode, for want of moving ones, mix examples; so does whatever
    else a network computes across them.

    Args:
        loss: of the network.
        weights: by parameter.
        buffers: by floating-point buffer.
        inputs: [n, ...].
    """
    state = [tensor.double() for tensor in weights], [tensor.double() for tensor in buffers]
    few = inputs[:_EXAMPLES]
    together = DoubleBackward(loss, []).logits(*state, few)
    mixes = (
        any(map(_uses_the_batch, loss.evaluating.modules()))
        or _mixes(loss, *state, few)
        or _mixes_elsewhere(loss, *state, inputs[:_MORE_EXAMPLES])
    )
    return Outputs(few.shape[1:], together.shape[1:], mixes_examples=len(inputs) > 1 and mixes)


def _mixes(loss: Loss, weights: list[Tensor], buffers: list[Tensor], inputs: Tensor) -> bool:
    """Whether these examples have other logits together than in two parts."""
    network = DoubleBackward(loss, [])
    if len(inputs) < 2:
        return False
    together = network.logits(weights, buffers, inputs)
    try:
        apart = torch.cat([network.logits(weights, buffers, part) for part in inputs.tensor_split(2)])
    except (RuntimeError, ValueError):  # a norm that wants more values
        return True
    size = float(together.nan_to_num(0, 0, 0).abs().amax()) if together.numel() else 0.0
    return apart.shape != together.shape or not torch.allclose(
        apart, together, rtol=0, atol=_ROUNDING * size, equal_nan=True
    )


def _mixes_elsewhere(loss: Loss, weights: list[Tensor], buffers: list[Tensor], inputs: Tensor) -> bool:
    """The same next to these weights and examples: what is zero, or alike in all examples, may hide it."""
    try:
        return _mixes(loss, _moved(weights), buffers, *_moved([inputs]))
    except (RuntimeError, ValueError, ArithmeticError):  # such numbers are nothing for this network
        return False


def _uses_the_batch(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.running_mean is None


def _moved(tensors: list[Tensor]) -> list[Tensor]:
    """Numbers of floating point with noise of a tenth of their size, at least a hundredth; others as they are."""
    drawn = torch.Generator().manual_seed(0)

    def moved(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or not tensor.numel():
            return tensor
        noise = torch.randn(tensor.shape, generator=drawn, dtype=torch.float64, device="cpu").to(tensor)
        return tensor + noise * tensor.abs().mean().clamp_min(0.1) / 10

    return [moved(tensor) for tensor in tensors]
