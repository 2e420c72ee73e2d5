"""The loss along a direction, and its change for scaled SGD steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharpness.eigen.vectors import inner_product
from sharpness.training.nudge import project


def losses_along(
    loss: Callable[[Tensor], Tensor], weights: Tensor, direction: Tensor, scales: Sequence[float]
) -> Tensor:
    """The loss at ``weights + scale * direction`` for every scale, [len(scales)]; both are [P]."""
    return torch.stack([loss(weights + scale * direction) for scale in scales])


def expected_step(gradients: Sequence[Tensor], direction: Tensor, *, learning_rate: float) -> float:
    """Expected length of the SGD step along a unit vector: the mean of ``learning_rate * |<gradient, direction>|``.

    Args:
        gradients: each [P], of one mini-batch.
        direction: [P], of length 1.
        learning_rate: of the step.
    """
    lengths = [abs(inner_product(gradient, direction)) for gradient in gradients]
    return learning_rate * float(torch.tensor(lengths, dtype=direction.dtype).mean())


@dataclass(frozen=True)
class ScaledStep:
    """The part of the SGD step that is taken: along a unit vector, or all of it."""

    direction: Tensor | None  # [P], of length 1; None for the full step
    alpha: float  # factor on the step


def after_step(weights: Tensor, gradient: Tensor, step: ScaledStep, *, learning_rate: float) -> Tensor:
    """``weights - alpha * learning_rate * <gradient, v> v``, or with the full gradient in place of its part along v."""
    part = gradient if step.direction is None else project(gradient, step.direction[None])
    return weights - step.alpha * learning_rate * part
