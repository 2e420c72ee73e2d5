"""What the report's explorer shows of each run: spectrum, density, slices and losses as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sharpness.analysis.figures.density import density_at, grid_of
from sharpness.analysis.figures.runs import text, words
from sharpness.analysis.figures.slices import HEADROOM, axis_of, turned
from sharpness.analysis.figures.stability import limits_of
from sharpness.analysis.tables import batch_order, trajectory
from sharpness.report.making import Workshop
from sharpness.report.provenance import made_by
from sharpness.study.naming import title_of_value
from sharpness.study.paths import StudyFolder
from sharpness.study.runs import FIELDS

# Always to be chosen by; others only where runs are equal in all of these.
CHOSEN = ("learning_rate", "batch_size", "gamma", "seed")
PANELS = ("spectrum", "density", "slices", "history")
_NAMES = {"gamma": "γ", "data": "data set", "model": "network", "learning_rate_epochs": "rate changes at epoch"}
_PLACES = 240  # of a density
_DECADES = 7  # of a density, below its top


@dataclass(frozen=True)
class Measured:
    """What was measured in one study."""

    workshop: Workshop
    folder: str  # of its tables, as the page links to it
    tables: Mapping[str, Sequence[pd.DataFrame]]  # by measurement: history, spectrum, density, slices


def explorer(studies: Sequence[Measured], *, num_ranks: int = 30) -> dict[str, Any]:
    """All runs of some studies, for the page's script.

    Args:
        studies: in order.
        num_ranks: of the eigenvalues, so many of the largest.

    Returns:
        ``fields``: what runs are chosen by, each with its values in order; ``runs``: of each its name, study, place in
        every field, and its panels, of which those that were not measured are absent; ``first``: the two runs that are
        shown first.
    """
    chosen = [{name: _chosen(tables) for name, tables in study.tables.items()} for study in studies]
    named = zip(studies, chosen, strict=True)
    every = pd.concat([_runs(tables).assign(study=study.workshop.study) for study, tables in named])
    fields = _fields(every)
    values = {field: sorted(every[field].map(_shown).unique(), key=_order) for field in fields}
    runs = []
    for number, (study, tables) in enumerate(zip(studies, chosen, strict=True)):
        groups = {name: dict(list(table.groupby("run", sort=False))) for name, table in tables.items() if len(table)}
        for run in every[every["study"] == study.workshop.study].to_dict("records"):
            found = {name: groups[name].get(run["run"]) for name in PANELS if name in groups}
            shown = {name: _PANELS[name](rows) for name, rows in found.items() if rows is not None}
            if (spectrum := shown.get("spectrum")) is not None:
                spectrum["values"] = spectrum["values"][:num_ranks]
            panels = {name: panel for name, panel in shown.items() if panel is not None}
            if panels:
                sources = {name: _source(study, name, found[name]) for name in panels}
                place = [values[field].index(_shown(run[field])) for field in fields]
                runs.append({"name": run["run"], "study": number, "at": place, **panels, "sources": sources})
    names = [
        {
            "name": field,
            "words": _NAMES.get(field, words(field)),
            "values": [title_of_value(field, value) for value in values[field]],
        }
        for field in fields
    ]
    return {"fields": names, "runs": runs, "first": _first(runs, fields)}


def rounded(values: Iterable[float], digits: int = 4) -> list[float | None]:
    """Numbers as the page has them: so many significant digits, None for what is not finite."""
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in values]


def _chosen(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of each run by one experiment and one settings: of several that measured it, the one with most rows."""
    tables = [table for table in tables if len(table)]
    if not tables:
        return pd.DataFrame()
    table = pd.concat(tables)
    by = ["run", "experiment", *(["settings"] if "settings" in table else [])]
    table = table.drop_duplicates([column for column in table if column != "grid"])
    sizes = table.groupby(by, sort=False).size().rename("size").reset_index()
    largest = sizes.sort_values("size", ascending=False, kind="stable").drop_duplicates("run")
    return table.merge(largest[by], on=by)


