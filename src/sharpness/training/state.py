"""The saved state of a training run: all that it needs to resume bit for bit.

It lives beside the outputs of the run, because Snakemake deletes those before it runs a job again. Runs that differ
only in length have sibling folders, so that a longer run can resume from the state of a shorter one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharpness.runtime import closure, own
from sharpness.runtime.files import replacing
from sharpness.runtime.sealed import open_sealed, save_sealed
from sharpness.study.run import Run
from sharpness.training.checkpoints import Checkpoints, Snapshot, load_checkpoints, save_checkpoints, steps_in
from sharpness.training.loop import Trainer
from sharpness.training.progress import Directions, Patience, Progress, Record

_log = logging.getLogger(__name__)

_NAME = "state.safetensors"
_ENTRY = "state"
_RULE = "optimizer."  # before the names of its vectors
# What a saved checkpoint must share with the run that resumes from it, on any machine.
_SHARED = ("code", "own_code", "torch", "data_digest")


class StateError(Exception):
    """A saved state cannot be used; the message says why."""


def identity(
    run: Run, *, num_evaluated: int, evaluation_epochs: Collection[int], data: Path, stage: str
) -> dict[str, Any]:
    """Return what must be unchanged for a run to resume bit for bit, by the name used in messages.

    Args:
        run: the settings; all except its length matter.
        num_evaluated: number of training examples on which the training loss is evaluated.
        evaluation_epochs: the epochs after which it is evaluated.
        data: the prepared data set.
        stage: the module that trains the run; its code and that of its imports matter.
    """
    fields = run.without_epochs.fields()
    with data.open("rb") as file:
        contents = hashlib.file_digest(file, "sha256")
    return {
        "run": json.loads(json.dumps(fields)),
        "version of the code": closure.version(stage),
        "version of torch": torch.__version__,
        "data set": contents.hexdigest(),
        "evaluation_examples": num_evaluated,
        "evaluation_epochs": sorted(evaluation_epochs),
        # Rates that end with the run are others in a run of another length.
        **({"number of epochs": run.epochs} if run.depends_on_length else {}),
        **({"version of your code": own.version(*run.own_code)} if run.own_code else {}),
    }


@dataclass(frozen=True)
class StateFolder:
    """The folder with a run's state and the planned snapshots taken so far.

    Each snapshot is a file of its own until the file of its chunk is written, which a hard link then repaths.
    """

    folder: Path
    identity: Mapping[str, Any]
    environment: Mapping[str, str]  # versions, device, threads

    def save(self, progress: Progress) -> None:
        """Replace the saved state."""
        header, tensors = _packed(progress)
        header |= {"identity": self.identity, "environment": self.environment}
        save_sealed(tensors, header, self.folder / _NAME, entry=_ENTRY)

    def keep(self, run: Run, snapshot: Snapshot) -> None:
        """Save a planned snapshot."""
        path = self._kept / f"{snapshot.step}.safetensors"
        save_checkpoints(Checkpoints(run, "planned", [snapshot], {}, self.environment), path)

    def link(self, chunk: Path) -> None:
        """Replace the snapshots of a chunk by a link to its file."""
        steps = steps_in(chunk)
        if steps:
            _link(chunk, self._kept / f"{steps[0]}-{steps[-1]}-{len(steps)}.safetensors")
            for step in steps:
                (self._kept / f"{step}.safetensors").unlink(missing_ok=True)

    def find(self, trainer: Trainer) -> tuple[Progress, list[Snapshot]] | None:
        """Return the most advanced usable state, from a run of any length, and the planned snapshots before it.

        Return None if no saved state is usable; the reason is logged.
        """
        self._remove_partial_files()
        found = []
        for path in sorted(self.folder.parent.glob(f"*/{_NAME}")):
            try:
                header = self._header(path, trainer.run)
            except (StateError, OSError, ValueError, KeyError, TypeError) as error:
                _log.warning("%s %s: training does not go on from it", path, _reason(error, path))
                continue
            if _within(header, trainer.run.epochs):
                found.append((header["epoch"], header["index"], path.parent == self.folder, path, header))
        for *_, path, header in sorted(found, key=lambda one: one[:3], reverse=True):
            try:
                snapshots = self._snapshots(path.parent, trainer, header)
                progress = _unpacked(path, header, trainer)
                self._adopt(path.parent)
            except (StateError, OSError, ValueError, KeyError, TypeError) as error:
                _log.warning("%s %s: training does not go on from it", path, _reason(error, path))
                continue
            _log.info("going on from %s: epoch %d, update %d", path, progress.epoch, progress.index)
            return progress, snapshots
        self._remove_snapshots()
        return None

    def _header(self, path: Path, run: Run) -> dict[str, Any]:
        with open_sealed(path, entry=_ENTRY) as file:
            header = file.header
        for name, ours in self.identity.items():
            theirs = header["identity"].get(name)
            if theirs != ours:
                names = f" ({Run(**theirs).name} in place of {Run(**ours).name})" if name == "run" else ""
                raise StateError(f"is the state of another {name}{names}")
        if header["environment"] != self.environment:
            _log.warning("%s was made elsewhere (%s): the last bits may differ", path, header["environment"])
        if header["ended"] == "finished" and header["epoch"] <= run.epochs:
            header["ended"] = None  # it was the end of a shorter run
        return header

    def _snapshots(self, folder: Path, trainer: Trainer, header: Mapping[str, Any]) -> list[Snapshot]:
        step = (header["epoch"] - 1) * trainer.run.steps_per_epoch + header["index"]
        paths = {kept: path for path in (folder / "kept").glob("[0-9]*.safetensors") for kept in steps_in(path)}
        snapshots = []
        for planned in sorted(trainer.planned_steps):
            if planned > step:
                break
            if planned not in paths:
                if header["ended"] == "diverged" and planned == step:
                    break  # the run diverged at this step
                raise StateError(f"lacks the checkpoint of step {planned}")
            kept = load_checkpoints(paths[planned], device=trainer.weights.device, steps=[planned])
            self._check_kept(kept, paths[planned], trainer)
            snapshots += kept.snapshots
        return snapshots

    def _check_kept(self, kept: Checkpoints, path: Path, trainer: Trainer) -> None:
        if dataclasses.replace(kept.run, epochs=trainer.run.epochs) != trainer.run:
            raise StateError(f"is of {trainer.run.name}, but {path} beside it is of {kept.run.name}")
        for name in _SHARED:
            ours, theirs = self.environment.get(name), kept.environment.get(name)
            if ours != theirs:
                raise StateError(f"has beside it {path}, of another {name} ({theirs} in place of {ours})")
        for snapshot in kept.snapshots:
            _check_tensor("weights", snapshot.weights, trainer.weights)
            _check_tensor("buffers", snapshot.buffers, trainer.buffers)
            if snapshot.second_moment is not None:
                _check_tensor("second moments", snapshot.second_moment, trainer.weights)

    def _adopt(self, other: Path) -> None:
        """Replace this run's snapshots by links to those of a run of another length."""
        if other == self.folder:
            return
        self._remove_snapshots()
        for path in (other / "kept").glob("[0-9]*.safetensors"):
            _link(path, self._kept / path.name)

    def _remove_snapshots(self) -> None:
        """Remove snapshots that belong to no usable state."""
        for path in self._kept.glob("[0-9]*.safetensors"):
            path.unlink()

    def _remove_partial_files(self) -> None:
        """Remove files that were being written when the job was killed."""
        for folder in (self.folder, self._kept):
            for path in folder.glob(".*.safetensors"):
                path.unlink()

    @property
    def _kept(self) -> Path:
        return self.folder / "kept"


