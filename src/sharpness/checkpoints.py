"""Checkpoints on disk: safetensors files with what made them in the header."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from sharpness.files import replacing
from sharpness.grid import Run

Kind = Literal["planned", "best", "last"]


@dataclass(frozen=True)
class Snapshot:
    """The state of a run before its update number ``step``."""

    step: int
    weights: Tensor  # [P]
    buffers: Tensor  # [B]
    learning_rate: float  # of the next update


@dataclass(frozen=True)
class Checkpoints:
    """Some snapshots of one run."""

    run: Run
    kind: Kind
    snapshots: list[Snapshot]
    missing: Mapping[int, str]  # planned steps that the run did not reach, and why: "stopped" or "diverged"
    environment: Mapping[str, str]  # versions, device, threads


def save_checkpoints(checkpoints: Checkpoints, path: Path) -> None:
    """Write ``checkpoints`` atomically; an empty list of snapshots is a valid file."""
    snapshots = checkpoints.snapshots
    tensors = {
        "steps": torch.tensor([snapshot.step for snapshot in snapshots], dtype=torch.int64),
        "learning_rates": torch.tensor([snapshot.learning_rate for snapshot in snapshots], dtype=torch.float64),
    }
    for index, snapshot in enumerate(snapshots):
        tensors[f"weights.{index}"] = snapshot.weights
        tensors[f"buffers.{index}"] = snapshot.buffers
    header = {
        "run": dataclasses.asdict(checkpoints.run),
        "kind": checkpoints.kind,
        "missing": checkpoints.missing,
        "environment": checkpoints.environment,
    }
    with replacing(path) as beside:
        # One entry: safetensors writes several in an order of its own, and equal checkpoints must be equal files.
        beside.write_bytes(save(tensors, metadata={"provenance": json.dumps(header)}))


def load_checkpoints(path: Path, *, device: torch.device, steps: list[int] | None = None) -> Checkpoints:
    """Read a file of checkpoints onto ``device``.

    Args:
        path: written by ``save_checkpoints``.
        device: where the tensors go.
        steps: read only these; None for all.
    """
    with safe_open(path, framework="pt", device=str(device)) as file:
        header = json.loads(file.metadata()["provenance"])
        present = zip(file.get_tensor("steps").tolist(), file.get_tensor("learning_rates").tolist(), strict=True)
        snapshots = [
            Snapshot(step, file.get_tensor(f"weights.{index}"), file.get_tensor(f"buffers.{index}"), learning_rate)
            for index, (step, learning_rate) in enumerate(present)
            if steps is None or step in steps
        ]
    return Checkpoints(
        run=Run(**header["run"]),
        kind=header["kind"],
        snapshots=snapshots,
        missing={int(step): reason for step, reason in header["missing"].items()},
        environment=header["environment"],
    )


class ChunkWriter:
    """Writes each chunk of a run's planned checkpoints as soon as it is whole, so that one chunk is held at a time.

    Args:
        run: the settings.
        chunks: the planned steps of each chunk.
        paths: a file for each chunk.
        environment: versions, device, threads.
        written: called with each file that was written.
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
        """Take the next planned snapshot; a run that goes on from a saved state may hand over its first one again."""
        if snapshot.step <= self._latest:
            return
        self._latest = snapshot.step
        self._held.append(snapshot)
        while self._open and set(self._open[0][0]) <= {held.step for held in self._held}:
            self._write({})

    def close(self, reason: str) -> None:
        """Write the chunks that are left; their planned steps that are missing are so because of ``reason``."""
        while self._open:
            reached = {held.step for held in self._held}
            self._write({step: reason for step in self._open[0][0] if step not in reached})

    def _write(self, missing: Mapping[int, str]) -> None:
        _, path = self._open.pop(0)
        save_checkpoints(Checkpoints(self._run, "planned", self._held, missing, self._environment), path)
        self._written(path)
        self._held = []
