"""The training loop: the only code that changes weights."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sharpness.data.datasets import Dataset, augment, epoch_order
from sharpness.eigen.vectors import length
from sharpness.hessian.loss import Loss
from sharpness.runtime.streams import stream
from sharpness.study.run import Run
from sharpness.training.checkpoints import Snapshot
from sharpness.training.descent import Descent
from sharpness.training.progress import Directions, Patience, Progress, Record

# The authors' schedule (Keras' ReduceLROnPlateau): divide the rate by ten if the loss has not fallen by this much.
_PLATEAU_FACTOR = 0.1
_PLATEAU_CHANGE = 1e-4
# Check for a non-finite loss every N steps only; each check synchronises the device.
_STEPS_PER_CHECK = 50


def _nothing(_: object) -> None: ...


def _merit(record: Record) -> float:
    """By what the best state is chosen: validation accuracy, or a small validation loss where the loss has none."""
    return -record.validation_loss if math.isnan(record.validation_accuracy) else record.validation_accuracy


@dataclass(frozen=True)
class Trainer:
    """Train a run on its data."""

    run: Run
    loss: Loss  # of the run's model, with the run's L2
    dataset: Dataset  # on the device of the weights
    weights: Tensor  # [P], at initialisation
    buffers: Tensor  # [B], at initialisation
    planned_steps: frozenset[int]  # numbers of the updates before which ``keep`` is called
    # Takes the snapshots of planned steps, in ascending order; steps that are never reached are omitted.
    keep: Callable[[Snapshot], None]
    # Computes the sharpest directions from weights and buffers, at the start of every epoch of a nudged run.
    find_directions: Callable[[Tensor, Tensor], Directions] | None
    num_evaluated: int  # number of training examples on which the training loss is evaluated
    # Epochs after which losses and validation accuracy are evaluated; empty: all.
    evaluation_epochs: frozenset[int] = frozenset()
    # Called between updates, when the progress is consistent: may save it, or raise to end the training.
    pause: Callable[[Progress], None] = _nothing
    on_record: Callable[[Record], None] = _nothing  # called with every new row of the history

    def __post_init__(self) -> None:
        if self.run.is_nudged and self.find_directions is None:
            raise ValueError(f"{self.run.name} is nudged and needs find_directions, got None")

    def descent(self) -> Descent:
        """The run's update rule at the initial weights."""
        return Descent(
            self.loss,
            self.weights,
            self.buffers,
            learning_rate=self.run.learning_rate,
            momentum=self.run.momentum,
            optimizer=self.run.update,
            factor_at=self.run.rates.factor,
            low_precision=self.run.precision == "bfloat16",
        )

    def begin(self) -> Progress:
        """Evaluate the run at initialisation."""
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

    def resume(self, progress: Progress) -> None:
        """Train from ``progress`` to the end of the run, updating it in place."""
        while progress.ended is None:
            if progress.epoch > self.run.epochs:
                progress.ended = "finished"
                break
            try:
                finite = self._train_epoch(progress)
            except FloatingPointError:
                # The loss is still finite, but its curvature is not.
                if progress.history[-1].epoch < progress.epoch - 1:
                    self._evaluate(progress, progress.epoch - 1)
                progress.history[-1] = replace(progress.history[-1], diverged=True)
                self.on_record(progress.history[-1])
                progress.ended = "diverged"
                break
            self._end_epoch(progress, finite)

    def tested(self, progress: Progress) -> list[Record]:
        """Return the history with the test accuracy of the best and the last state.

        Other epochs are not tested: it would cost as much as the validation after every epoch.
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

    def _train_epoch(self, progress: Progress) -> bool:
        """Train to the end of the epoch; return False if the loss diverged.

        Raises:
            FloatingPointError: the curvature at the start of the epoch is not finite.
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
            if index % _STEPS_PER_CHECK == 0 and self._has_diverged(descent):
                return False
            if index > 0 and step in self.planned_steps:
                if not torch.isfinite(descent.weights).all():
                    return False
                self.keep(descent.snapshot(step))
            self.pause(progress)
            inputs, targets = training.inputs[order[index]], training.targets[order[index]]
            if run.augment:
                inputs = augment(inputs, generator=progress.shifts)
            descent.rate_factor = descent.factor_at(step)
            descent.step(inputs, targets, rows, gamma=run.gamma, gamma_outside=run.gamma_outside)
        return not self._has_diverged(descent)

    def _has_diverged(self, descent: Descent) -> bool:
        largest = float(descent.largest_loss)
        return not largest <= (sys.float_info.max if self.run.loss_bound is None else self.run.loss_bound)

    def _end_epoch(self, progress: Progress, finite: bool) -> None:
        """Evaluate after an epoch if planned, adapt the learning rate, and decide whether the run ends."""
        run, descent, epoch = self.run, progress.descent, progress.epoch
        finite = finite and bool(torch.isfinite(descent.weights).all())
        record = None
        if not finite or not self.evaluation_epochs or epoch in self.evaluation_epochs:
            record = self._evaluate(progress, epoch, diverged=not finite)
            self.on_record(record)
            if record.diverged:
                progress.ended = "diverged"
                return
        # Before the snapshot, which records the rate of the next update.
        if record is not None and progress.plateau.exhausted(record.validation_loss):
            descent.learning_rate *= _PLATEAU_FACTOR
        if epoch in run.learning_rate_epochs:
            descent.learning_rate *= run.learning_rate_factor
        step = epoch * run.steps_per_epoch
        progress.last = descent.snapshot(step)
        if step in self.planned_steps:
            self.keep(progress.last)
        if record is not None:
            if _merit(record) > max(map(_merit, progress.history[:-1])):
                progress.best = progress.last
            if progress.stop.exhausted(-_merit(record)):
                progress.ended = "stopped"
        progress.epoch, progress.index, progress.directions, progress.shifts = epoch + 1, 0, None, None

    def _evaluate(self, progress: Progress, epoch: int, *, diverged: bool = False) -> Record:
        """Add a row to the history; ``diverged``: the run has diverged, whatever the losses are."""
        descent, dataset, num_evaluated = progress.descent, self.dataset, self.num_evaluated
        evaluate, state = self.loss.evaluate, (descent.weights, descent.buffers)
        training = evaluate(*state, dataset.training.inputs[:num_evaluated], dataset.training.targets[:num_evaluated])
        validation = evaluate(*state, dataset.validation.inputs, dataset.validation.targets)
        # The sum is finite only if every term is; weights may overflow while the loss is still finite.
        finite = bool(torch.isfinite(training.cross_entropy + descent.weights.sum()))
        was_nudged, found = math.isfinite(progress.direction_residual), progress.directions
        record = Record(
            step=epoch * self.run.steps_per_epoch,
            epoch=epoch,
            training_loss=float(training.cross_entropy),
            validation_loss=float(validation.cross_entropy),
            validation_accuracy=float(validation.accuracy) if finite else math.nan,
            test_accuracy=math.nan,
            learning_rate_now=descent.learning_rate * descent.rate_factor,
            distance=length(descent.weights - self.weights),
            diverged=diverged or not finite,
            num_direction_products=progress.direction_products,
            direction_residual=progress.direction_residual if was_nudged else math.nan,
            direction_trace=math.nan if found is None else found.trace,
            direction_trace_elsewhere=math.nan if found is None else found.trace_elsewhere,
            direction_trace_error=math.nan if found is None else found.trace_error,
        )
        progress.history.append(record)
        progress.direction_products, progress.direction_residual = 0, -math.inf
        return record
