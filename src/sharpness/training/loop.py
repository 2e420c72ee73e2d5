"""Training: the only code that changes weights.

One update serves vanilla SGD, heavy-ball momentum, Nudged SGD and the variants (``sharpness.training.nudge``).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sharpness.data.datasets import Dataset, augment, epoch_order
from sharpness.hessian.loss import Loss
from sharpness.hessian.recording import Recorder
from sharpness.runtime.streams import stream
from sharpness.study.run import Run
from sharpness.training.checkpoints import Snapshot
from sharpness.training.nudge import nudge

# The authors' schedule (Keras' ReduceLROnPlateau): a tenth of the rate, where the loss did not fall by this much.
_PLATEAU_FACTOR = 0.1
_PLATEAU_CHANGE = 1e-4
# Whether the loss is still finite is asked once in so many steps: each time the device must be waited for.
_STEPS_PER_LOOK = 50


@dataclass(frozen=True)
class Directions:
    """The subspace in which the step is scaled, and what finding it took."""

    rows: Tensor  # [K, P], orthonormal
    num_products: int
    residual: float  # the largest of the K pairs


@dataclass(frozen=True)
class Record:
    """One row of a run's history: the state after ``epoch`` passes (0 is initialisation), where it was evaluated."""

    step: int
    epoch: int
    training_loss: float  # cross-entropy of the first training examples, not augmented, without the L2 term
    validation_loss: float
    validation_accuracy: float  # fraction
    test_accuracy: float  # fraction; not a number but where ``Training.tested`` looked
    learning_rate: float  # of the epoch that ended
    distance: float  # of the weights from those at initialisation, Euclidean
    diverged: bool
    direction_products: int  # Hessian-vector products spent on the directions of the epochs since the row before
    direction_residual: float  # the largest of the directions of these epochs; not a number in plain SGD


@dataclass
class Patience:
    """Counts the epochs since a value last fell by more than ``change``."""

    patience: int | None  # None: without end
    change: float
    lowest: float = math.inf
    waited: int = 0

    def exhausted(self, value: float) -> bool:
        """Take one epoch's value; true once it has not fallen for so many epochs, and then the count starts anew."""
        self.waited += 1
        if value < self.lowest - self.change:
            self.lowest, self.waited = value, 0
        if self.patience is not None and self.waited >= self.patience:
            self.waited = 0
            return True
        return False


