"""Training: the only code that changes weights.

One update serves vanilla SGD, heavy-ball momentum, Nudged SGD and the variants (``sharpness.nudge``).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sharpness.checkpoints import Snapshot
from sharpness.data import Dataset, augment, epoch_order
from sharpness.grid import Run
from sharpness.loss import Loss
from sharpness.nudge import nudge
from sharpness.streams import stream

_log = logging.getLogger(__name__)

# The authors' schedule (Keras' ReduceLROnPlateau): a tenth of the rate, where the loss did not fall by this much.
_PLATEAU_FACTOR = 0.1
_PLATEAU_CHANGE = 1e-4


@dataclass(frozen=True)
class Directions:
    """The subspace in which the step is scaled, and what finding it took."""

    rows: Tensor  # [K, P], orthonormal
    num_products: int
    residual: float  # the largest of the K pairs


@dataclass(frozen=True)
class Record:
    """One row of a run's history: the state after ``epoch`` passes (0 is initialisation)."""

    step: int
    epoch: int
    training_loss: float  # cross-entropy of the first training examples, not augmented, without the L2 term
    validation_loss: float
    validation_accuracy: float  # fraction
    test_accuracy: float  # fraction
    learning_rate: float  # of the epoch that ended
    distance: float  # of the weights from those at initialisation, Euclidean
    diverged: bool
    direction_products: int  # Hessian-vector products spent on the directions of the epoch that ended
    direction_residual: float  # of the directions of the epoch that ended; not a number in plain SGD


@dataclass(frozen=True)
class Result:
    """What a run leaves behind beside its planned checkpoints."""

    history: list[Record]
    best: Snapshot  # highest validation accuracy at the end of an epoch, the earliest of equals
    last: Snapshot  # the last finite state at the end of an epoch
    ended: str  # "finished", "stopped" (no better for long) or "diverged"


class Descent:
    """Weights under the update rule: ``weights += nudge(velocity)``.

    The velocity is ``momentum * velocity - learning_rate * gradient``; it is the nudged velocity that moves the
    weights, while the velocity itself is kept as it was (the authors' ``correct_v``).
    """

    def __init__(self, loss: Loss, weights: Tensor, buffers: Tensor, *, learning_rate: float, momentum: float) -> None:
        self.loss = loss
        self.weights = weights.clone()
        self.buffers = buffers.clone()
        self.learning_rate = learning_rate
        self._momentum = momentum
        self._velocity: Tensor | None = None

    def step(
        self, inputs: Tensor, targets: Tensor, directions: Tensor | None, *, gamma: float, gamma_outside: float
    ) -> None:
        """One update on one batch; without directions [K, P] it is plain SGD."""
        velocity = self.loss.gradient(self.weights, self.buffers, inputs, targets, training=True).mul_(
            -self.learning_rate
        )
        if self._momentum:
            if self._velocity is not None:
                velocity.add_(self._velocity, alpha=self._momentum)
            self._velocity = velocity
        if directions is not None:
            velocity = nudge(velocity, directions, gamma=gamma, gamma_outside=gamma_outside)
        self.weights.add_(velocity)

    def snapshot(self, step: int) -> Snapshot:
        """A copy of the state."""
        return Snapshot(step, self.weights.clone(), self.buffers.clone(), self.learning_rate)


class _Patience:
    """Counts the epochs since a value last fell by more than ``change``."""

    def __init__(self, patience: int | None, change: float) -> None:
        self._patience = math.inf if patience is None else patience
        self._change = change
        self._lowest = math.inf
        self._waited = 0

    def exhausted(self, value: float) -> bool:
        """Take one epoch's value; true once it has not fallen for so many epochs, and then the count starts anew."""
        self._waited += 1
        if value < self._lowest - self._change:
            self._lowest, self._waited = value, 0
        if self._waited >= self._patience:
            self._waited = 0
            return True
        return False