def _within(header: Mapping[str, Any], epochs: int) -> bool:
    """Whether a run of ``epochs`` epochs passes through the state."""
    at_the_end = (header["epoch"], header["index"]) == (epochs + 1, 0) and header["ended"] != "diverged"
    return header["epoch"] <= epochs or at_the_end


def _packed(progress: Progress) -> tuple[dict[str, Any], dict[str, Tensor]]:
    descent, directions = progress.descent, progress.directions
    tensors = {"weights": descent.weights, "buffers": descent.buffers, "largest_loss": descent.largest_loss}
    if descent.velocity is not None:
        tensors["velocity"] = descent.velocity
    if descent.rule is not None:
        tensors |= {f"{_RULE}{name}": tensor for name, tensor in descent.rule.state.items()}
    if directions is not None:
        tensors["directions"] = directions.rows
    if progress.shifts is not None:
        tensors["shifts"] = progress.shifts.get_state()
    snapshots = {snapshot.step: snapshot for snapshot in (progress.best, progress.last)}
    for step, snapshot in snapshots.items():
        tensors[f"{step}.weights"], tensors[f"{step}.buffers"] = snapshot.weights, snapshot.buffers
        if snapshot.second_moment is not None:
            tensors[f"{step}.second_moment"] = snapshot.second_moment
    header = {
        "epoch": progress.epoch,
        "index": progress.index,
        "ended": progress.ended,
        "learning_rate": descent.learning_rate,
        "num_updates": 0 if descent.rule is None else descent.rule.num_updates,
        "history": [dataclasses.asdict(record) for record in progress.history],
        "best": (progress.best.step, progress.best.learning_rate),
        "last": (progress.last.step, progress.last.learning_rate),
        "plateau": dataclasses.asdict(progress.plateau),
        "stop": dataclasses.asdict(progress.stop),
        "directions": None if directions is None else _numbers_of(directions),
        "since the last row": (progress.direction_products, progress.direction_residual),
    }
    return header, tensors


