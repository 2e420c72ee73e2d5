"""What a loss of outputs and targets has to supply: its value, its gradient and its Hessian at the outputs.

All products with a curvature share these: the R-operator and double backward, for the Hessian, the Gauss-Newton matrix
and the covariance of gradients.
"""

# ruff: noqa: ARG002 (every criterion has the same signatures)

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class OutputCurvature(Protocol):
    """A symmetric operator on tangents of the outputs, without coupling between examples."""

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors held."""

    def times(self, tangent: Tensor) -> Tensor:
        """Multiply a tangent of the outputs, of their shape."""


@dataclass(frozen=True)
class Diagonal:
    """The Hessian of a loss that treats every output on its own."""

    second: Tensor  # second derivative by output, of the outputs' shape or broadcast to it

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors held."""
        return [self.second]

    def times(self, tangent: Tensor) -> Tensor:
        """Multiply a tangent of the outputs, of their shape."""
        return tangent.to(self.second.dtype) * self.second


@dataclass(frozen=True)
class SquaredGradients:
    """Σ uᵢ uᵢᵀ over examples, where uᵢ is the gradient of example i with respect to its outputs."""

    gradient: Tensor  # [n, ...], or a single number where there is one example

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors held."""
        return [self.gradient]

    def times(self, tangent: Tensor) -> Tensor:
        """Multiply a tangent of the outputs, of their shape."""
        slopes = self.gradient * tangent.to(self.gradient.dtype)
        if slopes.dim() < 2:
            return self.gradient * slopes
        return self.gradient * slopes.sum(dim=list(range(1, slopes.dim())), keepdim=True)


class Criterion(ABC):
    """A loss: a sum over terms (labels, tokens, pixels), divided by the sum of their weights.

    Outputs are [n, ...]; targets are what ``converted`` returns.
    """

    nothing = "the targets are empty: there is nothing to average over"
    """Said where the weight of all terms is zero."""

    @property
    def description(self) -> str:
        """Say which loss this is, with its settings."""
        return repr(self)

    def shape_like(self, targets: Tensor, example: torch.Size) -> torch.Size:
        """Shape of outputs for which the targets are right, where an example's are usually of shape ``example``."""
        return targets.shape

    @abstractmethod
    def converted(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """Convert targets as a user gives them; ``dtype`` is the precision of real ones.

        Raises:
            ValueError: they are of another kind.
        """

    @abstractmethod
    def check(self, targets: Tensor, outputs: torch.Size) -> None:
        """Check the targets of outputs of the given shape.

        Raises:
            ValueError: shapes do not match, or a value is not allowed; the message names the first.
        """

    def check_outputs(self, outputs: Tensor, num_examples: int) -> str | None:
        """Return what is needed, as in "a tensor of logits, [4, classes]", if the outputs are not that; else None."""
        if outputs.dim() and len(outputs) == num_examples and outputs.numel():
            return None
        return f"a tensor of outputs, [{num_examples}, ...]"

    @abstractmethod
    def weight(self, targets: Tensor) -> float | Tensor:
        """Sum the weights of the terms: what the sum over terms is divided by to have torch's mean."""

    def divisor(self, weight: float) -> float:
        """Return what the sum is divided by, given the weight of all terms."""
        return weight

    @abstractmethod
    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute torch's own loss of one batch, differentiable once."""

    @abstractmethod
    def plain_sum(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute torch's own loss, summed over terms, without derivatives."""

    @abstractmethod
    def summed(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sum the loss over terms, differentiable twice and accurately."""

    @abstractmethod
    def gradient_and_curvature(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, OutputCurvature]:
        """Compute the first two derivatives of ``summed`` with respect to the outputs, in at least float32."""

    @abstractmethod
    def trial(self, outputs: Tensor) -> tuple[Criterion, Tensor]:
        """Return a loss of this kind, and targets, with which no derivative of a network vanishes by chance."""

    def num_labels(self, targets: Tensor) -> int:
        """Count the labels, each of which is predicted or not."""
        return targets.numel()

    def num_correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Count the labels that the outputs predict; NaN where that has no meaning."""
        return outputs.new_full((), torch.nan)


def precise(outputs: Tensor) -> Tensor:
    """Convert outputs to at least float32."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


def first(mask: Tensor) -> tuple[int, ...]:
    """Position of the first True of ``mask``."""
    return tuple(mask.nonzero()[0].tolist())


def check_finite(targets: Tensor) -> None:
    """Check that targets of floating point are finite.

    Raises:
        ValueError: some are not; the message names the first.
    """
    if not (finite := torch.isfinite(targets)).all():
        position = first(~finite)
        raise ValueError(f"the targets are not finite: targets{list(position)} is {targets[position].item()}")


@dataclass(frozen=True)
class Summed(Criterion):
    """Another criterion that is not divided by anything: torch's ``reduction="sum"``."""

    of: Criterion

    def converted(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        return self.of.converted(targets, dtype)

    def check(self, targets: Tensor, outputs: torch.Size) -> None:
        self.of.check(targets, outputs)

    def check_outputs(self, outputs: Tensor, num_examples: int) -> str | None:
        return self.of.check_outputs(outputs, num_examples)

    def weight(self, targets: Tensor) -> float | Tensor:
        return self.of.weight(targets)

    def divisor(self, weight: float) -> float:
        return 1.0

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.of.plain_sum(outputs, targets)

    def plain_sum(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.of.plain_sum(outputs, targets)

    def summed(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.of.summed(outputs, targets)

    def gradient_and_curvature(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, OutputCurvature]:
        return self.of.gradient_and_curvature(outputs, targets)

    def trial(self, outputs: Tensor) -> tuple[Criterion, Tensor]:
        return self.of.trial(outputs)

    def num_labels(self, targets: Tensor) -> int:
        return self.of.num_labels(targets)

    def num_correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.of.num_correct(outputs, targets)
