"""A quantity over time with its spread over seeds, and where runs diverged."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

CROSS: dict[str, Any] = {
    "marker": "X",
    "markersize": 7,
    "markeredgecolor": "black",
    "markeredgewidth": 0.7,
    "linestyle": "none",
}


def draw_over_seeds(axes: Axes, rows: pd.DataFrame, *, x: str, y: str, colour: str, linestyle: str = "-") -> pd.Series:
    """Draw the mean over runs as a line, smallest to largest as a band, and a cross where a run diverged.

    Args:
        axes: where.
        rows: columns run, ``x``, ``y``; runs are seeds of one configuration. ``y`` is not finite once a run diverged.
        x: column of the time.
        y: column of the quantity.
        colour: of the line, the band and the cross.
        linestyle: of the line.

    Returns:
        The mean by ``x``.
    """
    finite = rows[np.isfinite(rows[y])]
    over_seeds = finite.groupby(x)[y].agg(["mean", "min", "max"])
    axes.plot(over_seeds.index, over_seeds["mean"], color=colour, linestyle=linestyle)
    if finite["run"].nunique() > 1:
        axes.fill_between(over_seeds.index, over_seeds["min"], over_seeds["max"], color=colour, alpha=0.2, linewidth=0)
    mark_divergence(axes, rows, x=x, y=y, colour=colour)
    return over_seeds["mean"]


def mark_divergence(axes: Axes, rows: pd.DataFrame, *, x: str, y: str, colour: Any) -> None:
    """A cross at the last finite value of each run that has one that is not finite."""
    for _, run in rows.groupby("run"):
        reached = run[np.isfinite(run[y])].sort_values(x)
        if 0 < len(reached) < len(run):
            axes.plot(reached[x].iloc[-1], reached[y].iloc[-1], color=colour, zorder=5, **CROSS)


def legend_of_divergence(rows: pd.DataFrame, y: str) -> list[Line2D]:
    """The cross as an entry of a legend, where any run diverged."""
    return [] if np.isfinite(rows[y]).all() else [Line2D([], [], color="white", label="diverged", **CROSS)]
