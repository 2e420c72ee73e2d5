"""Whether a cheaper setting changes the result beyond the spread over seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sharpness.analysis.tables import frobenius, trajectory, with_columns
from sharpness.study.kinds import WAYS

# What is compared: over the steps or at the last one, and of which the logarithm counts.
QUANTITIES = {
    "largest eigenvalue": "log10 of it at every checkpoint after the first",
    "frobenius norm": "log10 of it, from the tracked eigenvalues, at the last checkpoint",
    "test accuracy": "fraction at the last epoch",
    "training loss": "log10 of it at the last epoch",
}

_GRID = ["data", "model", "grid"]
_PLACE = [*_GRID, "run"]
_NAMES = [*_GRID, "reference", "way", "quantity"]


def label_ways(rows: pd.DataFrame) -> pd.DataFrame:
    """Label each run by the settings that differ within its grid: columns data, model, grid, run, way."""
    parts = []
    for _, of_grid in rows.drop_duplicates(["grid", "run"]).groupby(["data", "model", "grid"], sort=False):
        # Plain SGD has no directions: it is one of several ways by its name alone.
        named = of_grid if (of_grid["gamma"] == 1).all() else of_grid[of_grid["gamma"] != 1]
        differing = [field for field in WAYS if field in named and named[field].nunique(dropna=False) > 1]
        differing += ["gamma"] if len(named) < len(of_grid) and "gamma" not in differing else []
        words = pd.Series("all", index=of_grid.index)
        if differing:
            words = of_grid[differing].apply(_in_words, axis=1)
        plain = of_grid[of_grid["gamma"] == 1]
        if len(plain) < len(of_grid) and "precision" in plain and plain["precision"].nunique() > 1:
            words = words.where(of_grid["gamma"] != 1, "SGD, precision " + of_grid["precision"].astype(str))
        parts.append(of_grid[["data", "model", "grid", "run"]].assign(way=words))
    return pd.concat(parts)


def _in_words(row: pd.Series) -> str:
    if row.get("gamma") == 1:
        return "SGD"  # it has no directions
    names = {"direction_tolerance": "tolerance", "direction_products": "products", "direction_precision": ""}
    row = row.sort_index(key=lambda fields: fields != "gamma", kind="stable")
    parts = (f"{names.get(field, field.replace('_', ' '))} {_text(value)}".strip() for field, value in row.items())
    return ", ".join(parts)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def compare(history: pd.DataFrame, spectrum: pd.DataFrame) -> pd.DataFrame:
    """Each way of a grid against the grid's first, quantity by quantity.

    Args:
        history: columns grid, run and the run's fields, epoch, test_accuracy, training_loss, diverged,
            num_direction_products.
        spectrum: columns grid, run and the run's fields, which, checkpoint, step, epoch, rank, eigenvalue.

    Returns:
        Columns data, model, grid, reference, way, quantity; difference (mean over seeds less that of the reference; of
        a trajectory the root of the mean square over its steps); spread (standard deviation over seeds, pooled over
        both ways and over the steps by their mean squares); ratio of the two; agrees (at most 1); seeds and diverged
        (numbers, of the way); products (with the Hessian, an epoch). Diverged runs have no part in the means.
    """
    history, spectrum = with_columns("history", history), with_columns("spectrum", spectrum)
    columns = [*_NAMES, "difference", "spread", "ratio", "agrees"]
    if spectrum.empty:
        return pd.DataFrame(columns=[*columns, "seeds", "diverged", "products"])
    ways = label_ways(spectrum)
    history = history.drop_duplicates(["grid", "run", "epoch"]).merge(ways, on=_PLACE)
    values = _values(history, trajectory(spectrum).merge(ways, on=_PLACE))
    rows = []
    for place, of_grid in values.groupby(_GRID, sort=False):
        reference = ways.loc[(ways[_GRID] == list(place)).all(axis=1), "way"].iloc[0]
        for (way, quantity), other in of_grid[of_grid["way"] != reference].groupby(["way", "quantity"], sort=False):
            same = of_grid[(of_grid["way"] == reference) & (of_grid["quantity"] == quantity)]
            names = [*place, reference, way, quantity]
            rows.append(dict(zip(_NAMES, names, strict=True)) | _compared(same, other))
    return pd.DataFrame(rows, columns=columns).merge(_costs(history), on=[*_GRID, "way"], how="left")


def _compared(reference: pd.DataFrame, other: pd.DataFrame) -> dict[str, Any]:
    tables = [side.pivot(index="run", columns="step", values="value") for side in (reference, other)]
    steps = tables[0].columns.intersection(tables[1].columns)
    ours, theirs = (table[steps].dropna() for table in tables)
    differences = theirs.mean() - ours.mean()
    freedom = len(ours) + len(theirs) - 2
    squares = ((ours - ours.mean()) ** 2).sum() + ((theirs - theirs.mean()) ** 2).sum()
    spread = float(np.sqrt((squares / freedom).mean())) if freedom > 0 else np.nan
    signed = differences.iloc[0] if len(steps) == 1 else np.sqrt((differences**2).mean())
    ratio = abs(signed) / spread if spread else np.nan
    return {"difference": signed, "spread": spread, "ratio": ratio, "agrees": bool(ratio <= 1)}


def _values(history: pd.DataFrame, eigenvalues: pd.DataFrame) -> pd.DataFrame:
    """Columns data, model, grid, way, run, quantity, step, value; without diverged runs."""
    lost = set(history.loc[history["diverged"].astype(bool), "run"])
    history, eigenvalues = (rows[~rows["run"].isin(lost)] for rows in (history, eigenvalues))
    largest = eigenvalues[(eigenvalues["rank"] == 0) & (eigenvalues["step"] > 0)]
    last = history[history["epoch"] == history.groupby("run")["epoch"].transform("max")]
    norms = frobenius(eigenvalues[eigenvalues["step"] == eigenvalues.groupby("run")["step"].transform("max")])
    norms = norms.merge(eigenvalues[[*_PLACE, "way"]].drop_duplicates(), on=_PLACE)
    tables = [
        largest.assign(value=np.log10(largest["eigenvalue"])),
        norms.assign(value=np.log10(norms["frobenius"])),
        last.assign(value=last["test_accuracy"]),
        last.assign(value=np.log10(last["training_loss"])),
    ]
    parts = [rows.assign(quantity=name) for name, rows in zip(QUANTITIES, tables, strict=True)]
    return pd.concat(parts)[[*_PLACE, "way", "quantity", "step", "value"]]


def _costs(history: pd.DataFrame) -> pd.DataFrame:
    """What finding the directions took, and how many seeds there are, by grid and way."""
    trained = history[history["epoch"] > 0]
    trained = trained.assign(lost=trained["run"].where(trained["diverged"].astype(bool)))
    costs = trained.groupby([*_GRID, "way"], sort=False).agg(
        seeds=("run", "nunique"), diverged=("lost", "nunique"), products=("num_direction_products", "mean")
    )
    return costs.reset_index()
