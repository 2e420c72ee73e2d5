"""The peak of a curve: its first maximum that a fall to 80 % follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sharpness.analysis.tables import RUN, trajectory

FALL = 0.8  # of the maximum: a curve that falls so far has had its peak


@dataclass(frozen=True)
class Peak:
    """Where a curve peaks."""

    value: float  # the highest one; NaN where none is finite
    epoch: float  # of that value; the last one measured where the curve has not fallen
    has_fallen: bool  # otherwise the peak lies at the end or after it, and ``value`` is a lower bound


def peak_of(epochs: ArrayLike, values: ArrayLike) -> Peak:
    """Find the first maximum: the highest value before the curve first falls to ``FALL`` times it.

    Values that are not finite are left out. A maximum that is not positive has no share to fall to.

    Args:
        epochs: [T], ascending.
        values: [T].

    Raises:
        ValueError: the epochs do not ascend, or are not as many as the values.
    """
    times, heights = np.asarray(epochs, dtype=float), np.asarray(values, dtype=float)
    if times.shape != heights.shape or times.ndim != 1 or not (np.diff(times) > 0).all():
        raise ValueError(f"epochs must ascend, one for each value, got shapes {times.shape} and {heights.shape}")
    times, heights = times[np.isfinite(heights)], heights[np.isfinite(heights)]
    if not len(heights):
        return Peak(np.nan, np.nan, has_fallen=False)
    highest = np.maximum.accumulate(heights)
    fallen = np.flatnonzero((highest > 0) & (heights <= FALL * highest))
    before = heights[: fallen[0]] if len(fallen) else heights
    place = int(before.argmax())
    return Peak(float(before[place]), float(times[place if len(fallen) else -1]), has_fallen=len(fallen) > 0)


def peaks_of_runs(spectrum: pd.DataFrame, *, rank: int = 0) -> pd.DataFrame:
    """The peak of the eigenvalue of some rank, over the planned checkpoints of each run.

    Args:
        spectrum: columns grid, run and the run's fields, which, checkpoint, step, epoch, rank, eigenvalue, diverged.
        rank: 0 for the largest.

    Returns:
        One row per grid and run: its fields, peak_eigenvalue, peak_epoch, has_fallen (as ``Peak``), diverged.

    Raises:
        ValueError: nothing was measured at a planned checkpoint.
    """
    rows, curves = [], trajectory(spectrum)
    for key, run in curves[curves["rank"] == rank].groupby(RUN, sort=False, dropna=False):
        peak = peak_of(run["epoch"], run["eigenvalue"])
        found = {"peak_eigenvalue": peak.value, "peak_epoch": peak.epoch, "has_fallen": peak.has_fallen}
        rows.append({**dict(zip(RUN, key, strict=True)), **found, "diverged": bool(run["diverged"].any())})
    return pd.DataFrame(rows)
