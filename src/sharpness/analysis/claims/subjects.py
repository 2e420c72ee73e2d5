"""Which runs a claim compares with one another, and the settings along which it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from sharpness.analysis.claims.wording import per_setting, setting_text
from sharpness.analysis.tables import CONFIGURATION

# No claim varies these: runs that differ in one of them are not compared.
PROBLEM = [
    "data",
    "model",
    "num_training",
    "augment",
    "padding",
    "init_scale",
    "model_args",
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

    setting: str
    other: str  # what stays fixed
    words: str

    @property
    def is_batch(self) -> bool:
        """Whether it is the batch size, with which everything goes the other way than with the learning rate."""
        return self.setting == "batch_size"


AXES = (
    Axis("learning_rate", "batch_size", "larger learning rate"),
    Axis("batch_size", "learning_rate", "smaller batch"),
)


@dataclass(frozen=True)
class Cells:
    """One number of each seed at each setting, and which of these runs diverged."""

    values: pd.DataFrame  # [seeds, settings], settings ascending; NaN without a value, infinite beyond what was seen
    lost: pd.DataFrame  # of the same shape

    def less(self, setting: object, other: object, *, when_lost: float = 0.0) -> pd.Series:
        """The difference of two settings in each seed; ``when_lost`` where one of the two runs diverged."""
        difference = self.values[setting] - self.values[other]
        return difference.mask(self.lost[setting] | self.lost[other], when_lost)

    def against(self, *, rises: bool) -> pd.DataFrame:
        """The rank of each value in its seed, a diverged run at that end which speaks against a rise, or a fall.

        It lies beyond what was seen, too: an infinite value is no tie with it.
        """
        ranks = self.values.mask(self.lost).rank(axis="columns")
        for place, column in enumerate(ranks):
            is_late = place > (len(ranks.columns) - 1) / 2
            ranks[column] = ranks[column].mask(self.lost[column], -np.inf if is_late == rises else np.inf)
        return ranks

    def in_words(self, setting: str, *, logs: bool = True, beyond: str = "beyond") -> str:
        """What was measured at each setting; ``logs``: the values are logarithms."""
        return per_setting(10**self.values if logs else self.values, setting, lost=self.lost, beyond=beyond)


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


def plain(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of plain SGD."""
    return rows[_is_plain(rows)]


def over_settings(rows: pd.DataFrame, setting: str, quantity: str) -> Cells:
    """One quantity of each seed at each setting, the mean where there are several.

    Settings without any value or diverged run are left out.

    Args:
        rows: columns seed, lost (whether the run diverged), the setting and the quantity.
        setting: ascending.
        quantity: a column.
    """
    numbers = rows.assign(**{quantity: rows[quantity].astype(float)})
    told = numbers[numbers[quantity].notna() | numbers["lost"]]
    cells = told.groupby(["seed", setting])
    values, lost = cells[quantity].mean().unstack(), cells["lost"].any().unstack(fill_value=False)
    return Cells(values.sort_index(axis="columns"), lost.sort_index(axis="columns").astype(bool))


def with_fields(table: pd.DataFrame, source: pd.DataFrame) -> pd.DataFrame:
    """A table of runs, with those settings of each run that only ``source`` has, and whether it diverged."""
    missing = [field for field in (*CONFIGURATION, "seed", "lost") if field in source and field not in table]
    if table.empty:
        return table.reindex(columns=[*table, *missing])
    return table.merge(source.drop_duplicates("run")[["run", *missing]], on="run")
