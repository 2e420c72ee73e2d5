"""The table of a study's runs: every field of each, once. All other tables name a run by its column ``run``."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import Field, fields
from io import StringIO
from typing import Any

from sharpness.study.run import NEUTRAL, Run

RUNS = "runs"  # the name of the table
# The column of a field, where tables of measurements have one of its name.
COLUMNS = {"loss": "loss_function"}
FIELDS = tuple(COLUMNS.get(field.name, field.name) for field in fields(Run))
NEUTRAL_COLUMNS = {COLUMNS.get(field, field): value for field, value in NEUTRAL.items()}


# What the poster's claims are about: SGD or heavy ball on the cross-entropy, with no other schedule.
POSTERS_FIELDS = ("optimizer", "schedule", "loss")


def is_the_posters(run: Run) -> bool:
    """Whether the claims are about a run: it was trained as the poster's are."""
    return all(getattr(run, field) == NEUTRAL[field] for field in POSTERS_FIELDS)


def as_csv(runs: Iterable[Run]) -> str:
    """One row per run: its name and its fields; a list as "1 50", an empty cell for null and for an empty list.

    A field that was added later is a column where a run has a value of its own in it.
    """
    runs = list(runs)
    used = {name for run in runs for name in run.fields()}
    columns = [field for field in fields(Run) if field.name in used or field.name not in NEUTRAL]
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *(COLUMNS.get(field.name, field.name) for field in columns)])
    writer.writerows([run.name, *(_cell(field, getattr(run, field.name)) for field in columns)] for run in runs)
    return text.getvalue()


def as_record(run: Run) -> dict[str, Any]:
    """The fields of a run, as the table of runs has them and names them."""
    return {COLUMNS.get(field.name, field.name): _cell(field, getattr(run, field.name)) for field in fields(Run)}


def _cell(field: Field[Any], value: Any) -> Any:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    # A study's 1 is the 1.0 of a run that was trained.
    return float(value) if value is not None and str(field.type).startswith("float") else value
