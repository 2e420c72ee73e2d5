"""Checkpoints on disk: sealed files of tensors, with their provenance in the header."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sharpness.runtime.sealed import DamagedError, Sealed, open_sealed, save_sealed
from sharpness.study.run import Run

Kind = Literal["planned", "best", "last"]


@dataclass(frozen=True)
class Snapshot:
    """The state of a run before its update number ``step``."""

    step: int
    weights: Tensor  # [P]
    buffers: Tensor  # [B]
    learning_rate: float  # of the next update
    # Of an optimizer that divides by its root, after an update: the running mean of squared gradients, [P].
    second_moment: Tensor | None = None


@dataclass(frozen=True)
class Checkpoints:
    """Snapshots of one run, as stored in one file."""

    run: Run
    kind: Kind
    snapshots: list[Snapshot]
    missing: Mapping[int, str]  # planned steps that were not reached, with the reason: "stopped" or "diverged"
    environment: Mapping[str, str]  # versions, device, threads, data


def save_checkpoints(checkpoints: Checkpoints, path: Path) -> None:
    """Write ``checkpoints`` atomically; a file without snapshots is valid."""
    snapshots = checkpoints.snapshots
    tensors = {
        "steps": torch.tensor([snapshot.step for snapshot in snapshots], dtype=torch.int64),
        "learning_rates": torch.tensor([snapshot.learning_rate for snapshot in snapshots], dtype=torch.float64),
    }
    for index, snapshot in enumerate(snapshots):
        tensors[f"weights.{index}"] = snapshot.weights
        tensors[f"buffers.{index}"] = snapshot.buffers
        if snapshot.second_moment is not None:
            tensors[f"second_moments.{index}"] = snapshot.second_moment
    header = {
        "run": checkpoints.run.fields(),
        "kind": checkpoints.kind,
        "missing": checkpoints.missing,
        "environment": checkpoints.environment,
    }
    save_sealed(tensors, header, path)


def load_checkpoints(path: Path, *, device: torch.device, steps: list[int] | None = None) -> Checkpoints:
    """Read a file of checkpoints onto ``device``.

    Args:
        path: written by ``save_checkpoints``.
        device: of the tensors.
        steps: read only these; None reads all.

    Raises:
        DamagedError: the file is damaged, cut short, or not a file of checkpoints.
    """
    with open_sealed(path) as file:
        header = file.header
        try:
            run, kind, environment = Run(**header["run"]), header["kind"], header["environment"]
            missing = {int(step): reason for step, reason in header["missing"].items()}
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{path} holds no checkpoints of a run ({error})") from error
        present = zip(file.tensor("steps").tolist(), file.tensor("learning_rates").tolist(), strict=True)
        snapshots = [
            _snapshot(file, index, step, learning_rate, device)
            for index, (step, learning_rate) in enumerate(present)
            if steps is None or step in steps
        ]
    return Checkpoints(run, kind, snapshots, missing, environment)


def _snapshot(file: Sealed, index: int, step: int, learning_rate: float, device: torch.device) -> Snapshot:
    weights, buffers = (file.tensor(f"{name}.{index}", device) for name in ("weights", "buffers"))
    name = f"second_moments.{index}"
    second_moment = file.tensor(name, device) if name in file.digests else None
    return Snapshot(step, weights, buffers, learning_rate, second_moment)


def steps_in(path: Path) -> list[int]:
    """Read the steps of the snapshots in a file of checkpoints."""
    with open_sealed(path) as file:
        steps: list[int] = file.tensor("steps").tolist()
    return steps


class ChunkWriter:
    """Write each chunk of a run's planned checkpoints once it is complete, so that memory holds one chunk only.

    Args:
        run: the settings.
        chunks: planned steps of each chunk.
        paths: file of each chunk.
        environment: versions, device, threads.
        written: called with each file written.
    """

    def __init__(
        self,
        run: Run,
        chunks: Sequence[Sequence[int]],
        paths: Sequence[Path],
        environment: Mapping[str, str],
        written: Callable[[Path], None],
    ) -> None:
        self._run = run
        self._environment = environment
        self._written = written
        self._open = list(zip(chunks, paths, strict=True))
        self._held: list[Snapshot] = []
        self._latest = -1

    def keep(self, snapshot: Snapshot) -> None:
        """Add the next planned snapshot; one that is repeated by a resumed run is ignored."""
        if snapshot.step <= self._latest:
            return
        self._latest = snapshot.step
        self._held.append(snapshot)
        while self._open and set(self._open[0][0]) <= {held.step for held in self._held}:
            self._write({})

    def close(self, reason: str) -> None:
        """Write the remaining chunks, with ``reason`` for the planned steps that were not reached."""
        while self._open:
            reached = {held.step for held in self._held}
            self._write({step: reason for step in self._open[0][0] if step not in reached})

    def _write(self, missing: Mapping[int, str]) -> None:
        _, path = self._open.pop(0)
        save_checkpoints(Checkpoints(self._run, "planned", self._held, missing, self._environment), path)
        self._written(path)
        self._held = []