def train(
    run: Run,
    loss: Loss,
    dataset: Dataset,
    weights: Tensor,
    buffers: Tensor,
    *,
    planned_steps: Collection[int],
    keep: Callable[[Snapshot], None],
    find_directions: Callable[[Tensor, Tensor], Directions] | None,
    num_evaluated: int,
) -> Result:
    """Train from ``weights`` [P] and ``buffers`` [B] to the end of the run.

    Args:
        run: the settings.
        loss: of the run's model, with the run's L2.
        dataset: on the device of the weights.
        weights: at initialisation.
        buffers: at initialisation.
        planned_steps: the steps at which ``keep`` is called, before the update of that number.
        keep: takes a snapshot; planned steps are handed over in ascending order, those never reached not at all.
        find_directions: from weights and buffers to the sharpest directions, called at the start of every epoch; needed
            where the run is nudged.
        num_evaluated: training examples on which the training loss is evaluated.

    Raises:
        ValueError: the run is nudged and there is no ``find_directions``.
    """
    if run.is_nudged and find_directions is None:
        raise ValueError(f"{run.name} is nudged and needs find_directions, got None")
    descent = Descent(loss, weights, buffers, learning_rate=run.learning_rate, momentum=run.momentum)
    history = [_record(run, descent, dataset, weights, num_evaluated, epoch=0, directions=None)]
    planned, per_epoch = frozenset(planned_steps), run.steps_per_epoch
    if 0 in planned:
        keep(descent.snapshot(0))
    best = last = descent.snapshot(0)
    plateau, stop = _Patience(run.plateau_patience, _PLATEAU_CHANGE), _Patience(run.stop_patience, 0.0)
    find = find_directions if run.is_nudged else None  # plain SGD never computes an eigenvector
    began = time.monotonic()
    ended = "finished"
    for epoch in range(1, run.epochs + 1):
        try:
            directions = find(descent.weights, descent.buffers) if find else None
        except FloatingPointError:
            # The loss is still finite, but not its curvature: the run is lost all the same.
            history[-1] = replace(history[-1], diverged=True)
            ended = "diverged"
            break
        finite = _epoch(run, descent, dataset, directions, epoch, planned, keep)
        record = _record(run, descent, dataset, weights, num_evaluated, epoch=epoch, directions=directions)
        history.append(record)
        _report(run, record, per_epoch * run.examples_per_step, time.monotonic() - began)
        if record.diverged or not finite:
            ended = "diverged"
            break
        # Before the snapshots: they know the rate of the update that comes next.
        if plateau.exhausted(record.validation_loss):
            descent.learning_rate *= _PLATEAU_FACTOR
        if per_epoch * epoch in planned:
            keep(descent.snapshot(per_epoch * epoch))
        last = descent.snapshot(per_epoch * epoch)
        if record.validation_accuracy > max(earlier.validation_accuracy for earlier in history[:-1]):
            best = last
        if stop.exhausted(-record.validation_accuracy):
            ended = "stopped"
            break
    return Result(history=history, best=best, last=last, ended=ended)


def _epoch(
    run: Run,
    descent: Descent,
    dataset: Dataset,
    directions: Directions | None,
    epoch: int,
    planned: frozenset[int],
    keep: Callable[[Snapshot], None],
) -> bool:
    """One pass over the training set, keeping the planned steps inside it; false once a kept state is not finite."""
    inputs, targets = dataset.training.inputs, dataset.training.targets
    order = epoch_order(len(targets), run.examples_per_step, generator=stream(run.seed, f"order of epoch {epoch}"))
    order = order.to(targets.device)
    shifts = stream(run.seed, f"augmentation of epoch {epoch}")
    rows = None if directions is None else directions.rows
    for index, batch in enumerate(order):
        step = (epoch - 1) * run.steps_per_epoch + index
        if index > 0 and step in planned:
            # The only wait for the device within an epoch, and only where a checkpoint is copied anyway.
            if not torch.isfinite(descent.weights).all():
                return False
            keep(descent.snapshot(step))
        some = augment(inputs[batch], generator=shifts) if run.augment else inputs[batch]
        descent.step(some, targets[batch], rows, gamma=run.gamma, gamma_outside=run.gamma_outside)
    return True


def _record(
    run: Run,
    descent: Descent,
    dataset: Dataset,
    initial: Tensor,
    num_evaluated: int,
    *,
    epoch: int,
    directions: Directions | None,
) -> Record:
    evaluate, state = descent.loss.evaluate, (descent.weights, descent.buffers)
    training = evaluate(*state, dataset.training.inputs[:num_evaluated], dataset.training.targets[:num_evaluated])
    validation = evaluate(*state, dataset.validation.inputs, dataset.validation.targets)
    test = evaluate(*state, dataset.test.inputs, dataset.test.targets)
    # A sum is finite only where every term is; weights may be lost while the loss still looks well.
    finite = bool(torch.isfinite(training.cross_entropy + descent.weights.sum()))
    return Record(
        step=epoch * run.steps_per_epoch,
        epoch=epoch,
        training_loss=float(training.cross_entropy),
        validation_loss=float(validation.cross_entropy),
        validation_accuracy=float(validation.accuracy) if finite else math.nan,
        test_accuracy=float(test.accuracy) if finite else math.nan,
        learning_rate=descent.learning_rate,
        distance=float((descent.weights - initial).norm()),
        diverged=not finite,
        direction_products=0 if directions is None else directions.num_products,
        direction_residual=math.nan if directions is None else directions.residual,
    )


def _report(run: Run, record: Record, images_per_epoch: int, seconds: float) -> None:
    rate = record.epoch * images_per_epoch / seconds
    left = (run.epochs - record.epoch) * seconds / record.epoch
    _log.info(
        "epoch %d of %d: training loss %.4f, validation accuracy %.1f %%, %.0f images/s, %.0f s left",
        *(record.epoch, run.epochs, record.training_loss, 100 * record.validation_accuracy, rate, left),
    )
