"""Which runs a claim compares with one another, and the settings along which it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from sharpness.analysis.claims.wording import setting_text
from sharpness.analysis.tables import CONFIGURATION

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
# What a run of plain SGD does not have: it is compared with nudged runs of any.
DIRECTIONS = [field for field in CONFIGURATION if field == "num_directions" or field.startswith("direction_")]


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


def subjects(
    rows: pd.DataFrame, *fixed: str, measured: Sequence[str] = ("settings",)
) -> Iterator[tuple[Subject, pd.DataFrame]]:
    """Cut a table into what may be compared: equal in all settings that no claim varies, and in those that are fixed.

    Args:
        rows: columns data and model, and others of a run.
        fixed: further settings that the claim does not vary.
        measured: columns that say how it was measured: what was measured otherwise is not compared.
    """
    fields = [field for field in (*PROBLEM, *measured) if field in rows]
    for _, group in rows.groupby([*fields, *fixed], sort=False, dropna=False):
        first = group.iloc[0]
        similar = rows[(rows["data"] == first["data"]) & (rows["model"] == first["model"])]
        named = [field for field in fields if similar[field].nunique(dropna=False) > 1]
        words = [f"{field.replace('_', ' ')} {setting_text(first[field])}" for field in (*named, *fixed)]
        yield Subject(str(first["model"]), str(first["data"]), ", ".join(words)), group


def compared(
    rows: pd.DataFrame, *fixed: str, varied: Sequence[str] = (), measured: Sequence[str] = ("settings",)
) -> Iterator[tuple[Subject, pd.DataFrame]]:
    """As ``subjects``, and cut further where a seed has several runs that the claim would average.

    Args:
        rows: columns data and model, and others of a run, its name and its seed among them.
        fixed: further settings that the claim does not vary.
        varied: settings that it does.
        measured: columns that say how it was measured.
    """
    for subject, group in subjects(rows, *fixed, measured=measured):
        clashing = _clashing(group, [*varied, "seed"])
        idle = _is_plain(group) if clashing and set(clashing) <= set(DIRECTIONS) else pd.Series(False, group.index)
        if not clashing:
            yield subject, group
            continue
        for _, alike in group[~idle].groupby(clashing, sort=False, dropna=False):
            told = [field for field in clashing if "gamma" not in clashing or field not in DIRECTIONS]
            words = [f"{field.replace('_', ' ')} {setting_text(alike[field].iloc[0])}" for field in told]
            configuration = ", ".join(filter(None, [subject.configuration, *words]))
            yield replace(subject, configuration=configuration), group[idle | group.index.isin(alike.index)]


def _clashing(rows: pd.DataFrame, cell: list[str]) -> list[str]:
    """Settings in which runs differ that are equal in the columns of ``cell``."""
    others = [field for field in CONFIGURATION if field in rows and field not in (*PROBLEM, *cell)]
    runs = rows.drop_duplicates("run") if "settings" not in cell else rows.drop_duplicates(["run", "settings"])
    cells = runs.groupby(cell, sort=False, dropna=False)
    several = runs[cells["run"].transform("nunique") > 1]
    if several.empty:
        return []
    differing = several.groupby(cell, sort=False, dropna=False)[others].nunique(dropna=False).max()
    return [field for field in others if differing[field] > 1]


def _is_plain(rows: pd.DataFrame) -> pd.Series:
    return (rows["gamma"] == 1) & (rows["gamma_outside"] == 1)


def along(rows: pd.DataFrame, axis: Axis) -> Iterator[tuple[Subject, pd.DataFrame]]:
    """Those groups of runs in which the setting of ``axis`` has more than one value."""
    for subject, group in compared(rows, axis.other, varied=[axis.setting]):
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
    missing = [field for field in CONFIGURATION if field in source and field not in table]
    return table.merge(source.drop_duplicates("run")[["run", *missing]], on="run")
