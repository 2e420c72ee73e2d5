"""The two largest eigenvalues over training, for several learning rates and batch sizes."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sharpness.analysis.axes import grid_axes, with_axis
from sharpness.analysis.figures.bracket import draw_bracket, legend_of_bracket
from sharpness.analysis.figures.epochs import early_label, stretch_early
from sharpness.analysis.figures.legends import legend_above, legend_below
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.palette import GREY, colours_of
from sharpness.analysis.figures.runs import eigenvalue_in_words, fixed_in_words, models, name_of, text
from sharpness.analysis.figures.seeds import draw_over_seeds, legend_of_divergence
from sharpness.analysis.figures.stability import draw_limits, legend_of_limit, limits_of
from sharpness.analysis.figures.style import styled
from sharpness.analysis.peak import peaks_of_runs
from sharpness.analysis.tables import trajectory, with_fields_of
from sharpness.study.varied import Axis

LINESTYLES = {0: "-", 1: "--"}
PEAK: dict[str, Any] = {
    "marker": "o",
    "markersize": 7,
    "markeredgecolor": "black",
    "markeredgewidth": 0.8,
    "clip_on": False,
}
# Where a peak is a lower bound.
OPEN: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 1.4, "linestyle": "none"}


@styled
def eigenvalues(spectrum: pd.DataFrame) -> Figure:
    """The two largest eigenvalues on a log scale: a row of panels per model, a column per grid, a colour per value.

    A mark at the mean over seeds of the peaks of the largest, open where one had not fallen by the end; a hatched band
    down to the curvature along its eigenvector on other images.

    Args:
        spectrum: columns grid, run and the run's fields, which, checkpoint, step,
            epoch, rank, eigenvalue, and elsewhere if it was measured.
    """
    leading = trajectory(spectrum)
    leading = leading[leading["rank"].isin(list(LINESTYLES))]
    grids = grid_axes(leading)
    rows = models(leading)
    figure = Figure(figsize=(max(6.4, 3.3 * len(grids)), 0.4 + 3.0 * len(rows)), layout="constrained")
    for part, of_model in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        panels = part.subplots(1, len(grids), squeeze=False, sharey=True)[0]
        for axes, (grid, axis) in zip(panels, grids.items(), strict=True):
            _draw_grid(axes, of_model[of_model["grid"] == grid], axis, num_panels=len(grids))
            axes.set_xlabel(early_label(of_model["epoch"].max()))
        panels[0].set_ylabel(eigenvalue_in_words(of_model))
        part.suptitle(name_of(of_model))
    legend_below(figure, _legend(leading))
    return figure


def _draw_grid(axes: Axes, rows: pd.DataFrame, axis: Axis, *, num_panels: int) -> None:
    if rows.empty:
        axes.set_title(f"{axis.words}: not measured")
        return
    rows, grid = with_axis(rows, axis), axis.column
    colours = colours_of(axis.field, rows[grid])
    for value, colour in colours.items():
        for rank, linestyle in LINESTYLES.items():
            line = rows[(rows[grid] == value) & (rows["rank"] == rank)]
            draw_over_seeds(axes, line, x="epoch", y="eigenvalue", colour=colour, linestyle=linestyle)
    _draw_peaks(axes, with_axis(with_fields_of(peaks_of_runs(rows), rows), axis), grid, colours)
    stretch_early(axes, rows["epoch"].max())
    log_y(axes)
    for value, colour in colours.items():
        draw_bracket(axes, rows[rows[grid] == value], colour=colour)
    # To rounding, since a schedule is followed in updates, of which an epoch has more with smaller batches.
    is_one = grid != "learning_rate" and limits_of(rows).map("{:.6g}".format).groupby(rows["epoch"]).nunique().max() < 2
    draw_limits(axes, rows, rows[grid].map(dict.fromkeys(colours, "black") if is_one else colours))
    fixed = fixed_in_words(rows, axis)
    lines = [Line2D([], [], color=colour, label=text(value)) for value, colour in colours.items()]
    legend_above(axes, lines, title=axis.words + (f" ({fixed})" if fixed else ""), num_panels=num_panels)


def _draw_peaks(axes: Axes, found: pd.DataFrame, grid: str, colours: dict[Any, str]) -> None:
    """Mark the mean over seeds of each run's own peak: the height and the epoch that the figure ``peaks`` shows."""
    of_seeds = found[~found["diverged"]].groupby(grid)
    means = of_seeds[["peak_epoch", "peak_eigenvalue"]].mean().assign(has_fallen=of_seeds["has_fallen"].all())
    marks = means.loc[[value for value in colours if value in means.index]]
    axes.plot(marks["peak_epoch"], marks["peak_eigenvalue"], color="black", linewidth=1, linestyle=":", zorder=3.5)
    for value, (epoch, height, has_fallen) in marks.iterrows():
        look = {} if has_fallen else OPEN | {"markeredgecolor": colours[value]}
        axes.plot(epoch, height, color=colours[value], zorder=4, **(PEAK | look))


def _legend(rows: pd.DataFrame) -> list[Any]:
    known = peaks_of_runs(rows).query("not diverged")
    is_open = (
        []
        if known["has_fallen"].all()
        else [
            Line2D(
                [], [], color=GREY, label="not fallen to 80 % by the end", **(PEAK | OPEN | {"markeredgecolor": GREY})
            )
        ]
    )
    return [
        Line2D([], [], color=GREY, linestyle="-", label="largest"),
        Line2D([], [], color=GREY, linestyle="--", label="second"),
        Line2D([], [], color=GREY, linestyle=":", label="peak of the largest", **PEAK),
        *is_open,
        *legend_of_limit(rows, GREY),
        *legend_of_bracket(rows, GREY),
        *legend_of_divergence(rows),
    ]
