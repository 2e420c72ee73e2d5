"""The gradient beside the curvature: stability, the sharpest subspace, and the noise of mini-batches."""

from typing import Any, NamedTuple

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
    grids = [grid for _, grid in table.groupby(["data", "model", "grid"], sort=False)]
    figure = Figure(figsize=(7.2, 4.6 * len(grids)), layout="constrained")
    for part, of_grid in zip(figure.subfigures(len(grids), 1, squeeze=False)[:, 0], grids, strict=True):
        _draw_grid(part, of_grid)
    return figure


def _draw_grid(part: SubFigure, of_grid: pd.DataFrame) -> None:
    grid = of_grid["grid"].iloc[0]
    field = grid if grid in OTHER else "learning_rate"
    values = sorted(of_grid[field].unique(), key=batch_order)
    colours = ordered_colours(values)
    count = of_grid["num_eigenvalues"].max()
    last = of_grid["epoch"].max()
    panels = part.subplots(2, 3, sharex=True)
    for axes, panel in zip(panels.T.ravel(), PANELS, strict=True):
        _draw_panel(axes, of_grid, panel, field, colours)
        axes.set_title(panel.title.format(k=int(count)))
        stretch_early(axes, last)
    for axes in panels[-1]:
        axes.set_xlabel(early_label(last))
    fixed = settings_in_words(of_grid, OTHER[field])
    part.suptitle(f"{name_of(of_grid)}" + (f", {fixed}" if fixed else ""))
    handles = [Line2D([], [], color=colours[value], label=f"{words(field)} {text(value)}") for value in values]
    limit = Line2D([], [], color="black", linewidth=1, linestyle="--", label="2: limit of stability")
    handles += [limit, *legend_of_divergence(of_grid)]
    part.legend(handles=handles, loc="outside lower center", ncols=3)


def _draw_panel(axes: Axes, rows: pd.DataFrame, panel: Panel, field: str, colours: dict[Any, str]) -> None:
    for value, colour in colours.items():
        draw_over_seeds(axes, rows[rows[field] == value], x="epoch", y=panel.column, colour=colour)
    if panel.title.startswith("η"):
        axes.axhline(STABLE, color="black", linewidth=1, linestyle="--")
    if panel.is_log:
        log_y(axes)
    else:
        axes.set_ylim(0, 1)
