"""Train one run of plain SGD; keep its checkpoints and its history."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import yaml
from torch import Tensor

from sharpness.data.datasets import Dataset
from sharpness.hessian.loss import Loss
from sharpness.runtime import allocator, closure, own
from sharpness.runtime.device import choose_device, environment
from sharpness.runtime.files import write_table, write_text
from sharpness.runtime.interruption import Interrupted, Interruption
from sharpness.runtime.stage import run_stage
from sharpness.study.identity import settings_digest, sized
from sharpness.study.run import Run
from sharpness.study.schedule import chunks_of
from sharpness.training.checkpoints import Checkpoints, ChunkWriter, Snapshot, save_checkpoints
from sharpness.training.initialisation import dataset_of, loss_of
from sharpness.training.loop import Trainer
from sharpness.training.progress import Directions, Progress, Record
from sharpness.training.progress_log import ProgressLog
from sharpness.training.state import StateFolder, identity

_log = logging.getLogger(__name__)

FindDirections = Callable[[Tensor, Tensor], Directions]


@dataclass(frozen=True)
class Job:
    """Everything a training job is told beside the run itself."""

    data: Path  # the prepared data set
    steps: list[int]  # the planned checkpoints
    num_evaluated: int  # training examples on which the history's training loss is evaluated
    evaluation_epochs: list[int]  # those after which the history has a row; none means all
    threads: int
    state: Path  # a folder for the state from which the run goes on after it was stopped
    state_seconds: float  # between two times that it is saved
    tensorboard: bool  # write TensorBoard's events beside the record
    chunks: list[Path]  # output: the planned checkpoints, cut into so many parts
    best: Path  # output: the checkpoint of the highest validation accuracy
    last: Path  # output: the checkpoint after the last step
    history: Path  # output: one row per evaluated epoch
    record: Path  # output: every field of the run, and what trained it


def train(run: Run, job: Job) -> None:
    """Train a run of plain SGD."""
    if run.is_nudged:
        raise ValueError(f"{run.name} is nudged: its stage is train_nudged")
    execute(run, job, directions_for=_no_directions, stage="sharpness.stages.train")


def _no_directions(dataset: Dataset, loss: Loss) -> None:
    """Plain SGD never computes an eigenvector."""


def execute(
    run: Run, job: Job, *, directions_for: Callable[[Dataset, Loss], FindDirections | None], stage: str
) -> None:
    """Train a run with the directions that ``directions_for`` finds, and write what it leaves behind.

    Told to stop, it saves its state and exits; called again, it goes on from there.
    """
    device = choose_device(threads=job.threads)
    dataset = dataset_of(run, job.data, device)
    loss, weights, buffers = loss_of(run, dataset)
    allocator.suit(weights)
    made_by = environment([stage], device) | own.made_by(run.own_code) | {"data_digest": dataset.digest}
    same = identity(
        run, num_evaluated=job.num_evaluated, evaluation_epochs=job.evaluation_epochs, data=job.data, stage=stage
    )
    folder = StateFolder(job.state, same, made_by)
    writer = ChunkWriter(run, chunks_of(job.steps, len(job.chunks)), job.chunks, made_by, folder.link)
    find = directions_for(dataset, loss)
    with Interruption() as interruption:
        keeper = _Keeper(run, folder, writer, interruption, job.state_seconds)
        training = Trainer(
            run=run,
            loss=loss,
            dataset=dataset,
            weights=weights,
            buffers=buffers,
            planned_steps=frozenset(job.steps),
            keep=keeper.keep,
            find_directions=find and interruption.at_once()(find),
            num_evaluated=job.num_evaluated,
            evaluation_epochs=frozenset(job.evaluation_epochs),
            pause=keeper.pause,
        )
        progress = keeper.begin(training)
        tensorboard = job.record.parent / "tensorboard" if job.tensorboard else None
        training = replace(training, on_record=ProgressLog(run, progress, tensorboard))
        try:
            training.resume(progress)
        except Interrupted as interrupted:
            folder.save(progress)
            _log.warning("%s: %s in epoch %d, goes on from %s", run.name, interrupted, progress.epoch, job.state)
            sys.exit(128 + interrupted.signal)
        folder.save(progress)
        _write(run, job, progress, training.tested(progress), writer, made_by)


@dataclass
class _Keeper:
    """Keeps what a run needs to go on after it was stopped, and its checkpoints."""

    run: Run
    folder: StateFolder
    writer: ChunkWriter
    interruption: Interruption
    seconds: float  # between two times that the state is saved
    saved_at: float = field(default_factory=time.monotonic)
    is_due: bool = True
    kept_before: int = -1  # the last step whose snapshot was there when the run went on

    def begin(self, training: Trainer) -> Progress:
        """The run as it was saved, or else at its beginning."""
        found = self.folder.find(training)
        if found is None:
            return training.begin()
        progress, snapshots = found
        for snapshot in snapshots:
            self.writer.keep(snapshot)
            self.kept_before = snapshot.step
        return progress

    def keep(self, snapshot: Snapshot) -> None:
        """Take a planned snapshot; that of the step at which a run goes on comes again."""
        if snapshot.step <= self.kept_before:
            return
        self.folder.keep(self.run, snapshot)
        self.writer.keep(snapshot)
        self.is_due = True

    def pause(self, progress: Progress) -> None:
        """Stop where that was asked for, and save the state where it is time to."""
        self.interruption.check()
        if self.is_due or time.monotonic() - self.saved_at >= self.seconds:
            self.folder.save(progress)
            self.saved_at, self.is_due = time.monotonic(), False


def _write(
    run: Run, job: Job, progress: Progress, history: list[Record], writer: ChunkWriter, made_by: dict[str, str]
) -> None:
    assert progress.ended is not None
    closure.check_unchanged()
    writer.close(reason=progress.ended)
    save_checkpoints(Checkpoints(run, "best", [progress.best], {}, made_by), job.best)
    save_checkpoints(Checkpoints(run, "last", [progress.last], {}, made_by), job.last)
    settings = {"evaluation_examples": job.num_evaluated, "evaluation_epochs": job.evaluation_epochs}
    behind = {"settings_digest": settings_digest(settings), **made_by}
    rows = [{"run": run.name, **asdict(record), **behind} for record in history]
    write_table(sized(rows), job.history)
    told = {"run": run.name, **run.fields(), **_network(run, progress), "environment": made_by}
    write_text(yaml.safe_dump(told, sort_keys=False), job.record)


def _network(run: Run, progress: Progress) -> dict[str, object]:
    """What a user's own network is, as it was trained: the shapes of its parameters, and its loss before training."""
    if not run.own_code:
        return {}
    layout = progress.descent.loss.layout
    shapes = {name: list(shape) for name, shape in zip(layout.names, layout.shapes, strict=True)}
    loss = progress.history[0].training_loss
    return {"network": {"num_parameters": layout.size, "initial_loss": loss, "parameters": shapes}}


if __name__ == "__main__":
    run_stage(train)
