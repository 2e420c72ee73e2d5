"""Measure one part of a run's checkpoints, and write one table."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from sharpness.measurements.landscape import Landscape, landscape_of
from sharpness.runtime import closure, own
from sharpness.runtime.device import choose_device, environment
from sharpness.runtime.files import write_table
from sharpness.study.identity import MADE_BY, NOTHING, PLACE, settings_digest, sized
from sharpness.study.measurement import Measurement, code_of, is_lost, name_of, required
from sharpness.study.run import Run
from sharpness.training import belonging
from sharpness.training.checkpoints import Checkpoints, Snapshot, load_checkpoints

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One part of a run's checkpoints, to be measured by one job."""

    data: Path  # the prepared data set
    checkpoints: list[Path]
    steps: list[int]  # those to be measured; none means all
    before: list[Path]  # the file with the checkpoint before the first one, for a measurement that looks back
    steps_before: list[int]  # that checkpoint's
    run: str  # whose checkpoints they are, by name
    record: Path  # which its training left beside them
    kept: list[Path]  # folders with eigenvectors that spectra have kept of these checkpoints and the one before
    settings_name: str  # of the settings in the study
    threads: int
    output: Path  # the table

    @property
    def vectors(self) -> Path:
        """The folder for the eigenvectors, where settings keep them."""
        return self.output.with_name(f"{self.output.stem}-vectors")


def measure(settings: Measurement, part: Part) -> None:
    """Measure every checkpoint of a part and write one table.

    Of each checkpoint it has the rows of the measurement, behind the run, settings, kind of checkpoint,
    step and epoch, and before what they were computed by. A run that diverges is a result, not a gap: the first planned
    checkpoint that it did not reach has a row without the values that would have been measured.

    Args:
        settings: the measurement.
        part: what to measure and where to write.

    Raises:
        DamagedError: a checkpoint, or what a spectrum has kept of it, is damaged, or of another run, another training
            or other data.
        closure.SourcesChangedError: the code was edited meanwhile.
    """
    device = choose_device(threads=part.threads)
    code = code_of(name_of(type(settings)))
    made_by = {"settings_digest": settings_digest(asdict(settings), settings.later), **environment(code, device)}
    # Every column in every table, also where nothing could be measured.
    empty = dict.fromkeys(required(settings.columns))
    rows: list[dict[str, object]] = []
    landscape: Landscape | None = None
    before = _checkpoint_before(part, device)
    shutil.rmtree(part.vectors, ignore_errors=True)  # by an earlier job, of what may be other weights
    if settings.keeps:
        part.vectors.mkdir(parents=True)  # also where the run reached none of the checkpoints
    for path in part.checkpoints:
        checkpoints = _checkpoints_of(part, path, device=device, steps=part.steps)
        run = checkpoints.run
        landscape = landscape or replace(
            landscape_of(run, part.data, device), vectors=part.vectors, kept=tuple(part.kept)
        )
        belonging.check_data(checkpoints, path, digest=landscape.dataset.digest, data=part.data)
        belonging.check_network(checkpoints, path, landscape.start)
        made_by |= own.made_by((*run.own_code, *settings.own_code)) | {"data_digest": landscape.dataset.digest}
        where: dict[str, object] = {"run": run.name, "settings": part.settings_name, "checkpoint": checkpoints.kind}
        where["trained_by"] = checkpoints.environment.get("code")
        for number, checkpoint in enumerate(checkpoints.snapshots, start=1):
            here = {**where, **_at(run, checkpoint.step), **empty}
            try:
                rows += _measured(settings, landscape, checkpoint, before, here)
                before = checkpoint
            except FloatingPointError as error:
                # The weights are finite, but not the curvature: as good as not reached.
                _log.warning("step %d: %s", checkpoint.step, error)
                rows.append({**here, **settings.when_diverged(), "diverged": True})
            total = len(checkpoints.snapshots)
            _log.info("measured step %d, %d of %d in %s", checkpoint.step, number, total, path.name)
        if lost := [step for step in part.steps if step in checkpoints.missing]:
            reason = checkpoints.missing[lost[0]]
            values = settings.when_diverged() if reason == "diverged" else {}
            rows.append({**where, **_at(run, lost[0]), **empty, **values, reason: True})
    closure.check_unchanged()
    # What the user's own code measures may have no rows at any checkpoint.
    names = [*PLACE, *required(settings.columns), *MADE_BY, NOTHING]
    write_table(sized({**row, **made_by} for row in rows), part.output, otherwise=names)


def _at(run: Run, step: int) -> dict[str, object]:
    return {"step": step, "epoch": step / run.steps_per_epoch, "diverged": False, "stopped": False}


def _measured(
    settings: Measurement,
    landscape: Landscape,
    checkpoint: Snapshot,
    before: Snapshot | None,
    here: Mapping[str, object],
) -> list[dict[str, object]]:
    """The rows of one checkpoint, each behind what is said of ``here``.

    Raises:
        FloatingPointError: what was measured is not finite.
    """
    rows = [{**here, **row} for row in settings.rows(landscape, checkpoint, before)]
    if any(is_lost(row, settings.columns) for row in rows if not row["diverged"]):
        raise FloatingPointError("what was measured is not finite")
    return rows


def _checkpoint_before(part: Part, device: torch.device) -> Snapshot | None:
    """The checkpoint before a part's first one, in the part before; None where there is none, or nothing looks back."""
    for path in part.before:
        for checkpoint in _checkpoints_of(part, path, device=device, steps=part.steps_before).snapshots:
            return checkpoint
    return None


def _checkpoints_of(part: Part, path: Path, *, device: torch.device, steps: list[int]) -> Checkpoints:
    """Read checkpoints of the run that a part is of; no steps means all.

    Raises:
        DamagedError: the file is damaged, of another run or of another training, or lacks a step.
    """
    checkpoints = load_checkpoints(path, device=device, steps=steps or None)
    belonging.check_training(checkpoints, path, run=part.run, record=part.record)
    belonging.check_steps(checkpoints, path, steps)
    return checkpoints
