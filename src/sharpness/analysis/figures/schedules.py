"""What a change of the learning rate, early or late, does to the largest eigenvalue."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sharpness.analysis.figures.epochs import from_start
from sharpness.analysis.figures.legends import legend_below
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.palette import GREY, ordered_colours
from sharpness.analysis.figures.runs import name_of, text
from sharpness.analysis.figures.seeds import draw_over_seeds, legend_of_divergence
from sharpness.analysis.figures.stability import draw_limits, legend_of_limit, limits_of
from sharpness.analysis.figures.style import styled
from sharpness.analysis.tables import first_change, trajectory

NEVER = np.inf


@styled
def schedules(spectrum: pd.DataFrame) -> Figure:
    """The largest eigenvalue on a log scale over the epochs, a panel per grid, a colour per epoch of the change.

    A dot at each checkpoint; between the two that straddle a change, its line is dotted.

    Args:
        spectrum: columns grid, run and the run's fields, which, checkpoint, step, epoch, rank, eigenvalue.
    """
    largest = trajectory(spectrum).query("rank == 0")
    largest = largest.assign(change=largest["learning_rate_epochs"].map(first_change).fillna(NEVER))
    grids = [grid for _, grid in largest.groupby(["data", "model", "grid"], sort=False)]
    figure = Figure(figsize=(max(4.0, 3.3 * len(grids)), 3.4), layout="constrained")
    panels = figure.subplots(1, len(grids), squeeze=False, sharey=True)[0]
    for axes, of_grid in zip(panels, grids, strict=True):
        _draw_grid(axes, of_grid)
    panels[0].set_ylabel("largest eigenvalue")
    log_y(panels[0])
    for axes, of_grid in zip(panels, grids, strict=True):
        draw_limits(axes, dict.fromkeys(_limits(of_grid), "black"))
    legend_below(figure, [*_legend(), legend_of_limit(largest), *legend_of_divergence(largest)])
    return figure


def _limits(of_grid: pd.DataFrame) -> pd.Series:
    """The limit before and after the change."""
    rates = _rates(of_grid)
    return limits_of(pd.DataFrame([of_grid.iloc[0]] * len(rates)).assign(learning_rate=rates))


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
