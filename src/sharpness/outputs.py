"""What a network gives for a few examples: how many classes, and whether each example has logits of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sharpness.double_backward import DoubleBackward
from sharpness.loss import Loss

_EXAMPLES = 4
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
    network = DoubleBackward(loss, [])
    state = [tensor.double() for tensor in weights], [tensor.double() for tensor in buffers]
    inputs = inputs[:_EXAMPLES]
    together = network.logits(*state, inputs)
    shapes = inputs.shape[1:], together.shape[1:]
    if len(inputs) == 1:
        return Outputs(*shapes, mixes_examples=False)
    try:
        apart = torch.cat([network.logits(*state, part) for part in inputs.tensor_split(2)])
    except (RuntimeError, ValueError):  # a norm that wants more values
        return Outputs(*shapes, mixes_examples=True)
    size = float(together.nan_to_num(0, 0, 0).abs().amax()) if together.numel() else 0.0
    is_same = apart.shape == together.shape and torch.allclose(
        apart, together, rtol=0, atol=_ROUNDING * size, equal_nan=True
    )
    return Outputs(*shapes, mixes_examples=not is_same)
