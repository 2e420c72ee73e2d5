"""What a change of the learning rate, early or late, does to the largest eigenvalue."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sharpness.analysis.axes import grid_axes, with_axis
from sharpness.analysis.figures.epochs import from_start
from sharpness.analysis.figures.legends import legend_below
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.palette import GREY, colours_of, ordered_colours
from sharpness.analysis.figures.runs import name_of, settings_in_words, text
from sharpness.analysis.figures.seeds import draw_over_seeds, legend_of_divergence
from sharpness.analysis.figures.stability import draw_limits, legend_of_limit
from sharpness.analysis.figures.style import styled
from sharpness.analysis.tables import first_change, trajectory
from sharpness.study.varied import Axis

NEVER = np.inf
# Axes of grids whose runs are told apart by the epoch of the change.
CHANGES = ("learning_rate", "learning_rate_epochs")


@styled
def schedules(spectrum: pd.DataFrame) -> Figure:
    """The largest eigenvalue on a log scale over the epochs, a panel per grid, a colour per change or schedule.

    A dot at each checkpoint; between the two that straddle a change, its line is dotted.

    Args:
        spectrum: columns grid, run and the run's fields, which, checkpoint, step, epoch, rank, eigenvalue.
    """
    largest = trajectory(spectrum).query("rank == 0")
    axes = grid_axes(largest)
    largest = largest.assign(change=largest["learning_rate_epochs"].map(first_change).fillna(NEVER))
    grids = [grid for _, grid in largest.groupby(["data", "model", "grid"], sort=False)]
    figure = Figure(figsize=(max(4.0, 3.3 * len(grids)), 3.4), layout="constrained")
    panels = figure.subplots(1, len(grids), squeeze=False, sharey=True)[0]
    limits = []
    for panel, of_grid in zip(panels, grids, strict=True):
        axis = axes[of_grid["grid"].iloc[0]]
        if axis.field in CHANGES:
            _draw_grid(panel, of_grid)
            limited = _before_and_after(of_grid)
            limits.append((limited, ["black"] * len(limited)))
        else:
            limits.append(_draw_axis(panel, with_axis(of_grid, axis), axis))
    panels[0].set_ylabel("largest eigenvalue")
    log_y(panels[0])
    for panel, (limited, colours) in zip(panels, limits, strict=True):
        draw_limits(panel, limited, colours)
    changes = _legend() if any(axis.field in CHANGES for axis in axes.values()) else _legend()[:1]
    legend_below(figure, [*changes, *legend_of_limit(largest), *legend_of_divergence(largest)])
    return figure


def _before_and_after(of_grid: pd.DataFrame) -> pd.DataFrame:
    """A row for the learning rate before, and one for that after the change: for the limit of each."""
    rates = _rates(of_grid)
    return pd.DataFrame([of_grid.iloc[0]] * len(rates)).assign(learning_rate=rates, learning_rate_epochs="")


def _draw_axis(axes: Axes, of_grid: pd.DataFrame, axis: Axis) -> tuple[pd.DataFrame, list[str]]:
    """A line for each schedule, or whatever else a grid varies; returns the rows and the colour of each one's limit."""
    colours = colours_of(axis.field, of_grid[axis.column])
    for value, colour in colours.items():
        of_value = of_grid[of_grid[axis.column] == value]
        draw_over_seeds(axes, of_value, x="epoch", y="eigenvalue", colour=colour, marker=".")
    lines = [Line2D([], [], color=colour, label=text(value)) for value, colour in colours.items()]
    axes.legend(handles=lines, title=axis.words, loc="best")
    rate = settings_in_words(of_grid, "learning_rate")
    axes.set_title("\n".join(filter(None, [name_of(of_grid), rate])), loc="left", fontsize="small")
    axes.set_xlabel("epoch")
    from_start(axes, of_grid["epoch"].max())
    return of_grid, [colours[value] for value in of_grid[axis.column]]


def _rates(of_grid: pd.DataFrame) -> list[float]:
    """The learning rate before and after the change."""
    rate = of_grid["learning_rate"].iloc[0]
    changed = of_grid[of_grid["change"] != NEVER]
    return [rate, *(rate * changed["learning_rate_factor"].unique())]


def _draw_grid(axes: Axes, of_grid: pd.DataFrame) -> None:
    changes = sorted(of_grid["change"].unique())
    colours = ordered_colours([change for change in changes if change != NEVER]) | {NEVER: GREY}
    last = of_grid["epoch"].max()
    # The line that others leave lies below them.
    for change in reversed(changes):
        line = of_grid[of_grid["change"] == change]
        _draw_around(axes, line, change, colour=colours[change])
    named = {change: "never" if change == NEVER else f"after epoch {change:g}" for change in changes}
    axes.legend(
        handles=[Line2D([], [], color=colours[change], label=label) for change, label in named.items()],
        title="rate changed",
        loc="best",
    )
    rates = " to ".join(map(text, _rates(of_grid)))
    axes.set_title(f"{name_of(of_grid)}\nlearning rate from {rates}", loc="left", fontsize="small")
    axes.set_xlabel("epoch")
    from_start(axes, last)


def _draw_around(axes: Axes, rows: pd.DataFrame, change: float, *, colour: str) -> None:
    """Draw the checkpoints before and after a change of the rate, and no more than a hint between."""
    if change != NEVER:
        axes.axvline(change, color=colour, linewidth=0.8, linestyle="--", zorder=0)
    before, after = rows[rows["epoch"] <= change], rows[rows["epoch"] > change]
    # A run that was lost later has its cross once, at the last value that it had.
    lost_later = set(after.loc[~after["diverged"], "run"])
    for part in (before[~(before["run"].isin(lost_later) & before["diverged"])], after):
        draw_over_seeds(axes, part, x="epoch", y="eigenvalue", colour=colour, marker=".")
    straddling = rows[rows["epoch"].isin([before["epoch"].max(), after["epoch"].min()]) & ~rows["diverged"]]
    means = straddling.groupby("epoch")["eigenvalue"].mean().dropna()
    axes.plot(means.index, means, color=colour, linewidth=1, linestyle=":")


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color=GREY, marker=".", label="checkpoint"),
        Line2D([], [], color=GREY, linewidth=0.8, linestyle="--", label="change of the rate"),
    ]