class Descent:
    """Weights under the update rule: ``weights += nudge(velocity)``.

    The velocity is ``momentum * velocity - learning_rate * gradient``; it is the nudged velocity that moves the
    weights, while the velocity itself is kept as it was (the authors' ``correct_v``).
    """

    def __init__(
        self,
        loss: Loss,
        weights: Tensor,
        buffers: Tensor,
        *,
        learning_rate: float,
        momentum: float,
        low_precision: bool = False,
    ) -> None:
        self.loss = loss
        self.weights = weights.clone()
        self.buffers = buffers.clone()
        self.learning_rate = learning_rate
        self.velocity: Tensor | None = None
        self.largest_loss = weights.new_zeros(())
        """The largest loss of the mini-batches so far, on the device; not a number once one was not."""
        self._momentum = momentum
        self._low_precision = low_precision
        self._recorder = Recorder()

    def step(
        self, inputs: Tensor, targets: Tensor, directions: Tensor | None, *, gamma: float, gamma_outside: float
    ) -> None:
        """One update on one batch; without directions [K, P] it is plain SGD."""
        value, gradient = self._recorder(
            self._value_and_gradient, inputs, targets, in_place=(self.weights, self.buffers)
        )
        torch.maximum(self.largest_loss, value, out=self.largest_loss)
        velocity = gradient.mul_(-self.learning_rate)
        if self._momentum:
            if self.velocity is not None:
                velocity.add_(self.velocity, alpha=self._momentum)
            self.velocity = velocity
        if directions is not None:
            velocity = nudge(velocity, directions, gamma=gamma, gamma_outside=gamma_outside)
        self.weights.add_(velocity)

    def _value_and_gradient(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss.value_and_gradient(
            self.weights, self.buffers, inputs, targets, training=True, low_precision=self._low_precision
        )

    def snapshot(self, step: int) -> Snapshot:
        """A copy of the state."""
        return Snapshot(step, self.weights.clone(), self.buffers.clone(), self.learning_rate)


@dataclass
class Progress:
    """How far a run is: together with its settings, all that decides how it goes on."""

    descent: Descent
    history: list[Record]
    best: Snapshot  # highest validation accuracy at the end of an epoch, the earliest of equals
    last: Snapshot  # the last finite state at the end of an epoch
    plateau: Patience
    stop: Patience
    epoch: int = 1  # the pass that is under way, or comes next
    index: int = 0  # updates done in it
    directions: Directions | None = None  # of this pass
    direction_products: int = 0  # on directions, since the last row of the history
    direction_residual: float = -math.inf  # the largest since then
    shifts: torch.Generator | None = None  # the augmentation's random stream in this pass
    ended: str | None = None  # "finished", "stopped" (no better for long) or "diverged"


def _nothing(_: object) -> None: ...


@dataclass(frozen=True)
class Training:
    """A run on its data, and what is done on the way."""

    run: Run
    loss: Loss  # of the run's model, with the run's L2
    dataset: Dataset  # on the device of the weights
    weights: Tensor  # [P], at initialisation
    buffers: Tensor  # [B], at initialisation
    planned_steps: frozenset[int]  # the steps at which ``keep`` is called, before the update of that number
    # Takes a snapshot; planned steps are handed over in ascending order, those never reached not at all.
    keep: Callable[[Snapshot], None]
    # From weights and buffers to the sharpest directions, at the start of every epoch of a run that is nudged.
    find_directions: Callable[[Tensor, Tensor], Directions] | None
    num_evaluated: int  # training examples on which the training loss is evaluated
    # The epochs after which the losses and the validation accuracy are evaluated; empty: every one.
    evaluation_epochs: frozenset[int] = frozenset()
    # Called between any two updates, when the progress is whole: may save it, or raise to end the training there.
    pause: Callable[[Progress], None] = _nothing
    report: Callable[[Record], None] = _nothing  # called with every new row of the history

    def __post_init__(self) -> None:
        if self.run.is_nudged and self.find_directions is None:
            raise ValueError(f"{self.run.name} is nudged and needs find_directions, got None")

    def descent(self) -> Descent:
        """The run's update rule at its first weights."""
        return Descent(
            self.loss,
            self.weights,
            self.buffers,
            learning_rate=self.run.learning_rate,
            momentum=self.run.momentum,
            low_precision=self.run.precision == "bfloat16",
        )

    def begin(self) -> Progress:
        """The run at initialisation."""
        descent = self.descent()
        first = descent.snapshot(0)
        if 0 in self.planned_steps:
            self.keep(first)
        progress = Progress(
            descent=descent,
            history=[],
            best=first,
            last=first,
            plateau=Patience(self.run.plateau_patience, _PLATEAU_CHANGE),
            stop=Patience(self.run.stop_patience, 0.0),
        )
        self._evaluate(progress, 0)
        return progress

    def go_on(self, progress: Progress) -> None:
        """Train to the end of the run; what comes out is in ``progress``."""
        while progress.ended is None:
            if progress.epoch > self.run.epochs:
                progress.ended = "finished"
                break
            try:
                finite = self._pass(progress)
            except FloatingPointError:
                # The loss is still finite, but not its curvature: the run is lost all the same.
                if progress.history[-1].epoch < progress.epoch - 1:
                    self._evaluate(progress, progress.epoch - 1)
                progress.history[-1] = replace(progress.history[-1], diverged=True)
                self.report(progress.history[-1])
                progress.ended = "diverged"
                break
            self._end_epoch(progress, finite)

    def tested(self, progress: Progress) -> list[Record]:
        """The history, with the test accuracy of the best and the last state.

        The test set is looked at where its accuracy is reported, and nowhere else: an evaluation of it after every
        epoch would cost as much as that on the validation set.
        """
        test = self.dataset.test
        states = {snapshot.step: snapshot for snapshot in (progress.best, progress.last)}

        def accuracy(state: Snapshot) -> float:
            return float(self.loss.evaluate(state.weights, state.buffers, test.inputs, test.targets).accuracy)

        return [
            record
            if record.diverged or record.step not in states
            else replace(record, test_accuracy=accuracy(states[record.step]))
            for record in progress.history
        ]

    def _pass(self, progress: Progress) -> bool:
        """The rest of one pass over the training set; false once the loss is lost.

        Raises:
            FloatingPointError: the curvature from which the directions come is not finite.
        """
        run, descent, training = self.run, progress.descent, self.dataset.training
        order = epoch_order(
            len(training.targets), run.examples_per_step, generator=stream(run.seed, f"order of epoch {progress.epoch}")
        ).to(training.targets.device)
        if progress.shifts is None:
            progress.shifts = stream(run.seed, f"augmentation of epoch {progress.epoch}")
        self.pause(progress)
        if self.find_directions is not None and run.is_nudged and progress.directions is None:
            progress.directions = found = self.find_directions(descent.weights, descent.buffers)
            progress.direction_products += found.num_products
            progress.direction_residual = max(progress.direction_residual, found.residual)
        rows = None if progress.directions is None else progress.directions.rows
        for index in range(progress.index, len(order)):
            step = (progress.epoch - 1) * run.steps_per_epoch + index
            progress.index = index
            if index % _STEPS_PER_LOOK == 0 and self._is_lost(descent):
                return False
            if index > 0 and step in self.planned_steps:
                if not torch.isfinite(descent.weights).all():
                    return False
                self.keep(descent.snapshot(step))
            self.pause(progress)
            inputs, targets = training.inputs[order[index]], training.targets[order[index]]
            if run.augment:
                inputs = augment(inputs, generator=progress.shifts)
            descent.step(inputs, targets, rows, gamma=run.gamma, gamma_outside=run.gamma_outside)
        return not self._is_lost(descent)

    def _is_lost(self, descent: Descent) -> bool:
        largest = float(descent.largest_loss)
        return not largest <= (sys.float_info.max if self.run.loss_bound is None else self.run.loss_bound)

    def _end_epoch(self, progress: Progress, finite: bool) -> None:
        """Decide how the run goes on after a pass, and look at the weights where they are to be evaluated."""
        run, descent, epoch = self.run, progress.descent, progress.epoch
        finite = finite and bool(torch.isfinite(descent.weights).all())
        record = None
        if not finite or not self.evaluation_epochs or epoch in self.evaluation_epochs:
            record = self._evaluate(progress, epoch, lost=not finite)
            self.report(record)
            if record.diverged:
                progress.ended = "diverged"
                return
        # Before the snapshots: they know the rate of the update that comes next.
        if record is not None and progress.plateau.exhausted(record.validation_loss):
            descent.learning_rate *= _PLATEAU_FACTOR
        if epoch in run.learning_rate_epochs:
            descent.learning_rate *= run.learning_rate_factor
        step = epoch * run.steps_per_epoch
        progress.last = descent.snapshot(step)
        if step in self.planned_steps:
            self.keep(progress.last)
        if record is not None:
            if record.validation_accuracy > max(earlier.validation_accuracy for earlier in progress.history[:-1]):
                progress.best = progress.last
            if progress.stop.exhausted(-record.validation_accuracy):
                progress.ended = "stopped"
        progress.epoch, progress.index, progress.directions, progress.shifts = epoch + 1, 0, None, None

    def _evaluate(self, progress: Progress, epoch: int, *, lost: bool = False) -> Record:
        """Add a row to the history; ``lost``: the run has diverged, whatever the losses say."""
        descent, dataset, num_evaluated = progress.descent, self.dataset, self.num_evaluated
        evaluate, state = self.loss.evaluate, (descent.weights, descent.buffers)
        training = evaluate(*state, dataset.training.inputs[:num_evaluated], dataset.training.targets[:num_evaluated])
        validation = evaluate(*state, dataset.validation.inputs, dataset.validation.targets)
        # A sum is finite only where every term is; weights may be lost while the loss still looks well.
        finite = bool(torch.isfinite(training.cross_entropy + descent.weights.sum()))
        was_nudged = math.isfinite(progress.direction_residual)
        record = Record(
            step=epoch * self.run.steps_per_epoch,
            epoch=epoch,
            training_loss=float(training.cross_entropy),
            validation_loss=float(validation.cross_entropy),
            validation_accuracy=float(validation.accuracy) if finite else math.nan,
            test_accuracy=math.nan,
            learning_rate=descent.learning_rate,
            distance=float((descent.weights - self.weights).norm()),
            diverged=lost or not finite,
            direction_products=progress.direction_products,
            direction_residual=progress.direction_residual if was_nudged else math.nan,
        )
        progress.history.append(record)
        progress.direction_products, progress.direction_residual = 0, -math.inf
        return record
