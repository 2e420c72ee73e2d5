"""How high the largest eigenvalue rises and when, against learning rate and batch size."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from sharpness.analysis.axes import grid_axes, with_axis
from sharpness.analysis.figures.legends import legend_below
from sharpness.analysis.figures.log_axis import log_y, log_y_from_zero
from sharpness.analysis.figures.runs import models, name_of
from sharpness.analysis.figures.seeds import draw_against_setting, legend_of_dots
from sharpness.analysis.figures.stability import LOOK, legend_of_limit, limits_of
from sharpness.analysis.figures.style import styled
from sharpness.analysis.peak import peaks_of_runs
from sharpness.analysis.tables import with_fields_of
from sharpness.study.varied import Axis

QUANTITIES = {"peak_eigenvalue": "height of the peak", "peak_epoch": "epoch of the peak"}


@styled
def peaks(spectrum: pd.DataFrame) -> Figure:
    """Height and epoch of the largest eigenvalue's peak: a dot per seed, a line through the means.

    Two rows of panels per model, a column per grid. The dot of a run that has not fallen by its end is open.

    Args:
        spectrum: columns grid, run and the run's fields, which, checkpoint, step,
            epoch, rank, eigenvalue.
    """
    table = with_fields_of(peaks_of_runs(spectrum), spectrum).assign(is_bound=lambda rows: ~rows["has_fallen"])
    rows = models(table)
    figure = Figure(figsize=(6.4, 4.4 * len(rows)), layout="constrained")
    for part, of_model in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        part.suptitle(f"{name_of(of_model)}:\npeak of the largest eigenvalue")
        _draw_model(part, of_model)
    return figure


def _draw_model(part: SubFigure, of_model: pd.DataFrame) -> None:
    grids = grid_axes(of_model)
    panels = part.subplots(2, len(grids), squeeze=False, sharex="col", sharey="row")
    for row, (quantity, label) in zip(panels, QUANTITIES.items(), strict=True):
        for axes, (grid, axis) in zip(row, grids.items(), strict=True):
            _draw_quantity(axes, with_axis(of_model[of_model["grid"] == grid], axis), axis, quantity)
            axes.label_outer()
        row[0].set_ylabel(label)
    log_y(panels[0, 0])
    log_y_from_zero(*panels[1])
    legend_below(part, _legend(of_model))


def _draw_quantity(axes: Axes, of_grid: pd.DataFrame, axis: Axis, quantity: str) -> None:
    x = draw_against_setting(axes, of_grid, axis, quantity)
    if quantity == "peak_eigenvalue":
        limit = limits_of(of_grid).groupby(x).first()
        axes.plot(limit.index, limit, color="black", **LOOK)


def _legend(rows: pd.DataFrame) -> list[Line2D]:
    bound = "not fallen to 80 % by the end: peak there or later"
    return [*legend_of_dots(rows, bound=bound), *legend_of_limit(rows)]
