"""Eigenvalues along a training, and their density at one time."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sharpness.eigen.eigenpairs import Eigenpairs
from sharpness.eigen.estimators import SpectralDensity
from sharpness.plots.axes import COLOURS, GREY, axes_or_new
from sharpness.tracking.record import CurvatureRecord
from sharpness.tracking.tracker import CurvatureTracker

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = CurvatureTracker | Iterable[CurvatureRecord] | str | os.PathLike[str]

# A range of positive values beyond which a linear axis hides the small ones.
_WIDE = 30.0
# Of the density's Gaussians, as a part of the axis; and the decades below the top that are shown.
_WIDTH, _DECADES = 0.01, 7


def plot_spectrum(history: History, axes: Axes | None = None) -> Axes:
    """Draw tracked eigenvalues over the steps of a training, with their residuals as bands, and the stability limit.

    Args:
        history: a tracker, its records, or the CSV file that it wrote.
        axes: to draw on; None makes a figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: nothing was measured, or the file is not one that a tracker wrote.
    """
    rows = _rows(history)
    if not rows:
        raise ValueError("there is nothing to plot: the tracker has not measured yet")
    axes = axes_or_new(axes)
    steps = [row["step"] for row in rows]
    ranks = sum(name.startswith("eigenvalue_") for name in rows[0])
    scale = [max(abs(row[f"eigenvalue_{rank}"]) for rank in range(ranks)) for row in rows]
    for rank in range(ranks):
        values = [row[f"eigenvalue_{rank}"] for row in rows]
        errors = [row[f"residual_{rank}"] * largest for row, largest in zip(rows, scale, strict=True)]
        colour = COLOURS[rank % len(COLOURS)]
        axes.plot(steps, values, color=colour, marker=".", label="λ" + _subscript(rank + 1))
        low, high = zip(*((v - e, v + e) for v, e in zip(values, errors, strict=True)), strict=True)
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    limits = [row["stable_below"] for row in rows]
    if any(map(math.isfinite, limits)):
        axes.plot(steps, limits, color=GREY, linestyle="--", label="stability limit")
    shown = [row[f"eigenvalue_{rank}"] for row in rows for rank in range(ranks)] + limits
    finite = [value for value in shown if math.isfinite(value)]
    if finite and min(finite) > 0 and max(finite) > _WIDE * min(finite):
        axes.set_yscale("log")
    axes.set(xlabel="step", ylabel="eigenvalue")
    axes.legend()
    return axes


def plot_density(
    density: SpectralDensity, pairs: Eigenpairs | None = None, *, width: float | None = None, axes: Axes | None = None
) -> Axes:
    """Draw the density of all eigenvalues on a log scale, and leading ones as ticks below it.

    Args:
        density: from ``spectral_density``.
        pairs: eigenpairs whose values are marked.
        width: standard deviation of the Gaussians that smooth the density; None is 1 % of the axis.
        axes: to draw on; None makes a figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: the width is not positive.
    """
    axes = axes_or_new(axes)
    marked = [] if pairs is None else pairs.eigenvalues.tolist()
    nodes = density.nodes[density.weights > 0].tolist() + marked
    low, high = min(nodes), max(nodes)
    if width is None:
        width = _WIDTH * ((high - low) or abs(high) or 1.0)
    grid = torch.linspace(low - 4 * width, high + 4 * width, 1500, dtype=torch.float64)
    curve = density.density(grid, width)
    floor = float(curve.max()) / 10**_DECADES
    axes.fill_between(grid.numpy(), floor, curve.clamp_min(floor).numpy(), color=COLOURS[1], alpha=0.3, linewidth=0)
    axes.plot(grid.numpy(), curve.clamp_min(floor).numpy(), color=COLOURS[1], linewidth=1)
    if marked:
        heights = [0.03] * len(marked)
        transform = axes.get_xaxis_transform()
        axes.plot(
            marked, heights, "|", color=COLOURS[0], markersize=10, transform=transform, label="leading eigenvalues"
        )
        axes.legend()
    axes.set_yscale("log")
    axes.set_ylim(floor, 3 * float(curve.max()))
    axes.set(xlabel="eigenvalue", ylabel="density of eigenvalues (per unit)")
    return axes


def _rows(history: History) -> Sequence[Mapping[str, float]]:
    """Numbers by column; NaN where there are none."""
    if isinstance(history, str | os.PathLike):
        rows = _read(Path(history))
    else:
        records = history.history if isinstance(history, CurvatureTracker) else history
        rows = [record.columns() for record in records]
    return [{name: _number(value) for name, value in row.items()} for row in rows]


def _read(path: Path) -> list[Mapping[str, object]]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.DictReader(file, restkey="more")
        columns = list(reader.fieldnames or ())
        ranks = max(1, sum(name.startswith("eigenvalue_") for name in columns))
        of_pairs = [f"{name}_{rank}" for rank in range(ranks) for name in ("eigenvalue", "residual")]
        if missing := [name for name in ("step", *of_pairs, "stable_below") if name not in columns]:
            raise ValueError(f"{path} has no column {missing[0]!r}: give the CSV file that a CurvatureTracker wrote")
        return list(reader)


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # a word, or nothing
        return math.nan


def _subscript(number: int) -> str:
    return "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in str(number))