def _runs(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    fields = [table.reindex(columns=["run", *FIELDS]) for table in tables.values() if len(table)]
    return pd.concat(fields).drop_duplicates("run") if fields else pd.DataFrame(columns=["run", *FIELDS])


def _fields(runs: pd.DataFrame) -> list[str]:
    """What tells all runs apart, with as few fields as that takes."""
    fields = ["study"] * (runs["study"].nunique() > 1) + list(CHOSEN)
    shown = runs.drop_duplicates(["study", "run"]).assign(**{field: runs[field].map(_shown) for field in FIELDS})
    for field in ("study", *FIELDS):
        alike = shown.groupby(fields, sort=False)[field].nunique(dropna=False)
        if field not in fields and (alike > 1).any():
            fields.append(field)
    return fields


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value or "none"
    return "none" if value is None or value != value else text(value)


def _order(value: str) -> tuple[bool, float, str]:
    try:
        return False, batch_order(value), value
    except ValueError:
        return True, 0.0, value


def _spectrum(rows: pd.DataFrame) -> dict[str, Any] | None:
    planned = rows[(rows["which"] == "largest") & (rows["checkpoint"] == "planned")]
    if planned.empty or not np.isfinite(planned["eigenvalue"]).any():
        return None
    leading = trajectory(planned.assign(grid=""))
    values = leading.pivot(index="epoch", columns="rank", values="eigenvalue")
    largest = leading[leading["rank"] == 0].set_index("epoch").reindex(values.index)
    elsewhere = largest["elsewhere"] if "elsewhere" in largest else pd.Series(np.nan, largest.index)
    return {
        "epochs": rounded(values.index),
        "values": [rounded(values[rank]) for rank in values],
        "residuals": rounded(largest["residual"], 2),
        "elsewhere": rounded(elsewhere),
        "limit": rounded([limits.iloc[0] if (limits := limits_of(leading)).nunique() == 1 else math.nan])[0],
    }


def _density(rows: pd.DataFrame) -> dict[str, Any] | None:
    measured = rows[~rows["diverged"]]
    if not (measured["quantity"] == "node").any():
        return None
    grid, width = grid_of(measured, _PLACES)
    epochs, curves, outliers = [], [], []
    for epoch, checkpoint in measured.groupby("epoch"):
        nodes = checkpoint[checkpoint["quantity"] == "node"]
        if len(nodes):
            curve = density_at(grid, nodes, width)
            epochs.append(epoch)
            curves.append(rounded(np.log10(np.maximum(curve, curve.max() / 10**_DECADES)), 3))
            outliers.append(rounded(checkpoint.loc[checkpoint["quantity"] == "eigenvalue", "value"]))
    return {"epochs": rounded(epochs), "places": rounded(grid), "curves": curves, "outliers": outliers}


def _slices(rows: pd.DataFrame) -> dict[str, Any] | None:
    here = rows[(rows["k"] == 0) & ~rows["diverged"]]
    if not np.isfinite(here["loss"]).any():
        return None
    losses, curvature = turned(rows)
    return {
        "epochs": rounded(losses.index),
        "places": rounded(losses.columns),
        "axis": axis_of(rows),
        "losses": [rounded(row) for row in losses.to_numpy()],
        "ceiling": rounded([HEADROOM * losses[0.0].max()])[0],
        "eigenvalues": rounded(curvature),
    }


def _history(rows: pd.DataFrame) -> dict[str, Any] | None:
    unique = rows.drop_duplicates("epoch").sort_values("epoch")
    names = ("training_loss", "validation_loss", "validation_accuracy", "test_accuracy")
    lost = unique.loc[unique["diverged"].astype(bool), "epoch"]
    return {
        "epochs": rounded(unique["epoch"]),
        **{name: rounded(unique[name]) for name in names if name in unique},
        "diverged": None if lost.empty else float(lost.iloc[0]),
    }


_PANELS = {"spectrum": _spectrum, "density": _density, "slices": _slices, "history": _history}


def _source(study: Measured, measurement: str, rows: pd.DataFrame | None) -> dict[str, Any]:
    """From which table the numbers of a panel are, what computed them, and by which command they are made anew."""
    assert rows is not None
    first = rows.iloc[0]
    table = f"{first['experiment']}_{measurement}"
    of_run = StudyFolder.of(study.workshop.study).run(first["run"]).history
    target = of_run if measurement == "history" else StudyFolder.of(study.workshop.study).table(table)
    examples = first.get("num_examples", math.nan)
    return {
        "table": f"{study.folder}tables/{table}.csv",
        "settings": first.get("settings", ""),
        "examples": None if pd.isna(examples) else int(examples),
        "by": made_by([rows]),
        "command": study.workshop.command(target),
    }


def _first(runs: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> list[int]:
    """The run with most to show, and one beside it: of another learning rate, else of another anything."""
    if not runs:
        return []

    def shown(index: int) -> int:
        return sum(name in runs[index] for name in PANELS)

    left = max(range(len(runs)), key=lambda index: (shown(index), -index))
    others = [index for index in range(len(runs)) if index != left]
    if not others:
        return [left]
    rate = fields.index("learning_rate")

    def alike(index: int) -> tuple[bool, int, int, int]:
        same = [a == b for a, b in zip(runs[index]["at"], runs[left]["at"], strict=True)]
        return not same[rate], sum(same), shown(index), runs[index]["at"][rate]

    return [left, max(others, key=alike)]
