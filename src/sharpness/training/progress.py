"""The state of a run between two updates, and its history."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sharpness.training.checkpoints import Snapshot
from sharpness.training.descent import Descent


@dataclass(frozen=True)
class Directions:
    """The subspace in which steps are scaled, and the cost of finding it."""

    rows: Tensor  # [K, P], orthonormal
    num_products: int
    residual: float  # largest residual of the K pairs
    # The sum of the curvatures along them: on the examples on which they were found, on others, and its standard error.
    trace: float = math.nan
    trace_elsewhere: float = math.nan
    trace_error: float = math.nan


@dataclass(frozen=True)
class Record:
    """One row of a run's history: an evaluation after ``epoch`` passes; epoch 0 is initialisation."""

    step: int
    epoch: int
    training_loss: float  # cross-entropy of the first training examples, without augmentation and L2 term
    validation_loss: float
    validation_accuracy: float  # fraction
    test_accuracy: float  # fraction; NaN except at the best and the last epoch
    learning_rate_now: float  # of the epoch that ended
    distance: float  # Euclidean, of the weights from initialisation
    diverged: bool
    num_direction_products: int  # Hessian-vector products spent on directions since the previous row
    direction_residual: float  # largest since the previous row; NaN in plain SGD
    # Sum of the curvatures along the last directions: where they were found, and on other training examples.
    direction_trace: float = math.nan
    direction_trace_elsewhere: float = math.nan
    direction_trace_error: float = math.nan  # standard error of the latter


@dataclass
class Patience:
    """Count the epochs since a value last fell by more than ``change``."""

    patience: int | None  # None: unlimited
    change: float
    lowest: float = math.inf
    waited: int = 0

    def exhausted(self, value: float) -> bool:
        """Take one epoch's value; return True, and restart the count, if it has not fallen for ``patience`` epochs."""
        self.waited += 1
        if value < self.lowest - self.change:
            self.lowest, self.waited = value, 0
        if self.patience is not None and self.waited >= self.patience:
            self.waited = 0
            return True
        return False


@dataclass
class Progress:
    """The state of a run; with its settings, it determines all that follows."""

    descent: Descent
    history: list[Record]
    best: Snapshot  # highest validation accuracy at the end of an epoch, the earliest of equals
    last: Snapshot  # last finite state at the end of an epoch
    plateau: Patience
    stop: Patience
    epoch: int = 1  # the current or next pass
    index: int = 0  # updates done in this pass
    directions: Directions | None = None  # of this pass
    direction_products: int = 0  # on directions since the last row of the history
    direction_residual: float = -math.inf  # largest since then
    shifts: torch.Generator | None = None  # the random stream of the augmentation in this pass
    ended: str | None = None  # "finished", "stopped" (patience exhausted) or "diverged"
