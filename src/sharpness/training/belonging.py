"""Check that checkpoints belong to the run, training, data set and network of the job that reads them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from sharpness.runtime.sealed import DamagedError
from sharpness.training.checkpoints import Checkpoints

_ADVICE = "remove it, and the run is trained anew"


def check_training(checkpoints: Checkpoints, path: Path, *, run: str, record: Path) -> None:
    """Check that checkpoints belong to a run, and to the training whose record lies beside them.

    Args:
        checkpoints: as loaded.
        path: their file.
        run: name of the run.
        record: the file that training writes last.

    Raises:
        DamagedError: they belong to another run, kind or training.
    """
    if checkpoints.run.name != run:
        raise DamagedError(f"{path} is of the run {checkpoints.run.name}, not of {run}: {_ADVICE}")
    kind = path.stem if path.stem in ("best", "last") else "planned"
    if checkpoints.kind != kind:
        raise DamagedError(f"{path} holds {checkpoints.kind} checkpoints in place of {kind} ones: {_ADVICE}")
    recorded = _read(record)
    if recorded["run"] != run:
        raise DamagedError(f"{record} is of the run {recorded['run']}, not of {run}: {_ADVICE}")
    for name, ours in recorded["environment"].items():
        theirs = checkpoints.environment.get(name)
        if theirs != ours:
            raise DamagedError(
                f"{path} is of another training of {run} than {record}: {name} is {theirs!r}, there {ours!r}: {_ADVICE}"
            )


def check_steps(checkpoints: Checkpoints, path: Path, steps: Collection[int]) -> None:
    """Check that the file has every planned step, or the reason why it is missing.

    Raises:
        DamagedError: a step is missing without a reason.
    """
    known = {snapshot.step for snapshot in checkpoints.snapshots} | set(checkpoints.missing)
    if lacking := sorted(set(steps) - known):
        raise DamagedError(f"{path} lacks the steps {', '.join(map(str, lacking))}, which are planned: {_ADVICE}")


def check_data(checkpoints: Checkpoints, path: Path, *, digest: str, data: Path) -> None:
    """Check that checkpoints were trained on the data set in ``data``, which has this digest.

    Raises:
        DamagedError: they were trained on another data set.
    """
    theirs = checkpoints.environment.get("data_digest")
    if theirs != digest:
        raise DamagedError(
            f"{path} was trained on another data set ({theirs}) than {data} holds now ({digest}): put that file back, "
            "or remove the results of this study"
        )


def check_network(checkpoints: Checkpoints, path: Path, start: tuple[Tensor, Tensor] | None) -> None:
    """Check that weights and buffers have the shapes and dtypes of those before training.

    Raises:
        DamagedError: they have not.
    """
    for snapshot in checkpoints.snapshots:
        found = snapshot.weights, snapshot.buffers
        for name, ours, theirs in zip(("weights", "buffers"), start or found, found, strict=True):
            if (theirs.shape, theirs.dtype) != (ours.shape, ours.dtype):
                raise DamagedError(
                    f"{path} has {name} {list(theirs.shape)} of {theirs.dtype}, its network {list(ours.shape)} of "
                    f"{ours.dtype}: {_ADVICE}"
                )
        moment = snapshot.second_moment
        if moment is not None and moment.shape != snapshot.weights.shape:
            raise DamagedError(
                f"{path} has second moments {list(moment.shape)}, weights {list(found[0].shape)}: {_ADVICE}"
            )


def _read(record: Path) -> dict[str, Any]:
    """Read the record of a training.

    Raises:
        DamagedError: the file is damaged, or not a record.
    """
    try:
        found = yaml.safe_load(record.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise DamagedError(f"{record} is damaged ({' '.join(str(error).split())}): {_ADVICE}") from error
    if not isinstance(found, dict) or "run" not in found or not isinstance(found.get("environment"), dict):
        raise DamagedError(f"{record} does not say what trained which run: {_ADVICE}")
    return found
