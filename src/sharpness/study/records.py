"""What the table of a measurement holds, and whether one that is read is whole and what a study asks for.

Standard library only: planning reads tables too.
"""

from __future__ import annotations

import csv
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sharpness.study.identity import MADE_BY, NOTHING, PLACE, PLACE_IN_A_HISTORY, SIZE, cells_digest
from sharpness.study.measurement import Column, finite, is_finite, is_lost, measurement, required

# What a history has of an epoch.
_HISTORY = {
    "training_loss": Column("on the first training examples, never augmented", "nats", finite=True),
    "validation_loss": Column("on the validation split", "nats"),
    "validation_accuracy": Column(
        "fraction of the validation split that is classified rightly; empty if the loss is of no classes"
    ),
    "test_accuracy": Column("fraction of the test split; at the best and the last epoch only"),
    "learning_rate_now": Column("of the epoch that ended: the run's own, cut and raised as its schedule says"),
    "distance": Column("of the weights from those at initialisation", "of the weights"),
    "num_direction_products": Column("Hessian-vector products spent on directions since the row before"),
    "direction_residual": Column("the largest of these directions", optional=True),
    "direction_trace": Column(
        "sum of the curvatures along the last directions, on the examples on which they were found",
        "nats / weight²",
        optional=True,
    ),
    "direction_trace_elsewhere": Column("the same on other training examples", "nats / weight²", optional=True),
    "direction_trace_error": Column("its standard error over chunks of these", "nats / weight²", optional=True),
}
# By which columns one row of a checkpoint, or of a history, is told from the others. Of a density, eigenvalues may be
# equal in every digit; what the user's own code measures may have any rows.
TOLD_BY: Mapping[str, Sequence[str]] = {
    "history": (),
    "spectrum": ("which", "rank"),
    "slices": ("k", "distance"),
    "steps": ("direction", "alpha", "batch"),
    "variants": ("start_step",),
    "gradients": (),
    "gradient_step": (),
}
_OF_A_CHECKPOINT = ("experiment", "grid", "run", "settings", "checkpoint", "step", "epoch")


class RecordError(ValueError):
    """A table is damaged, or not what the study asks for; the message is a sentence that names it."""


@dataclass(frozen=True)
class Wanted:
    """The table of one run that a study asks for."""

    run: str
    measurement: str
    settings: str  # their name; of a history empty
    digest: str  # of their values
    steps: Sequence[int]  # at which there must be rows, of a history the epochs; none: the best and the last checkpoint
    data: str  # the run's data set
    training: str  # the stage that trains the run
    may_stop: bool  # whether the run may end before its last epoch without having diverged

    def words(self, runs: Sequence[str]) -> str:
        """Short, for a command line that names the runs and the measurement once."""
        of_run = f"{runs.index(self.run)} {shlex.quote(self.data)} {self.training} {int(self.may_stop)}"
        return f"{of_run} {self.settings or '-'} {self.digest} {_in_ranges(self.steps)}".strip()

    @classmethod
    def of(cls, words: str, runs: Sequence[str], measurement: str) -> Wanted:
        """Parse the output of ``words``."""
        run, data, training, may_stop, settings, digest, *ranges = shlex.split(words)
        steps = _from_ranges(ranges)
        return cls(runs[int(run)], measurement, settings.strip("-"), digest, steps, data, training, may_stop == "1")


class Origins:
    """By which code, and of which data, the tables of a study were computed: by one each."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, object]] = {}

    def add(
        self,
        rows: Iterable[Mapping[str, str]],
        place: object,
        *,
        measurement: str,
        data: str,
        training: str,
        own_code: Sequence[str] = (),
    ) -> None:
        """Take rows of a table.

        Args:
            rows: of runs on one data set that one stage trained.
            place: names the table.
            measurement: what it holds.
            data: the data set.
            training: the stage.
            own_code: what of the user's own had a part in them, as the study names it.

        Raises:
            RecordError: a table before had another code of the same stage, another torch or other data.
        """
        stage = training if measurement == "history" else measurement
        for row in rows:
            self._add(f"code of the stage {stage}", row["code"], place)
            self._add("torch", row["torch"].partition("+")[0], place)
            # Tables of an older version do not say these.
            if "data_digest" in row:
                self._add(f"data set {data}", row["data_digest"], place)
            if "trained_by" in row:
                self._add(f"code of the stage {training}", row["trained_by"], place)
            if own_code:
                self._add(f"code of {', '.join(own_code)}", row.get("own_code", ""), place)

    def _add(self, what: str, value: str, place: object) -> None:
        before, where = self._seen.setdefault(what, (value, place))
        if before != value:
            raise RecordError(
                f"{where} was computed with the {what} {before}, {place} with {value}: a study has one of them; remove "
                "the results of the other, and they are made anew"
            )


def training_stage(gamma: float, gamma_outside: float) -> str:
    """Name the stage that trains a run: ``train`` for plain SGD, which needs no eigenvectors."""
    return "train" if (gamma, gamma_outside) == (1, 1) else "train_nudged"


def columns_of(name: str) -> Mapping[str, Column]:
    """Return the columns of a measurement, or of a history."""
    return _HISTORY if name == "history" else measurement(name).columns


def read_rows(path: Path, measurement: str) -> list[dict[str, str]]:
    """Read the rows of a table, as text.

    Raises:
        RecordError: it is empty, cut short, lacks a column, has a row twice, a number in it is none and its run has
            not diverged, or a cell is not as it was written.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = [*csv.reader(file, strict=True)] or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise RecordError(f"{path} is damaged or no table ({error}): {_ADVICE}") from None
    if not header:
        raise RecordError(f"{path} is empty: {_ADVICE}")
    if header[-1] == NOTHING and not lines:
        return []
    columns = columns_of(measurement)
    place = PLACE_IN_A_HISTORY if measurement == "history" else PLACE
    for column in (*place, *required(columns), *MADE_BY, SIZE):
        if column not in header and not (column == "stopped" and "experiment" in header):
            raise RecordError(f"{path} lacks the column {column}: {_ADVICE}")
    rows = [dict(zip(header, line, strict=False)) for line in lines if len(line) == len(header)]
    sizes = {row[SIZE] for row in rows}
    size, _, digest = min(sizes, default="").partition(" ")
    if len(rows) < len(lines) or len(sizes) != 1 or size != f"{len(rows)}x{len(header)}":
        told = f", not {size} as when it was written" if rows else ""
        raise RecordError(f"{path} is not whole: {len(lines)} rows of {len(header)} columns{told}: {_ADVICE}")
    for number, row in enumerate(rows, start=2):
        if "True" not in (row["diverged"], row.get("stopped")) and is_lost(row, columns):
            found = next(name for name in finite(columns) if not is_finite(row[name]))
            raise RecordError(
                f"{path}, line {number}: {found} is {row[found] or 'empty'}, and nothing says that the run diverged: "
                f"{_ADVICE}"
            )
    if measurement in TOLD_BY:
        _check_rows_differ(rows, (*_OF_A_CHECKPOINT, *TOLD_BY[measurement]), path)
    # An older version wrote no digest.
    if digest and digest != cells_digest(rows, header):
        raise RecordError(f"{path} was edited since it was written: {_ADVICE}")
    return rows


