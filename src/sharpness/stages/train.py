"""Train one run of plain SGD; keep its checkpoints and its history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from torch import Tensor

from sharpness import data, training
from sharpness.checkpoints import Checkpoints, ChunkWriter, save_checkpoints
from sharpness.data import Dataset
from sharpness.device import choose_device, describe_device
from sharpness.files import write_table, write_text
from sharpness.grid import Run, chunks_of
from sharpness.initialisation import loss_of
from sharpness.loss import Loss
from sharpness.stages import run_stage

FindDirections = Callable[[Tensor, Tensor], training.Directions]


@dataclass(frozen=True)
class Job:
    """Everything a training job is told beside the run itself."""

    data: Path  # the prepared data set
    steps: list[int]  # the planned checkpoints
    num_evaluated: int  # training examples on which the history's training loss is evaluated
    threads: int
    chunks: list[Path]  # output: the planned checkpoints, cut into so many parts
    best: Path  # output: the checkpoint of the highest validation accuracy
    last: Path  # output: the checkpoint after the last step
    history: Path  # output: one row per epoch
    record: Path  # output: every field of the run


def train(run: Run, job: Job) -> None:
    """Train a run of plain SGD."""
    if run.is_nudged:
        raise ValueError(f"{run.name} is nudged: its stage is train_nudged")
    execute(run, job, directions_for=_no_directions)


def _no_directions(dataset: Dataset, loss: Loss) -> None:
    """Plain SGD never computes an eigenvector."""


def execute(run: Run, job: Job, *, directions_for: Callable[[Dataset, Loss], FindDirections | None]) -> None:
    """Train a run with the directions that ``directions_for`` finds, and write what it leaves behind."""
    device = choose_device(threads=job.threads)
    dataset = data.load(job.data, num_training=run.num_training, device=device)
    loss, weights, buffers = loss_of(run, dataset)
    environment = describe_device(device)
    writer = ChunkWriter(run, chunks_of(job.steps, len(job.chunks)), job.chunks, environment)
    result = training.train(
        run,
        loss,
        dataset,
        weights,
        buffers,
        planned_steps=job.steps,
        keep=writer.keep,
        find_directions=directions_for(dataset, loss),
        num_evaluated=job.num_evaluated,
    )
    writer.close(reason=result.ended)
    save_checkpoints(Checkpoints(run, "best", [result.best], {}, environment), job.best)
    save_checkpoints(Checkpoints(run, "last", [result.last], {}, environment), job.last)
    write_table([{"run": run.name, **asdict(record)} for record in result.history], job.history)
    write_text(yaml.safe_dump({"run": run.name, **asdict(run)}, sort_keys=False), job.record)


if __name__ == "__main__":
    run_stage(train)
