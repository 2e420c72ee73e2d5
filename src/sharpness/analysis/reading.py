"""Tables that are read: whole, with the columns that they are to have, of one origin, and joined with their runs."""

from __future__ import annotations

import csv
from collections.abc import Container, Iterable
from io import StringIO
from pathlib import Path

import pandas as pd

from sharpness.study.identity import NOTHING, SIZE
from sharpness.study.records import Origins, RecordError, read_rows, training_stage
from sharpness.study.runs import FIELDS, NEUTRAL_COLUMNS

# Hexadecimal digits that may look like a number, and what may be empty everywhere.
_TEXTS = ("run", "code", "trained_by", "settings_digest", "data_digest", "torch", "kernels", "learning_rate_epochs")


def read_table(path: Path) -> pd.DataFrame:
    """A table with the columns of its file.

    Raises:
        RecordError: it is empty or cut short.
    """
    try:
        return pd.read_csv(path, dtype=dict.fromkeys(_TEXTS, str))
    except ValueError as error:  # pandas' own errors, and text that is none
        raise RecordError(f"{path} is damaged or empty ({' '.join(str(error).split())})") from None


def read_runs(path: Path, plan: str = "") -> pd.DataFrame:
    """The table of a study's runs: the name of each and its fields; a batch size is a number or "full".

    Args:
        path: the table.
        plan: what ``sharpness.study.runs`` makes of the runs that the study plans; empty: they are not at hand.

    Raises:
        RecordError: it is damaged, lacks a field or a run, or has another value of a field than the plan.
    """
    table = read_table(path)
    if plan:
        _check_as_planned(path, plan)
    return _as_runs(table, path)


def _check_as_planned(path: Path, plan: str) -> None:
    """Check that every run that a study plans has a row in the table of runs, with the fields that the plan has."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    names = [row.get("run") for row in rows]
    for planned in csv.DictReader(StringIO(plan)):
        run = planned["run"]
        if names.count(run) != 1:
            told = f"has the run {run} {names.count(run)} times" if run in names else f"lacks the run {run}"
            raise RecordError(f"{path} {told}, which the study plans once: {_ADVICE}")
        row = rows[names.index(run)]
        for field, value in planned.items():
            _require(path, row, field)
            if row[field] != value:
                raise RecordError(
                    f"{path} has the {field} {row[field] or 'none'} for the run {run}, the study {value or 'none'}: "
                    f"{_ADVICE}"
                )


def planned_runs(text: str) -> pd.DataFrame:
    """The same of the runs in ``text``, which is what ``sharpness.study.runs`` makes of them."""
    return _as_runs(pd.read_csv(StringIO(text), dtype=dict.fromkeys(_TEXTS, str)), Path("the plan"))


def _as_runs(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    table = table.assign(**{field: value for field, value in NEUTRAL_COLUMNS.items() if field not in table})
    _require(path, table, "run", *FIELDS)
    sizes = [size if size == "full" else int(size) for size in table["batch_size"]]
    return table.assign(
        learning_rate_epochs=table["learning_rate_epochs"].fillna(""), batch_size=pd.Series(sizes, dtype=object)
    )


def read_measured(path: Path, measurement: str, runs: pd.DataFrame) -> pd.DataFrame:
    """What was measured of some runs, with the fields of each run behind its name.

    Args:
        path: the table.
        measurement: what it holds.
        runs: the study's, as ``read_runs`` reads them.

    Raises:
        RecordError: it is empty, cut short, lacks a column, or has a run that is none of the study's.
    """
    table = read_table(path)
    # Published by an older version, a table has none of these.
    if {SIZE, NOTHING, "kernels", "data_digest", "settings_digest"} & set(table):
        read_rows(path, measurement)
    _require(path, table, "run", "diverged")
    return with_runs(table, runs, path)


def with_runs(table: pd.DataFrame, runs: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Each row with the fields of its run.

    Args:
        table: columns run and those that were measured.
        runs: columns run and the fields of each.
        path: that of the table, for messages.

    Raises:
        RecordError: a run is unknown, or the table has a field of a run itself.
    """
    if own := [field for field in FIELDS if field in table]:
        raise RecordError(f"{path} has the column {own[0]}, which belongs to the table of runs: {_ADVICE}")
    if unknown := sorted(set(table["run"]) - set(runs["run"])):
        raise RecordError(f"{path} has the run {unknown[0]}, which the table of runs has not: {_ADVICE}")
    joined = table.merge(runs, how="left", on="run", validate="many_to_one")
    before = list(table.columns[: table.columns.get_loc("run") + 1])
    joined = joined[[*before, *FIELDS, *table.columns[len(before) :]]]
    return joined.assign(batch_size=joined["batch_size"].infer_objects())


_ADVICE = "remove it, and it is made anew"


def _require(path: Path, table: Container[str] | pd.DataFrame, *columns: str) -> None:
    for column in columns:
        if column not in table:
            raise RecordError(f"{path} lacks the column {column}: {_ADVICE}")


def check_origins(tables: Iterable[tuple[str, Path, pd.DataFrame]]) -> None:
    """Check that the tables of a study were computed by one code of each stage, one torch, and of one data set.

    Args:
        tables: measurement, file and content of each, joined with its runs; those of an older version do not say
            enough and pass.

    Raises:
        RecordError: two were not.
    """
    origins = Origins()
    for measurement, path, table in tables:
        if SIZE not in table:
            continue
        said = table[[column for column in ("code", "torch", "data_digest", "trained_by") if column in table]]
        for (data, *factors), rows in said.groupby([table["data"], table["gamma"], table["gamma_outside"]], sort=False):
            training = training_stage(*factors)
            told = rows.drop_duplicates().astype(str).to_dict("records")
            origins.add(told, path, measurement=measurement, data=data, training=training)
