"""The table of a study's runs: every field of each, once. All other tables name a run by its column ``run``."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import Field, astuple, fields
from io import StringIO
from typing import Any

from sharpness.study.run import Run

RUNS = "runs"  # the name of the table
FIELDS = tuple(field.name for field in fields(Run))


def as_csv(runs: Iterable[Run]) -> str:
    """One row per run: its name and its fields; a list as "1 50", an empty cell for null and for an empty list."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *FIELDS])
    writer.writerows([run.name, *map(_cell, fields(run), astuple(run))] for run in runs)
    return text.getvalue()


def _cell(field: Field[Any], value: Any) -> Any:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    # A study's 1 is the 1.0 of a run that was trained.
    return float(value) if value is not None and str(field.type).startswith("float") else value
