"""Which runs a claim compares with one another, and the settings along which it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sharpness.claims.wording import setting_text

# No claim varies these: runs that differ in one of them are not compared.
PROBLEM = [
    "data",
    "model",
    "num_training",
    "augment",
    "padding",
    "init_scale",
    "momentum",
    "l2",
    "precision",
    "gamma_outside",
]


@dataclass(frozen=True)
class Subject:
    """What a verdict is about."""

    model: str = ""
    data: str = ""
    configuration: str = ""  # settings that the compared runs share, in words


@dataclass(frozen=True)
class Axis:
    """A setting along which runs are compared, from the first to the last in the poster's words."""

    setting: str  # also the name of the grid that varies it
    other: str  # what stays fixed
    ascending: bool
    words: str


AXES = (
    Axis("learning_rate", "batch_size", True, "larger learning rate"),
    Axis("batch_size", "learning_rate", False, "smaller batch"),
)


def subjects(rows: pd.DataFrame, *fixed: str) -> Iterator[tuple[Subject, pd.DataFrame]]:
    """Cut a table into what may be compared: equal in all settings that no claim varies, and in those that are fixed.

    Args:
        rows: columns data and model, and others of a run.
        fixed: further settings that the claim does not vary.
    """
    fields = [field for field in PROBLEM if field in rows]
    for _, group in rows.groupby([*fields, *fixed], sort=False, dropna=False):
        first = group.iloc[0]
        similar = rows[(rows["data"] == first["data"]) & (rows["model"] == first["model"])]
        named = [field for field in fields if similar[field].nunique(dropna=False) > 1]
        words = [f"{field.replace('_', ' ')} {setting_text(first[field])}" for field in (*named, *fixed)]
        yield Subject(str(first["model"]), str(first["data"]), ", ".join(words)), group


def along(rows: pd.DataFrame, axis: Axis) -> Iterator[tuple[Subject, pd.DataFrame]]:
    """Those groups of runs in which the setting of ``axis`` has more than one value."""
    for subject, group in subjects(rows, axis.other):
        if group[axis.setting].nunique() > 1:
            yield subject, group


def over_settings(rows: pd.DataFrame, setting: str, quantity: str, *, ascending: bool = True) -> pd.DataFrame:
    """One quantity as [seeds, settings]; NaN where there is no finite value, the mean where there are several.

    Settings and seeds without any value are left out.
    """
    finite = rows[np.isfinite(rows[quantity].astype(float))]
    table = finite.pivot_table(index="seed", columns=setting, values=quantity, aggfunc="mean")
    return table.sort_index(axis="columns", ascending=ascending)


def with_fields(table: pd.DataFrame, source: pd.DataFrame) -> pd.DataFrame:
    """A table of runs, with those settings of each run that only ``source`` has."""
    missing = [field for field in PROBLEM if field in source and field not in table]
    return table.merge(source.drop_duplicates("run")[["run", *missing]], on="run")
