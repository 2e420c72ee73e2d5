"""The two largest eigenvalues over training, for several learning rates and batch sizes."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sharpness.analysis.figures.epochs import early_label, stretch_early
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.palette import GREY, ordered_colours
from sharpness.analysis.figures.runs import OTHER, models, name_of, settings_in_words, text, words
from sharpness.analysis.figures.seeds import draw_over_seeds, legend_of_divergence
from sharpness.analysis.figures.stability import draw_limits, legend_of_limit
from sharpness.analysis.figures.style import styled
from sharpness.analysis.tables import batch_order, trajectory

GRIDS = ("learning_rate", "batch_size")
LINESTYLES = {0: "-", 1: "--"}
PEAK: dict[str, Any] = {
    "marker": "o",
    "markersize": 7,
    "markeredgecolor": "black",
    "markeredgewidth": 0.8,
    "clip_on": False,
}


@styled
def eigenvalues(spectrum: pd.DataFrame) -> Figure:
    """The two largest eigenvalues on a log scale: a row of panels per model, a column per grid, a colour per value.

    Args:
        spectrum: columns grid ("learning_rate", "batch_size"), run and the run's fields, which, checkpoint, step,
            epoch, rank, eigenvalue.
    """
    leading = trajectory(spectrum)
    leading = leading[leading["grid"].isin(GRIDS) & leading["rank"].isin(list(LINESTYLES))]
    grids = [grid for grid in GRIDS if (leading["grid"] == grid).any()]
    rows = models(leading)
    figure = Figure(figsize=(max(4.2, 3.3 * len(grids)), 0.5 + 2.7 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(grids), squeeze=False, sharey="row")
    for row, of_model in zip(panels, rows, strict=True):
        for axes, grid in zip(row, grids, strict=True):
            _draw_grid(axes, of_model[of_model["grid"] == grid], grid)
        row[0].set_ylabel(f"{name_of(of_model)}\neigenvalue of the Hessian")
    for axes in panels[-1]:
        axes.set_xlabel(early_label(leading["epoch"].max()))
    figure.legend(handles=_legend(leading), loc="outside lower center", ncols=4)
    return figure


def _draw_grid(axes: Axes, rows: pd.DataFrame, grid: str) -> None:
    if rows.empty:
        axes.set_title(f"{words(grid)}: not measured")
        return
    values = sorted(rows[grid].unique(), key=batch_order)
    colours = ordered_colours(values)
    peaks = []
    for value in values:
        for rank, linestyle in LINESTYLES.items():
            line = rows[(rows[grid] == value) & (rows["rank"] == rank)]
            mean = draw_over_seeds(axes, line, x="epoch", y="eigenvalue", colour=colours[value], linestyle=linestyle)
            if rank == 0 and len(mean):
                peaks.append((mean.idxmax(), mean.max()))
                axes.plot(*peaks[-1], color=colours[value], zorder=4, **PEAK)
    axes.plot(*zip(*peaks, strict=True), color="black", linewidth=1, linestyle=":", zorder=3.5)
    stretch_early(axes, rows["epoch"].max())
    log_y(axes)
    rates = rows["learning_rate"].unique()
    draw_limits(axes, colours if grid == "learning_rate" else dict.fromkeys(rates, "black"))
    _legend_of_values(axes, rows, grid, colours)


def _legend_of_values(axes: Axes, rows: pd.DataFrame, grid: str, colours: dict[Any, str]) -> None:
    fixed = settings_in_words(rows, OTHER[grid])
    axes.legend(
        handles=[Line2D([], [], color=colour, label=text(value)) for value, colour in colours.items()],
        title=words(grid) + (f" ({fixed})" if fixed else ""),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(colours),
        borderaxespad=0.2,
    )


def _legend(rows: pd.DataFrame) -> list[Line2D]:
    return [
        Line2D([], [], color=GREY, linestyle="-", label="largest"),
        Line2D([], [], color=GREY, linestyle="--", label="second"),
        Line2D([], [], color=GREY, linestyle=":", label="peak of the largest", **PEAK),
        legend_of_limit(GREY),
        *legend_of_divergence(rows),
    ]
