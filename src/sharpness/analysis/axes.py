"""The axis of each grid in a table: what its runs differ in, as a column of numbers or words."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sharpness.study.runs import FIELDS, NEUTRAL_COLUMNS
from sharpness.study.varied import Axis, axes_of, axis_of

# Where several grids are shown beside one another, these come first.
_FIRST = ("learning_rate", "batch_size", "gamma")


def grid_axes(rows: pd.DataFrame) -> dict[str, Axis]:
    """The axis of each grid, in the order in which grids are shown: as in the table, those of the poster first.

    Args:
        rows: of one experiment; columns grid, run and the run's fields.
    """
    found = {grid: axis_of(grid, records(of_grid)) for grid, of_grid in rows.groupby("grid", sort=False)}
    return dict(sorted(found.items(), key=lambda item: _place(item[1])))


def _place(axis: Axis) -> int:
    return _FIRST.index(axis.field) if axis.field in _FIRST else len(_FIRST)


def with_axis(rows: pd.DataFrame, axis: Axis) -> pd.DataFrame:
    """The rows with the axis' column, which has its value for each run."""
    if axis.column in rows:
        return rows
    values = {record["run"]: axis.value(record) for record in records(rows)}
    return rows.assign(**{axis.column: rows["run"].map(values)})


def differing_in_words(run: pd.DataFrame, table: pd.DataFrame, *, beside: tuple[str, ...]) -> str:
    """``depth 2, optimizer adam``: in what else the runs of a table differ, and what this one has there.

    Args:
        run: the rows of one run.
        table: those of all.
        beside: fields that are told in other ways.
    """
    (record, *_) = records(run)
    found = [axis for axis in axes_of(records(table)) if axis.field not in beside]
    return ", ".join(f"{axis.words} {in_text(axis.value(record))}" for axis in found)


def in_text(value: Any) -> str:
    """A value of an axis as a person reads it."""
    return value if isinstance(value, str) else f"{value:g}"


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The fields of each run, once; those that a table of an older version lacks are neutral."""
    known = [field for field in FIELDS if field in rows]
    found = rows.drop_duplicates("run")[["run", *known]].to_dict("records")
    neutral = {**dict.fromkeys(FIELDS), **_PLAIN, **NEUTRAL_COLUMNS}
    return [{**neutral, **record} for record in found]


# Of tables that do not have these columns: as plain SGD has them.
_PLAIN = {"gamma": 1.0, "gamma_outside": 1.0, "momentum": 0.0, "learning_rate_factor": 0.0, "learning_rate_epochs": ""}
