"""Planned times that are one for runs with other numbers of steps in an epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sharpness.analysis.claims.subjects import PROBLEM


def planned_times(rows: pd.DataFrame) -> pd.Series:
    """Return the epoch of each row; checkpoints of one time share that of the run with the shortest steps.

    A planned epoch falls on the step next to it, which differs between batch sizes: without this, 0.5 would come before
    0.51 in every seed. Two checkpoints are of one time if each is the nearest to the other, to half a step of each.

    Args:
        rows: columns run, step, epoch, and settings that no claim varies.
    """
    times = rows["epoch"].astype(float).copy()
    fields = [field for field in (*PROBLEM, "settings") if field in rows]
    for _, alike in rows.groupby(fields, sort=False, dropna=False):
        runs = {run: of_run["epoch"].astype(float) for run, of_run in alike.groupby("run", sort=False)}
        half_steps = {run: _half_step(alike.loc[epochs.index]) for run, epochs in runs.items()}
        finest = min(runs, key=lambda run: (half_steps[run], -len(runs[run])))
        reference = runs[finest].to_numpy()
        for run, epochs in runs.items():
            distances = np.abs(epochs.to_numpy()[:, None] - reference)
            nearest, back = distances.argmin(axis=1), distances.argmin(axis=0)
            of_each = np.arange(len(epochs))
            is_one = back[nearest] == of_each
            is_one &= distances[of_each, nearest] <= (half_steps[run] + half_steps[finest]) * (1 + 1e-9)
            times[epochs.index[is_one]] = reference[nearest[is_one]]
    return times


def _half_step(rows: pd.DataFrame) -> float:
    """Half a step in epochs; infinite for a run without a step."""
    made = rows[rows["step"].astype(float) > 0]
    return float((made["epoch"] / made["step"]).max()) / 2 if len(made) else np.inf
