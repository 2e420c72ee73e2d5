"""A loss that a user computes: ``loss(model, batch)`` returns the sum over terms and the number of terms."""

# ruff: noqa: ARG002 (every criterion has the same signatures)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sharpness.hessian.losses.criterion import Criterion, Diagonal, OutputCurvature, precise

Function = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class OwnLoss(Criterion):
    """The "network" computes the sum over terms itself, a single number; its "targets" are the number of terms."""

    function: Function
    nothing = "loss(model, batch) finds no terms: there is nothing to average over"

    @property
    def description(self) -> str:
        """Name the function."""
        return f"{getattr(self.function, '__module__', '')}.{getattr(self.function, '__qualname__', self.function)}"

    def total(self, model: object, batch: object) -> tuple[Tensor, float | Tensor]:
        """Call the loss, and check what it returns.

        Raises:
            TypeError: it does not take a model and a batch.
            ValueError: that is not (sum over terms, number of terms).
        """
        try:
            returned = self.function(model, batch)
        except (TypeError, AttributeError) as error:
            raise TypeError(
                f"loss(model, batch) fails on the model and a batch of the data: {str(error).splitlines()[0]} (losses "
                "of outputs and targets are torch.nn.CrossEntropyLoss, MSELoss and BCEWithLogitsLoss)"
            ) from error
        wanted = "loss(model, batch) must return (sum over terms, number of terms)"
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            raise ValueError(f"{wanted}, got {_described(returned)}")
        total, number = returned
        if not isinstance(total, Tensor) or total.numel() != 1 or not total.is_floating_point():
            raise ValueError(f"{wanted}; the sum must be a tensor of one real number, got {_described(total)}")
        if isinstance(number, bool) or not isinstance(number, int | float | Tensor):
            raise ValueError(f"{wanted}; the number must be a number, got {_described(number)}")
        if isinstance(number, Tensor) and number.numel() != 1:
            raise ValueError(f"{wanted}; the number must be one number, got {_described(number)}")
        return total.reshape(()), number

    def converted(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        return targets

    def check(self, targets: Tensor, outputs: torch.Size) -> None:
        pass  # there are none

    def check_outputs(self, outputs: Tensor, num_examples: int) -> str | None:
        return None  # checked by ``total``

    def weight(self, targets: Tensor) -> float | Tensor:
        return targets

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sum() / targets

    def plain_sum(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sum()

    def summed(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return precise(outputs).sum()

    def gradient_and_curvature(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, OutputCurvature]:
        return torch.ones_like(precise(outputs)), Diagonal(precise(outputs).new_zeros(()))

    def trial(self, outputs: Tensor) -> tuple[Criterion, Tensor]:
        return self, outputs.new_ones(())


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)} and {value.dtype}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value!r}" if isinstance(value, bool | int | float | str) else f"a {type(value).__name__}"
