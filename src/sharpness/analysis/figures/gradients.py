"""The gradient beside the curvature: stability, the sharpest subspace, and the noise of mini-batches."""

import math
from typing import Any, Literal, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from sharpness.analysis.figures.epochs import early_label, stretch_early
from sharpness.analysis.figures.grids import Grid, draw_grids
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.runs import examples_in_words
from sharpness.analysis.figures.seeds import draw_over_seeds
from sharpness.analysis.figures.stability import limit_of_rate_times_eigenvalue
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
    """Six quantities over the epochs, a colour per value of the grid's axis: two rows of panels per grid.

    Args:
        gradients: columns grid, run and the run's fields, epoch,
            num_eigenvalues, num_examples, and those of ``PANELS``; batch_sharpness and learning_rate_now instead of
            rate_times_sharpness.
    """
    scaled = gradients["learning_rate_now"] * gradients["batch_sharpness"]
    table = gradients.assign(rate_times_sharpness=scaled)
    return draw_grids(table, _draw_panels, height=4.6)


def _draw_panels(part: SubFigure, grid: Grid) -> list[Line2D]:
    count = grid.rows["num_eigenvalues"].max()
    panels = part.subplots(2, 3, sharex=True)
    for axes, panel in zip(panels.T.ravel(), PANELS, strict=True):
        _draw_panel(axes, grid.rows, panel, grid.field, grid.colours)
        axes.set_title(panel.title.format(k=int(count), images=_images(grid.rows)))
        stretch_early(axes, grid.last)
    for axes in panels[-1]:
        axes.set_xlabel(early_label(grid.last))
    limit = limit_of_rate_times_eigenvalue(grid.rows)
    if math.isnan(limit):
        return []
    beside = "" if limit == STABLE else " with this momentum"
    words = f"{limit:.3g}: limit of stability of gradient descent{beside}"
    return [Line2D([], [], color="black", linewidth=1, linestyle="--", label=words)]


def _draw_panel(axes: Axes, rows: pd.DataFrame, panel: Panel, field: str, colours: dict[Any, str]) -> None:
    for value, colour in colours.items():
        draw_over_seeds(axes, rows[rows[field] == value], x="epoch", y=panel.column, colour=colour, marker=".")
    limit = limit_of_rate_times_eigenvalue(rows)
    # That of the largest eigenvalue is known for momentum, too.
    if panel.column == "rate_times_eigenvalue" or limit == STABLE:
        _draw_limit(axes, limit, panel)
    if panel.axis == "log":
        log_y(axes)
    elif panel.axis is not None:
        axes.set_ylim(*panel.axis)


def _draw_limit(axes: Axes, limit: float, panel: Panel) -> None:
    if panel.title.startswith("η") and not math.isnan(limit):
        axes.axhline(limit, color="black", linewidth=1, linestyle="--")


def _images(rows: pd.DataFrame) -> str:
    """On how many images the Hessian is, as the end of a title; nothing where it is unknown."""
    known = rows["num_examples"].dropna()
    ends = dict.fromkeys(f"{count:,.0f}" for count in (known.min(), known.max())) if len(known) else {}
    return f"\non {' to '.join(ends)} {examples_in_words(rows)}" if ends else ""
