"""Losses of numbers: ``torch.nn.MSELoss`` and ``torch.nn.BCEWithLogitsLoss``, output by output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sharpness.hessian.losses.criterion import Criterion, Diagonal, OutputCurvature, check_finite, first, precise


class _OfNumbers(Criterion):
    """Targets are numbers of the outputs' shape; the mean is over all of them."""

    def converted(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        if targets.is_complex():
            raise ValueError(f"targets must be real numbers, got {targets.dtype}")
        return targets.to(dtype, copy=True)

    def check(self, targets: Tensor, outputs: torch.Size) -> None:
        if targets.shape != outputs:
            cure = ""
            if targets.shape == outputs[:-1] and outputs[-1] == 1:
                cure = ": give targets.unsqueeze(-1)"
            elif targets.shape == (*outputs, 1):
                cure = ": give targets.squeeze(-1)"
            raise ValueError(
                f"targets have shape {list(targets.shape)}, but one number for each output is {list(outputs)}{cure}"
            )
        check_finite(targets)

    def weight(self, targets: Tensor) -> float | Tensor:
        return targets.numel()


@dataclass(frozen=True)
class SquaredError(_OfNumbers):
    """(output - target)², as ``torch.nn.MSELoss``."""

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.mse_loss(outputs, targets)

    def plain_sum(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.mse_loss(outputs, targets, reduction="sum")

    def summed(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (precise(outputs) - targets).square().sum()

    def gradient_and_curvature(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, OutputCurvature]:
        difference = precise(outputs) - targets
        return 2 * difference, Diagonal(difference.new_full((), 2))

    def trial(self, outputs: Tensor) -> tuple[Criterion, Tensor]:
        """Targets that no output meets."""
        return SquaredError(), outputs - 1 - outputs.abs()


@dataclass(frozen=True)
class BinaryCrossEntropy(_OfNumbers):
    """Cross-entropy of the logistic function of an output, as ``torch.nn.BCEWithLogitsLoss``.

    Targets are probabilities. Weights do not change what the sum is divided by, the number of outputs, as in torch.
    """

    weights: Tensor | None = None  # of outputs, broadcast to [..., outputs]; no axis of examples
    positive_weights: Tensor | None = None  # of positive targets, broadcast in the same way

    def check(self, targets: Tensor, outputs: torch.Size) -> None:
        super().check(targets, outputs)
        if (wrong := (targets < 0) | (targets > 1)).any():
            position = first(wrong)
            raise ValueError(f"targets{list(position)} is {targets[position].item():g}, but they are from 0 to 1")
        for name, weights in (("weight", self.weights), ("pos_weight", self.positive_weights)):
            if weights is not None and not _broadcasts(weights.shape, outputs):
                raise ValueError(
                    f"{name} of shape {list(weights.shape)} is not the same for each example of outputs "
                    f"{list(outputs)}: give one number for each output of an example, {list(outputs[1:])}, or weigh "
                    "examples in a function loss(model, batch)"
                )

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._by_torch(outputs, targets, "mean")

    def plain_sum(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._by_torch(outputs, targets, "sum")

    def summed(self, outputs: Tensor, targets: Tensor) -> Tensor:
        outputs = precise(outputs)
        positive, negative = self._factors(targets.to(outputs.dtype))
        return (positive * _softplus(-outputs) + negative * _softplus(outputs)).sum()

    def gradient_and_curvature(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, OutputCurvature]:
        outputs = precise(outputs)
        positive, negative = self._factors(targets.to(outputs.dtype))
        rising, falling = outputs.sigmoid(), (-outputs).sigmoid()  # 1 - sigmoid would cancel
        return negative * rising - positive * falling, Diagonal((positive + negative) * rising * falling)

    def trial(self, outputs: Tensor) -> tuple[Criterion, Tensor]:
        """The less likely labels."""
        return BinaryCrossEntropy(), (outputs < 0).to(outputs.dtype)

    def num_correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs > 0) == (targets > 0.5)).sum()

    def _factors(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of log(1 + exp(-x)) and log(1 + exp(x))."""
        positive, negative = targets, 1 - targets
        if self.positive_weights is not None:
            positive = positive * self.positive_weights.to(targets)
        if self.weights is None:
            return positive, negative
        weights = self.weights.to(targets)
        return positive * weights, negative * weights

    def _by_torch(self, outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
        weights, positive = (None if w is None else w.to(outputs) for w in (self.weights, self.positive_weights))
        return functional.binary_cross_entropy_with_logits(
            outputs, targets, weight=weights, pos_weight=positive, reduction=reduction
        )


def _softplus(values: Tensor) -> Tensor:
    """log(1 + exp(x)) with derivatives that do not cancel; torch's are exact up to a threshold only."""
    smaller = torch.where(values > 0, -values, values)
    return smaller.exp().log1p() + torch.where(values > 0, values, 0)


def _broadcasts(weights: torch.Size, outputs: torch.Size) -> bool:
    """Whether weights broadcast to the outputs of each example, in the same way whatever the number of examples."""
    if len(weights) > len(outputs) or (len(weights) == len(outputs) and weights[0] != 1):
        return False
    return all(size in (1, of) for size, of in zip(reversed(weights), reversed(outputs), strict=False))
