"""The gradient beside the step before: how long it is, and whether SGD goes straight on or turns back."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from sharpness.analysis.figures.epochs import early_label, stretch_early
from sharpness.analysis.figures.grids import Grid, draw_grids
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.runs import optimizer_in_words
from sharpness.analysis.figures.seeds import draw_over_seeds
from sharpness.analysis.figures.style import styled


@styled
def gradient_step(gradient_step: pd.DataFrame) -> Figure:
    """Norm and angle over the epochs, a colour per value of the grid's axis: one row of panels per grid.

    Args:
        gradient_step: columns grid, run and the run's fields, epoch,
            diverged, gradient_norm, angle.
    """
    return draw_grids(gradient_step, _draw_panels, height=3.2)


def _draw_panels(part: SubFigure, grid: Grid) -> list[Line2D]:
    norm, angle = part.subplots(1, 2)
    for value, colour in grid.colours.items():
        rows = grid.rows[grid.rows[grid.field] == value]
        draw_over_seeds(norm, rows, x="epoch", y="gradient_norm", colour=colour)
        turned = rows[rows["angle"].notna() | rows["diverged"].astype(bool)]  # the first checkpoint has none before it
        draw_over_seeds(angle, turned, x="epoch", y="angle", colour=colour)
    norm.set_title("|gradient|")
    log_y(norm)
    angle.set_title("angle to the step before")
    _degrees(angle)
    for axes in (norm, angle):
        stretch_early(axes, grid.last)
        axes.set_xlabel(early_label(grid.last))
    words = f"90°: below it {optimizer_in_words(grid.rows, several='training')} turns back"
    return [Line2D([], [], color="black", linewidth=1, linestyle="--", label=words)]


def _degrees(axes: Axes) -> None:
    axes.axhline(90, color="black", linewidth=1, linestyle="--")
    axes.set_ylim(0, 180)
    axes.set_yticks([0, 45, 90, 135, 180], ["0°", "45°", "90°", "135°", "180°"])
