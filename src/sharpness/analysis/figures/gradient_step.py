"""The gradient beside the step before: how long it is, and whether SGD goes straight on or turns back."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from sharpness.analysis.figures.epochs import early_label, stretch_early
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.palette import ordered_colours
from sharpness.analysis.figures.runs import OTHER, name_of, settings_in_words, text, words
from sharpness.analysis.figures.seeds import draw_over_seeds, legend_of_divergence
from sharpness.analysis.figures.style import styled
from sharpness.analysis.tables import batch_order


@styled
def gradient_step(gradient_step: pd.DataFrame) -> Figure:
    """Norm and angle over the epochs, a colour per value of the grid's setting: one row of panels per grid.

    Args:
        gradient_step: columns grid ("learning_rate", "batch_size" or another), run and the run's fields, epoch,
            diverged, gradient_norm, angle.
    """
    grids = [grid for _, grid in gradient_step.groupby(["data", "model", "grid"], sort=False)]
    figure = Figure(figsize=(7.2, 3.2 * len(grids)), layout="constrained")
    for part, of_grid in zip(figure.subfigures(len(grids), 1, squeeze=False)[:, 0], grids, strict=True):
        _draw_grid(part, of_grid)
    return figure


def _draw_grid(part: SubFigure, of_grid: pd.DataFrame) -> None:
    grid = of_grid["grid"].iloc[0]
    field = grid if grid in OTHER else "learning_rate"
    colours = ordered_colours(sorted(of_grid[field].unique(), key=batch_order))
    norm, angle = part.subplots(1, 2)
    for value, colour in colours.items():
        rows = of_grid[of_grid[field] == value]
        draw_over_seeds(norm, rows, x="epoch", y="gradient_norm", colour=colour)
        turned = rows[rows["angle"].notna() | rows["diverged"].astype(bool)]  # the first checkpoint has none before it
        draw_over_seeds(angle, turned, x="epoch", y="angle", colour=colour)
    norm.set_title("|gradient|")
    log_y(norm)
    angle.set_title("angle to the step before")
    _degrees(angle)
    last = of_grid["epoch"].max()
    for axes in (norm, angle):
        stretch_early(axes, last)
        axes.set_xlabel(early_label(last))
    fixed = settings_in_words(of_grid, OTHER[field])
    part.suptitle(f"{name_of(of_grid)}" + (f", {fixed}" if fixed else ""))
    handles = [Line2D([], [], color=colour, label=f"{words(field)} {text(value)}") for value, colour in colours.items()]
    right = Line2D([], [], color="black", linewidth=1, linestyle="--", label="90°: below it SGD turns back")
    part.legend(handles=[*handles, right, *legend_of_divergence(of_grid)], loc="outside lower center", ncols=3)


def _degrees(axes: Axes) -> None:
    axes.axhline(90, color="black", linewidth=1, linestyle="--")
    axes.set_ylim(0, 180)
    axes.set_yticks([0, 45, 90, 135, 180], ["0°", "45°", "90°", "135°", "180°"])
