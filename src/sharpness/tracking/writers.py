"""Where the records of a tracker go: a CSV file, TensorBoard, or a function."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sharpness.tracking.record import CurvatureRecord

Write = Callable[[CurvatureRecord], object]


@runtime_checkable
class ScalarWriter(Protocol):
    """TensorBoard's ``SummaryWriter``, or another with its method."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any: ...


Target = str | os.PathLike[str] | ScalarWriter | Write


def writers(to: Target | Iterable[Target]) -> list[Write]:
    """Return a function for every target: a path that ends in .csv, a ``SummaryWriter``, or a function of records.

    Raises:
        TypeError: a target is none of these.
        ValueError: a path does not end in .csv.
        FileExistsError: there is such a file already.
    """
    single = isinstance(to, str | os.PathLike | ScalarWriter) or callable(to)
    targets: Iterable[Any] = [to] if single else to  # type: ignore[assignment]
    if not isinstance(targets, Iterable):
        raise TypeError(_WANTED + f"got {to!r}")
    return [_writer(target) for target in targets]


_WANTED = "to must be a path that ends in .csv, a SummaryWriter, a function of a record, or a list of these, "


def _writer(target: object) -> Write:
    if isinstance(target, str | os.PathLike):
        return _CsvWriter(Path(target))
    if isinstance(target, ScalarWriter):
        return _scalars(target)
    if not callable(target):
        raise TypeError(_WANTED + f"got {target!r}")
    return target


class _CsvWriter:
    def __init__(self, path: Path) -> None:
        if path.suffix != ".csv":
            raise ValueError(f"{path} must end in .csv; for TensorBoard, give a SummaryWriter of its folder")
        if path.exists():
            raise FileExistsError(f"{path} exists, perhaps from another training: remove it or give another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def __call__(self, record: CurvatureRecord) -> None:
        row = record.columns()
        # Closed after each row, so that a training that is killed leaves all of them.
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
            if not file.tell():
                writer.writeheader()
            writer.writerow(row)


def _scalars(writer: ScalarWriter) -> Write:
    def write(record: CurvatureRecord) -> None:
        for name, value in record.columns().items():
            if name != "step" and isinstance(value, int | float):
                writer.add_scalar(f"curvature/{name}", float(value), record.step)

    return write
