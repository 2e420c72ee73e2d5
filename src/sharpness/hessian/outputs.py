"""The shape of a network's logits, and whether those of an example depend on other examples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sharpness.hessian.double_backward.product import DoubleBackward
from sharpness.hessian.loss import Loss

_EXAMPLES = 4
_MORE_EXAMPLES = 8
# Relative to the largest logit, in float64: fewer examples may run in other kernels, which round differently.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Outputs:
    """Outputs of one network, at any weights."""

    input_shape: torch.Size  # of an example
    shape: torch.Size  # of its logits, [classes, ...]
    mixes_examples: bool  # the logits of an example depend on what else is in its chunk


def outputs_of(loss: Loss, weights: list[Tensor], buffers: list[Tensor], inputs: Tensor) -> Outputs:
    """Inspect the network's logits for a few examples, in double precision.

    Norms without running statistics mix examples, as does anything else that a network computes across them.

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
        or _mixes_nearby(loss, *state, inputs[:_MORE_EXAMPLES])
    )
    return Outputs(few.shape[1:], together.shape[1:], mixes_examples=len(inputs) > 1 and mixes)


def _mixes(loss: Loss, weights: list[Tensor], buffers: list[Tensor], inputs: Tensor) -> bool:
    """Whether the logits change if the examples are split in two."""
    network = DoubleBackward(loss, [])
    if len(inputs) < 2:
        return False
    together = network.logits(weights, buffers, inputs)
    try:
        apart = torch.cat([network.logits(weights, buffers, part) for part in inputs.tensor_split(2)])
    except (RuntimeError, ValueError):  # a norm that needs more values
        return True
    size = float(together.nan_to_num(0, 0, 0).abs().amax()) if together.numel() else 0.0
    return apart.shape != together.shape or not torch.allclose(
        apart, together, rtol=0, atol=_ROUNDING * size, equal_nan=True
    )


def _mixes_nearby(loss: Loss, weights: list[Tensor], buffers: list[Tensor], inputs: Tensor) -> bool:
    """``_mixes`` at perturbed weights and examples, since zeros or equal examples may hide it."""
    try:
        return _mixes(loss, _perturbed(weights), buffers, *_perturbed([inputs]))
    except (RuntimeError, ValueError, ArithmeticError):  # the network does not accept such numbers
        return False


def _uses_the_batch(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.running_mean is None


def _perturbed(tensors: list[Tensor]) -> list[Tensor]:
    """Add noise of a tenth of their size, at least 0.01, to floating-point tensors."""
    drawn = torch.Generator().manual_seed(0)

    def perturbed(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or not tensor.numel():
            return tensor
        noise = torch.randn(tensor.shape, generator=drawn, dtype=torch.float64, device="cpu").to(tensor)
        return tensor + noise * tensor.abs().mean().clamp_min(0.1) / 10

    return [perturbed(tensor) for tensor in tensors]
