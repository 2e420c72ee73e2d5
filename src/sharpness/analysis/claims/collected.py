"""The collected tables of a study as the claims read them: by kind of experiment, and knowing which runs diverged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from sharpness.analysis.axes import grid_axes
from sharpness.analysis.tables import batch_order
from sharpness.study.kinds import KINDS
from sharpness.study.measurement import required
from sharpness.study.records import columns_of
from sharpness.study.runs import COLUMNS, FIELDS, NEUTRAL_COLUMNS, POSTERS_FIELDS

_RUN = ["grid", "axis", "run", *FIELDS, "diverged", "lost"]
# What the claims are decided from.
_MEASURED = {measurement for kind in KINDS.values() if kind.claims for measurement in kind.measurements}

# Settings of a spectrum that say of which Hessian its eigenvalues are; the others, how many and how exact.
_OF_HESSIAN = ("num_examples", "resample", "augment", "parameters")


@dataclass(frozen=True)
class Collected:
    """The tables of a study, each of all experiments of a kind."""

    tables: Mapping[tuple[str, str], pd.DataFrame]  # by kind and measurement
    diverged: frozenset[str]  # names of runs
    settings: Mapping[str, Mapping[str, Any]]  # of the spectra, by name

    def rows(self, measurement: str, *kinds: str) -> pd.DataFrame:
        """One measurement in all experiments of some kinds; the batch size is a number, infinite for the full batch."""
        found = [self.tables[kind, measurement] for kind in kinds if (kind, measurement) in self.tables]
        rows = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
        if measurement == "spectrum" and "settings" in rows:
            blocks = [name for name, values in self.settings.items() if values["parameters"] != "*"]
            rows = rows[~rows["settings"].isin(blocks)]  # no claim is on a block of the Hessian
            rows = rows.assign(alike=rows["settings"].map(self._alike(rows["settings"].unique())))
        # A column that no run has is as if it had no value anywhere.
        place = ["epoch"] if measurement == "history" else ["settings", "checkpoint", "step", "epoch"]
        known = [*_RUN, *place, *(["alike"] if measurement == "spectrum" else []), *required(columns_of(measurement))]
        rows = rows.reindex(columns=list(dict.fromkeys([*rows, *known])))
        return rows.assign(lost=rows["run"].isin(self.diverged))

    def _alike(self, names: Iterable[str]) -> dict[str, str]:
        """By the name of settings, the names of all with which eigenvalues are those of the same Hessian."""
        of_hessian = {
            name: tuple(self.settings[name][key] for key in _OF_HESSIAN) if name in self.settings else (name,)
            for name in names
        }
        same = {
            values: ", ".join(name for name in sorted(of_hessian) if of_hessian[name] == values)
            for values in of_hessian.values()
        }
        return {name: same[values] for name, values in of_hessian.items()}

    def of_seeds(self, is_part: Callable[[pd.Series], pd.Series]) -> Collected:
        """The same tables of some of the seeds; those without a row are none."""
        parts = {place: rows[is_part(rows["seed"])] for place, rows in self.tables.items()}
        return replace(self, tables={place: rows for place, rows in parts.items() if len(rows)})

    def elsewhere(self) -> Collected:
        """The same with each eigenvalue that of its vector on other training examples, where that was measured.

        What was measured on all training examples has no others: there, both are the same. These tables themselves
        where none was measured.
        """
        bracketed = {
            place: rows.assign(eigenvalue=rows["eigenvalue"].where(rows["elsewhere"].isna(), rows["elsewhere"]))
            for place, rows in self.tables.items()
            if place[1] == "spectrum" and "elsewhere" in rows
        }
        return replace(self, tables={**self.tables, **bracketed}) if bracketed else self


def num_lost(rows: pd.DataFrame) -> int:
    """How many of the runs diverged."""
    return int(rows.loc[rows["lost"], "run"].nunique())


def of_the_posters_training(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of runs that the claims are about: SGD or heavy ball on the cross-entropy, with no other schedule.

    Args:
        table: with the fields of each run; columns that it lacks are as the poster has them.
    """
    for column in (COLUMNS.get(field, field) for field in POSTERS_FIELDS):
        if column in table:
            table = table[table[column].isna() | (table[column] == NEUTRAL_COLUMNS[column])]
    return table


def collected(
    tables: Iterable[tuple[str, str, pd.DataFrame]], settings: Mapping[str, Mapping[str, Any]] | None = None
) -> Collected:
    """Put the tables of equal kind and measurement together.

    Args:
        tables: kind of the experiment, measurement, and the table that was collected.
        settings: of the spectra, by name: which of them are of the same Hessian. None: not known, so that each name is
            of its own.
    """
    parts: dict[tuple[str, str], list[pd.DataFrame]] = {}
    diverged: set[str] = set()
    for kind, measurement, table in tables:
        if measurement not in _MEASURED or "run" not in table or table.empty:
            continue
        axes = {grid: axis.field for grid, axis in grid_axes(table).items()}
        table = of_the_posters_training(table)
        if table.empty:
            continue
        rows = table.assign(axis=table["grid"].map(axes), batch_size=table["batch_size"].map(batch_order))
        parts.setdefault((kind, measurement), []).append(rows)
        if measurement != "variants":  # which say so of the variant
            diverged |= set(table.loc[table["diverged"], "run"])
    merged = {place: pd.concat(found, ignore_index=True) for place, found in parts.items()}
    return Collected(merged, frozenset(diverged), settings or {})
