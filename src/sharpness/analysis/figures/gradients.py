"""The gradient beside the curvature: stability, the sharpest subspace, and the noise of mini-batches."""

from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from sharpness.analysis.figures.epochs import early_label, stretch_early
from sharpness.analysis.figures.grids import Grid, draw_grids
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.seeds import draw_over_seeds
from sharpness.analysis.figures.style import styled

STABLE = 2.0  # of a quadratic loss under gradient descent, at most


class Panel(NamedTuple):
    """One quantity over the epochs."""

    column: str
    title: str
    is_log: bool


PANELS = (
    Panel("rate_times_eigenvalue", "η λ₁", True),
    Panel("rate_times_sharpness", "η × Batch Sharpness", True),
    Panel("fraction_inside", "|gradient|² in the top {k}", False),
    Panel("overlap", "overlap of the top {k} with\nthe checkpoint before", False),
    Panel("noise_largest", "λ₁ of the gradient\ncovariance", True),
    Panel("noise_trace", "trace of the gradient\ncovariance", True),
)


@styled
def gradients(gradients: pd.DataFrame) -> Figure:
    """Six quantities over the epochs, a colour per value of the grid's setting: two rows of panels per grid.

    Args:
        gradients: columns grid ("learning_rate", "batch_size" or another), run and the run's fields, epoch, and those
            of ``PANELS``; batch_sharpness and learning_rate_now instead of rate_times_sharpness.
    """
    scaled = gradients["learning_rate_now"] * gradients["batch_sharpness"]
    table = gradients.assign(rate_times_sharpness=scaled)
    return draw_grids(table, _draw_panels, height=4.6)


def _draw_panels(part: SubFigure, grid: Grid) -> Line2D:
    count = grid.rows["num_eigenvalues"].max()
    panels = part.subplots(2, 3, sharex=True)
    for axes, panel in zip(panels.T.ravel(), PANELS, strict=True):
        _draw_panel(axes, grid.rows, panel, grid.field, grid.colours)
        axes.set_title(panel.title.format(k=int(count)))
        stretch_early(axes, grid.last)
    for axes in panels[-1]:
        axes.set_xlabel(early_label(grid.last))
    return Line2D([], [], color="black", linewidth=1, linestyle="--", label="2: limit of stability")


def _draw_panel(axes: Axes, rows: pd.DataFrame, panel: Panel, field: str, colours: dict[Any, str]) -> None:
    for value, colour in colours.items():
        draw_over_seeds(axes, rows[rows[field] == value], x="epoch", y=panel.column, colour=colour)
    if panel.title.startswith("η"):
        axes.axhline(STABLE, color="black", linewidth=1, linestyle="--")
    if panel.is_log:
        log_y(axes)
    else:
        axes.set_ylim(0, 1)
