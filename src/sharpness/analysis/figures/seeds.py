"""A quantity over time, or against a setting, with its spread over seeds, and where runs diverged."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sharpness.analysis.figures.palette import GREY, RED, colours_of
from sharpness.analysis.figures.runs import fixed_in_words, text
from sharpness.study.varied import Axis

CROSS: dict[str, Any] = {
    "marker": "X",
    "markersize": 7,
    "markeredgecolor": "black",
    "markeredgewidth": 0.7,
    "linestyle": "none",
}
DOT: dict[str, Any] = {"marker": "o", "markersize": 5, "linestyle": "none", "alpha": 0.7}
# Whole where it lies on the edge of a panel.
OPEN: dict[str, Any] = {
    "marker": "o",
    "markersize": 6,
    "linestyle": "none",
    "fillstyle": "none",
    "markeredgewidth": 1.4,
    "clip_on": False,
}


def draw_over_seeds(
    axes: Axes, rows: pd.DataFrame, *, x: str, y: str, colour: str, linestyle: str = "-", marker: str = ""
) -> None:
    """Draw the mean over runs as a line, smallest to largest as a band, and a cross where a run diverged.

    Args:
        axes: where.
        rows: columns run, ``x``, ``y``, diverged; runs are seeds of one configuration.
        x: column of the time.
        y: column of the quantity.
        colour: of the line, the band and the cross.
        linestyle: of the line.
        marker: at each time that was measured.
    """
    finite = rows[np.isfinite(rows[y]) & ~rows["diverged"]]
    over_seeds = finite.groupby(x)[y].agg(["mean", "min", "max"])
    axes.plot(over_seeds.index, over_seeds["mean"], color=colour, linestyle=linestyle, marker=marker)
    if finite["run"].nunique() > 1:
        axes.fill_between(over_seeds.index, over_seeds["min"], over_seeds["max"], color=colour, alpha=0.2, linewidth=0)
    mark_divergence(axes, rows, x=x, y=y, colour=colour)


def draw_against_setting(
    axes: Axes, of_grid: pd.DataFrame, axis: Axis, quantity: str, *, centre: str = "mean"
) -> pd.Series:
    """Draw a dot per seed and a line through their centres, at evenly spaced values of an axis.

    Args:
        axes: where.
        of_grid: columns learning_rate, batch_size, that of the axis, ``quantity``, is_bound, diverged; one row per run.
            Of a lower bound the dot is open.
        axis: on the x axis.
        quantity: column on the y axis.
        centre: mean or median, over the seeds that do not diverge.

    Returns:
        The place of each row on the x axis.
    """
    setting, colours = axis.column, colours_of(axis.field, of_grid[axis.column])
    values = list(colours)
    x = of_grid[setting].map({value: index for index, value in enumerate(values)})
    diverged = of_grid["diverged"]
    centres = of_grid[~diverged].groupby(x)[quantity].agg(centre)
    axes.plot(centres.index, centres, color=GREY)
    for value in values:
        for is_bound, style in ((False, DOT), (True, OPEN)):
            chosen = ~diverged & (of_grid[setting] == value) & (of_grid["is_bound"] == is_bound)
            if chosen.any():
                axes.plot(x[chosen], of_grid.loc[chosen, quantity], color=colours[value], **style)
    axes.plot(x[diverged], of_grid.loc[diverged, quantity], color=RED, **CROSS)
    axes.set_xticks(range(len(values)), [text(value) for value in values])
    axes.margins(x=0.1)
    fixed = fixed_in_words(of_grid, axis)
    axes.set_xlabel(axis.words + (f" ({fixed})" if fixed else ""))
    return x


def legend_of_dots(rows: pd.DataFrame, *, bound: str, centre: str = "mean") -> list[Line2D]:
    """What ``draw_against_setting`` draws, as entries of a legend.

    Args:
        rows: columns is_bound, diverged.
        bound: what an open dot means.
        centre: as ``draw_against_setting`` has it.
    """
    dots = [
        Line2D([], [], color=GREY, label="one seed", **DOT),
        Line2D([], [], color=GREY, label=f"{centre} over seeds"),
    ]
    if (rows["is_bound"] & ~rows["diverged"]).any():
        dots.append(Line2D([], [], color=GREY, label=bound, **OPEN))
    if rows["diverged"].any():
        dots.append(Line2D([], [], color=RED, label=f"diverged (not in the {centre})", **CROSS))
    return dots


def mark_divergence(axes: Axes, rows: pd.DataFrame, *, x: str, y: str, colour: Any) -> None:
    """A cross at the last finite value of each run that diverged."""
    for _, run in rows.groupby("run"):
        reached = run[np.isfinite(run[y]) & ~run["diverged"]].sort_values(x)
        if len(reached) and run["diverged"].any():
            axes.plot(reached[x].iloc[-1], reached[y].iloc[-1], color=colour, zorder=5, **CROSS)


def legend_of_divergence(rows: pd.DataFrame) -> list[Line2D]:
    """The cross as an entry of a legend, where any run diverged."""
    return [Line2D([], [], color="white", label="diverged", **CROSS)] if rows["diverged"].any() else []


def legend_of_losses(panels: Iterable[Axes], rows: pd.DataFrame, *by: str) -> list[Line2D]:
    """The cross as an entry of a legend where a panel has one, and how many ``by`` have no mark: they have no value."""
    has_cross = any(line.get_marker() == CROSS["marker"] for axes in panels for line in axes.get_lines())
    crosses = [Line2D([], [], color="white", label="diverged", **CROSS)] if has_cross else []
    lost = int(rows.groupby(list(by))["diverged"].all().sum())
    words_of_lost = f"{lost} {'run' if lost == 1 else 'runs'} diverged at once"
    return [*crosses, *([Line2D([], [], linestyle="none", label=words_of_lost)] if lost else [])]
