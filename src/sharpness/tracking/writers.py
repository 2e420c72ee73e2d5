"""Where the records of a tracker go: a CSV file, TensorBoard, or a function."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sharpness.runtime.files import write_table
from sharpness.tracking.record import CurvatureRecord

Write = Callable[[CurvatureRecord], object]


@runtime_checkable
class ScalarWriter(Protocol):
    """TensorBoard's ``SummaryWriter``, or another with its method."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any: ...


Target = str | os.PathLike[str] | ScalarWriter | Write


def writers(to: Target | Iterable[Target], earlier: Sequence[CurvatureRecord] = ()) -> list[Write]:
    """Return a function for every target: a path that ends in .csv, a ``SummaryWriter``, or a function of records.

    Args:
        to: one target or several.
        earlier: records of the same training before it was resumed: a file that begins with them is continued behind
            them, and any later rows are dropped.

    Raises:
        TypeError: a target is none of these.
        ValueError: a path does not end in .csv.
        FileExistsError: there is such a file already, and it does not begin with ``earlier``.
    """
    single = isinstance(to, str | os.PathLike | ScalarWriter) or callable(to)
    targets: Iterable[Any] = [to] if single else to  # type: ignore[assignment]
    if not isinstance(targets, Iterable):
        raise TypeError(_WANTED + f"got {to!r}")
    return [_writer(target, earlier) for target in targets]


_WANTED = "to must be a path that ends in .csv, a SummaryWriter, a function of a record, or a list of these, "


def _writer(target: object, earlier: Sequence[CurvatureRecord]) -> Write:
    if isinstance(target, str | os.PathLike):
        return _CsvWriter(Path(target), earlier)
    if isinstance(target, ScalarWriter):
        return _scalars(target)
    if not callable(target):
        raise TypeError(_WANTED + f"got {target!r}")
    return target


class _CsvWriter:
    def __init__(self, path: Path, earlier: Sequence[CurvatureRecord]) -> None:
        if path.suffix != ".csv":
            raise ValueError(f"{path} must end in .csv; for TensorBoard, give a SummaryWriter of its folder")
        rows = [record.columns() for record in earlier]
        if path.exists() and not _begins_with(path, rows):
            told = "does not begin with the resumed records" if rows else "exists, perhaps from another training"
            raise FileExistsError(f"{path} {told}: remove it or give another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        if rows:
            write_table(rows, path)
        self._path = path

    def __call__(self, record: CurvatureRecord) -> None:
        row = record.columns()
        # Closed after each row, so that a training that is killed leaves all of them.
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
            if not file.tell():
                writer.writeheader()
            writer.writerow(row)


def _begins_with(path: Path, rows: Sequence[Mapping[str, object]]) -> bool:
    """Whether a file has these rows, one at least, and perhaps more behind them."""
    with path.open(newline="", encoding="utf-8") as file:
        found = list(itertools.islice(csv.DictReader(file), len(rows)))
    expected = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    return bool(rows) and found == expected


def _scalars(writer: ScalarWriter) -> Write:
    def write(record: CurvatureRecord) -> None:
        for name, value in record.columns().items():
            if name != "step" and isinstance(value, int | float):
                writer.add_scalar(f"curvature/{name}", float(value), record.step)

    return write
