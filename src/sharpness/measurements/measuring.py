"""What every measurement shares: a run's checkpoints, its loss, and the examples on which it is measured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sharpness.data import datasets
from sharpness.data.datasets import Dataset
from sharpness.eigen.lanczos import Eigenpairs, top_eigenpairs
from sharpness.hessian.loss import Loss
from sharpness.hessian.operator import HessianOperator, HessianProduct
from sharpness.runtime import closure
from sharpness.runtime.device import choose_device, environment
from sharpness.runtime.files import write_table
from sharpness.runtime.precision import Precision, low_precision
from sharpness.runtime.streams import stream
from sharpness.study.records import COLUMNS, is_lost, settings_digest, sized
from sharpness.study.run import Run
from sharpness.training import belonging
from sharpness.training.checkpoints import Checkpoints, Snapshot, load_checkpoints
from sharpness.training.initialisation import loss_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One part of a run's checkpoints, to be measured by one job."""

    data: Path  # the prepared data set
    checkpoints: list[Path]
    steps: list[int]  # those to be measured; none means all
    run: str  # whose checkpoints they are, by name
    record: Path  # which its training left beside them
    settings_name: str  # of the settings in the study
    threads: int
    output: Path  # the table


@dataclass(frozen=True)
class Subject:
    """A run that is measured: its loss, on its data."""

    run: Run
    loss: Loss
    dataset: Dataset
    start: tuple[Tensor, Tensor] | None = None  # weights [P] and buffers [B] before training
    # By precision and parameters: what the checkpoints share.
    products: dict[tuple[Precision, str], HessianProduct] = field(default_factory=dict)

    def first_examples(self, num_examples: int) -> tuple[Tensor, Tensor]:
        """The first training examples, never augmented: those on which losses are evaluated."""
        training = self.dataset.training
        return training.inputs[:num_examples], training.targets[:num_examples]

    def drawn_examples(self, num_examples: int, purpose: str = "examples of the Hessian") -> tuple[Tensor, Tensor]:
        """Training examples drawn by the run's seed: the same ones at every checkpoint unless ``purpose`` differs."""
        training = self.dataset.training
        order = torch.randperm(len(training.targets), generator=stream(self.run.seed, purpose))
        chosen = order[:num_examples].to(training.targets.device)
        return training.inputs[chosen], training.targets[chosen]

    def batches(self, purpose: str, *, num_examples: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Random mini-batches of the run's size without end, from the first ``num_examples`` (None: all)."""
        inputs, targets = self.first_examples(num_examples or self.run.num_training)
        size = min(self.run.examples_per_step, len(targets))
        generator = stream(self.run.seed, purpose)
        while True:
            for batch in datasets.epoch_order(len(targets), size, generator=generator).to(targets.device):
                yield inputs[batch], targets[batch]

    def independent_batch(self, purpose: str, number: int) -> tuple[Tensor, Tensor]:
        """One of any number of mini-batches, each drawn from all training examples as if it were the first."""
        return self.drawn_examples(self.run.examples_per_step, f"{purpose}, batch {number}")

    def hessian(
        self,
        state: Snapshot,
        examples: tuple[Tensor, Tensor],
        *,
        precision: Precision = "float32",
        parameters: str = "*",
    ) -> HessianOperator:
        """The Hessian of the loss on ``examples`` at ``state``.

        Raises:
            ValueError: no parameter's name matches ``parameters``.
            FloatingPointError: the weights are not finite.
        """
        product = self.products.get((precision, parameters))
        if product is None:
            product = HessianProduct(self.loss, precision=low_precision(precision), parameters=parameters)
            self.products[precision, parameters] = product
        return HessianOperator.at(product, state.weights, state.buffers, *examples)

    def eigenpairs(
        self,
        state: Snapshot,
        operator: HessianOperator,
        *,
        num_pairs: int,
        tolerance: float,
        max_products: int,
        probe_products: int = 0,
        certify: bool = True,
    ) -> Eigenpairs:
        """The sharpest directions of the loss: the leading eigenpairs of its Hessian at ``state``."""
        pairs = top_eigenpairs(
            operator,
            num_pairs=num_pairs,
            tolerance=tolerance,
            max_products=max_products,
            generator=stream(self.run.seed, f"lanczos at step {state.step}"),
            probe_products=probe_products,
            certify=certify,
        )
        if not pairs.converged:
            worst = float(pairs.residuals.max())
            _log.warning("step %d: residual %.1e after %d products", state.step, worst, pairs.num_products)
        if pairs.complete is False:
            _log.warning("step %d: an eigenvalue that was missed at first has not converged", state.step)
        return pairs


def measure(
    part: Part,
    rows_of: Callable[[Subject, Snapshot], Iterable[Mapping[str, object]]],
    *,
    settings: DataclassInstance,
    stage: str,
    when_diverged: Mapping[str, object],
) -> None:
    """Measure every checkpoint of a part and write one table.

    Args:
        part: what to measure and where to write.
        rows_of: the rows of one checkpoint; the run and its fields, settings, kind of checkpoint, step and epoch are
            put before them, and behind them what they were computed by.
        settings: of the measurement.
        stage: the module that measures.
        when_diverged: the row of the first planned checkpoint that a run did not reach because it diverged, with no
            value in the columns of what would have been measured: a run that diverges is a result, not a gap.

    Raises:
        DamagedError: a checkpoint is damaged, or of another run, another training or other data.
        closure.SourcesChangedError: the code was edited meanwhile.
    """
    device = choose_device(threads=part.threads)
    made_by = {"settings_digest": settings_digest(asdict(settings)), **environment(stage, device)}
    measurement = stage.rpartition(".")[2]
    # Every column in every table, also where nothing could be measured.
    empty = dict.fromkeys(COLUMNS[measurement])
    rows: list[dict[str, object]] = []
    subject: Subject | None = None
    for path in part.checkpoints:
        checkpoints = checkpoints_of(part, path, device=device, steps=part.steps)
        run = checkpoints.run
        subject = subject or subject_of(run, part.data, device)
        belonging.check_data(checkpoints, path, digest=subject.dataset.digest, data=part.data)
        belonging.check_network(checkpoints, path, subject.start)
        made_by["data_digest"] = subject.dataset.digest
        where = {"run": run.name, **asdict(run), "settings": part.settings_name, "checkpoint": checkpoints.kind}
        where["trained_by"] = checkpoints.environment.get("code")
        for number, snapshot in enumerate(checkpoints.snapshots, start=1):
            here = where | _at(run, snapshot.step)
            try:
                rows += _measured(subject, snapshot, rows_of, {**here, **empty}, measurement)
            except FloatingPointError as error:
                # The weights are finite, but not the curvature: as good as not reached.
                _log.warning("step %d: %s", snapshot.step, error)
                rows.append({**here, **empty, **when_diverged, "diverged": True})
            _log.info("measured step %d, %d of %d in %s", snapshot.step, number, len(checkpoints.snapshots), path.name)
        if lost := [step for step in part.steps if step in checkpoints.missing]:
            reason = checkpoints.missing[lost[0]]
            values = when_diverged if reason == "diverged" else {}
            rows.append({**where, **_at(run, lost[0]), **empty, **values, reason: True})
    closure.check_unchanged()
    write_table(sized({**row, **made_by} for row in rows), part.output)


def _at(run: Run, step: int) -> dict[str, object]:
    return {"step": step, "epoch": step / run.steps_per_epoch, "diverged": False, "stopped": False}


def _measured(
    subject: Subject,
    snapshot: Snapshot,
    rows_of: Callable[[Subject, Snapshot], Iterable[Mapping[str, object]]],
    before: Mapping[str, object],
    measurement: str,
) -> list[dict[str, object]]:
    """The rows of one checkpoint.

    Raises:
        FloatingPointError: what was measured is not finite.
    """
    rows = [{**before, **row} for row in rows_of(subject, snapshot)]
    if any(is_lost(row, measurement) for row in rows if not row["diverged"]):
        raise FloatingPointError("what was measured is not finite")
    return rows


def checkpoints_of(part: Part, path: Path, *, device: torch.device, steps: list[int]) -> Checkpoints:
    """Read checkpoints of the run that a part is of; no steps means all.

    Raises:
        DamagedError: the file is damaged, of another run or of another training, or lacks a step.
    """
    checkpoints = load_checkpoints(path, device=device, steps=steps or None)
    belonging.check_training(checkpoints, path, run=part.run, record=part.record)
    belonging.check_steps(checkpoints, path, steps)
    return checkpoints


def subject_of(run: Run, data_path: Path, device: torch.device) -> Subject:
    """Open a run's data and build its loss."""
    dataset = datasets.load(data_path, num_training=run.num_training, device=device)
    loss, weights, buffers = loss_of(run, dataset)
    return Subject(run=run, loss=loss, dataset=dataset, start=(weights, buffers))
