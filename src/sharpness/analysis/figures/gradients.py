"""The gradient beside the curvature: stability, the sharpest subspace, and the noise of mini-batches."""

from typing import Any, Literal, NamedTuple

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
    axis: tuple[float, float] | Literal["log"] | None  # from where to where; None: as far as there are values


PANELS = (
    Panel("rate_times_eigenvalue", "η λ₁{images}", None),
    Panel("rate_times_sharpness", "η × Batch Sharpness", None),
    Panel("fraction_inside", "|gradient|² in the top {k}", (0, 1)),
    Panel("overlap", "overlap of the top {k} with\nthe checkpoint before", (0, 1)),
    Panel("noise_largest", "λ₁ of the gradient\ncovariance", "log"),
    Panel("noise_trace", "trace of the gradient\ncovariance", "log"),
)


@styled
def gradients(gradients: pd.DataFrame) -> Figure:
    """Six quantities over the epochs, a colour per value of the grid's setting: two rows of panels per grid.

    Args:
        gradients: columns grid ("learning_rate", "batch_size" or another), run and the run's fields, epoch,
            num_eigenvalues, num_examples, and those of ``PANELS``; batch_sharpness and learning_rate_now instead of
            rate_times_sharpness.
    """
    scaled = gradients["learning_rate_now"] * gradients["batch_sharpness"]
    table = gradients.assign(rate_times_sharpness=scaled)
    return draw_grids(table, _draw_panels, height=4.6)


def _draw_panels(part: SubFigure, grid: Grid) -> Line2D:
    count = grid.rows["num_eigenvalues"].max()
    panels = part.subplots(2, 3, sharex=True)
    for axes, panel in zip(panels.T.ravel(), PANELS, strict=True):
        _draw_panel(axes, grid.rows, panel, grid.field, grid.colours)
        axes.set_title(panel.title.format(k=int(count), images=_images(grid.rows["num_examples"])))
        stretch_early(axes, grid.last)
    for axes in panels[-1]:
        axes.set_xlabel(early_label(grid.last))
    return Line2D([], [], color="black", linewidth=1, linestyle="--", label="2: limit of stability of gradient descent")


def _draw_panel(axes: Axes, rows: pd.DataFrame, panel: Panel, field: str, colours: dict[Any, str]) -> None:
    for value, colour in colours.items():
        draw_over_seeds(axes, rows[rows[field] == value], x="epoch", y=panel.column, colour=colour, marker=".")
    if panel.title.startswith("η"):
        axes.axhline(STABLE, color="black", linewidth=1, linestyle="--")
    if panel.axis == "log":
        log_y(axes)
    elif panel.axis is not None:
        axes.set_ylim(*panel.axis)


def _images(counts: pd.Series) -> str:
    """On how many images the Hessian is, as the end of a title; nothing where it is unknown."""
    known = counts.dropna()
    ends = dict.fromkeys(f"{count:,.0f}" for count in (known.min(), known.max())) if len(known) else {}
    return f"\non {' to '.join(ends)} images" if ends else ""