def _numbers_of(directions: Directions) -> dict[str, Any]:
    return {
        field.name: getattr(directions, field.name) for field in dataclasses.fields(directions) if field.name != "rows"
    }


def _unpacked(path: Path, header: Mapping[str, Any], trainer: Trainer) -> Progress:
    with open_sealed(path, entry=_ENTRY) as file:
        # A run of another length may be training, and have saved again.
        if (file.header["epoch"], file.header["index"]) != (header["epoch"], header["index"]):
            raise StateError("was replaced while it was read")
        tensors = {name: file.tensor(name, trainer.weights.device) for name in file.digests}
    _check_tensor("weights", tensors["weights"], trainer.weights)
    _check_tensor("buffers", tensors["buffers"], trainer.buffers)
    descent = trainer.descent()
    descent.weights, descent.buffers = tensors["weights"], tensors["buffers"]
    descent.largest_loss, descent.velocity = tensors["largest_loss"], tensors.get("velocity")
    descent.learning_rate = header["learning_rate"]
    if descent.rule is not None:
        descent.rule.num_updates = header["num_updates"]
        descent.rule.state = {
            name.removeprefix(_RULE): tensor for name, tensor in tensors.items() if name.startswith(_RULE)
        }
    if header["index"] or header["epoch"] > 1:
        descent.rate_factor = descent.factor_at(
            (header["epoch"] - 1) * trainer.run.steps_per_epoch + header["index"] - 1
        )
    shifts = None
    if "shifts" in tensors:
        shifts = torch.Generator()
        shifts.set_state(tensors["shifts"].cpu())

    def snapshot(name: str) -> Snapshot:
        step, learning_rate = header[name]
        second_moment = tensors.get(f"{step}.second_moment")
        return Snapshot(step, tensors[f"{step}.weights"], tensors[f"{step}.buffers"], learning_rate, second_moment)

    directions = header["directions"]
    direction_products, direction_residual = header["since the last row"]
    return Progress(
        descent=descent,
        history=[Record(**record) for record in header["history"]],
        best=snapshot("best"),
        last=snapshot("last"),
        plateau=Patience(**header["plateau"]),
        stop=Patience(**header["stop"]),
        epoch=header["epoch"],
        index=header["index"],
        directions=None if directions is None else Directions(tensors["directions"], **directions),
        direction_products=direction_products,
        direction_residual=direction_residual,
        shifts=shifts,
        ended=header["ended"],
    )


def _check_tensor(name: str, found: Tensor, expected: Tensor) -> None:
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        kinds = (f"{list(tensor.shape)} in {str(tensor.dtype)[6:]}" for tensor in (found, expected))
        raise StateError("has {name} of {}, the run's network {}".format(*kinds, name=name))


def _link(source: Path, target: Path) -> None:
    """Hard-link ``source`` to ``target``; copy it if the file system has no links."""
    if target.exists() and target.samefile(source):
        return
    with replacing(target) as beside:
        try:
            os.link(source, beside)
        except OSError:
            shutil.copyfile(source, beside)


def _reason(error: Exception, path: Path) -> str:
    words = str(error).removeprefix(f"{path} ")
    return words if isinstance(error, StateError) else f"cannot be read ({words})"