def _check_rows_differ(rows: Iterable[Mapping[str, str]], columns: Sequence[str], path: Path) -> None:
    """Check that no two rows are of the same: where a row stands twice, another may have been lost."""
    lines: dict[tuple[str, ...], int] = {}
    for number, row in enumerate(rows, start=2):
        key = tuple(row.get(column, "") for column in columns)
        if key in lines:
            told = ", ".join(f"{column} {value}" for column, value in zip(columns, key, strict=True) if value)
            raise RecordError(f"{path}, lines {lines[key]} and {number}: both are of {told}: {_ADVICE}")
        lines[key] = number


def check(rows: Sequence[Mapping[str, str]], wanted: Wanted, path: Path) -> None:
    """Check that the table of a run is the one that a study asks for.

    Raises:
        RecordError: it is of another run or other settings, or lacks a step.
    """
    for run in {row["run"] for row in rows} - {wanted.run}:
        raise RecordError(f"{path} is of the run {run}, not of {wanted.run}: {_ADVICE}")
    name = f"{wanted.measurement}.{wanted.settings}" if wanted.settings else "evaluation_examples, evaluation_epochs"
    if any(row["settings_digest"] != wanted.digest or row.get("settings", "") != wanted.settings for row in rows):
        raise RecordError(f"{path} was measured with other settings than the study's {name}: {_ADVICE}")
    if different := differing(rows, wanted):
        raise RecordError(f"{path} {different}: {_ADVICE}")


def differing(rows: Sequence[Mapping[str, str]], wanted: Wanted) -> str:
    """In words, which steps, epochs or ends are planned and absent before the run ended, or present and not planned."""
    if not wanted.steps:
        absent = [end for end in ("best", "last") if end not in {row["checkpoint"] for row in rows}]
        return f"lacks the checkpoint {', '.join(absent)}" if absent else ""
    what = "epoch" if wanted.measurement == "history" else "step"
    present = {_step(row, what) for row in rows}
    end = min((_step(row, what) for row in rows if _is_end(row)), default=math.inf)
    if "stopped" not in rows[-1] and wanted.may_stop:
        end = min(end, max(present))  # it may have stopped there
    absent = [str(step) for step in wanted.steps if step not in present and step < end]
    if absent:
        return f"lacks the {what}s {', '.join(absent)}, which the study plans"
    if beyond := sorted(present - set(wanted.steps) - {end}):
        return f"has the {what}s {', '.join(map(str, beyond))}, which the study does not plan"
    return ""


_ADVICE = "remove it, and it is made anew"


def _step(row: Mapping[str, str], column: str) -> int:
    """At which step, or epoch; the steps of a variant are counted from its checkpoint on."""
    return int(float(row.get("start_step") or row[column]))


def _is_end(row: Mapping[str, str]) -> bool:
    """Whether the run diverged or stopped at this row; a variant that diverges does not end its run."""
    return row.get("stopped") == "True" or (row.get("diverged") == "True" and not row.get("start_step"))


def _in_ranges(steps: Sequence[int]) -> str:
    """Ascending numbers, those at equal distances as "first-last/distance"."""
    ranges, begin = [], 0
    while begin < len(steps):
        end = begin + 1
        distance = steps[end] - steps[begin] if end < len(steps) else 1
        while end < len(steps) and steps[end] - steps[end - 1] == distance:
            end += 1
        ranges.append(f"{steps[begin]}-{steps[end - 1]}/{distance}")
        begin = end
    return " ".join(ranges)


def _from_ranges(ranges: Iterable[str]) -> list[int]:
    numbers = [tuple(map(int, text.replace("/", "-").split("-"))) for text in ranges]
    return [step for first, last, distance in numbers for step in range(first, last + 1, distance)]
