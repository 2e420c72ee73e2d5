"""How high the largest eigenvalue rises and when, against learning rate and batch size."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from sharpness.analysis import tables
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.runs import OTHER, models, name_of, words
from sharpness.analysis.figures.seeds import draw_against_setting, legend_of_dots
from sharpness.analysis.figures.stability import LOOK, legend_of_limit
from sharpness.analysis.figures.style import styled

# What the poster claims: with a larger learning rate or a smaller batch the peak is lower and earlier.
FALLS = {"learning_rate": True, "batch_size": False}
QUANTITIES = {"peak_eigenvalue": "height of the peak", "peak_epoch": "epoch of the peak"}


@styled
def peaks(spectrum: pd.DataFrame) -> Figure:
    """Height and epoch of the largest eigenvalue's peak: a dot per seed, a line through the means.

    Two rows of panels per model, a column per grid; above each panel, whether its quantity follows the setting.

    Args:
        spectrum: columns grid ("learning_rate", "batch_size"), run and the run's fields, which, checkpoint, step,
            epoch, rank, eigenvalue.
    """
    table = tables.peaks(spectrum)
    table = table[table["grid"].isin(list(OTHER))]
    rows = models(table)
    figure = Figure(figsize=(6.4, 4.4 * len(rows)), layout="constrained")
    for part, of_model in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        part.suptitle(f"{name_of(of_model)}: peak of the largest eigenvalue")
        _draw_model(part, of_model)
    return figure


def _draw_model(part: SubFigure, of_model: pd.DataFrame) -> None:
    grids = [grid for grid in OTHER if (of_model["grid"] == grid).any()]
    panels = part.subplots(2, len(grids), squeeze=False, sharex="col", sharey="row")
    for row, (quantity, label) in zip(panels, QUANTITIES.items(), strict=True):
        for axes, grid in zip(row, grids, strict=True):
            of_grid = of_model[of_model["grid"] == grid]
            _draw_quantity(axes, of_grid, grid, quantity)
            axes.set_title(_finding(of_grid, grid, quantity))
            axes.label_outer()
        row[0].set_ylabel(label)
    part.legend(handles=_legend(of_model), loc="outside lower center", ncols=4)


def _draw_quantity(axes: Axes, of_grid: pd.DataFrame, grid: str, quantity: str) -> None:
    x = draw_against_setting(axes, of_grid, grid, quantity)
    if quantity == "peak_eigenvalue":
        limit = (2 / of_grid["learning_rate"]).groupby(x).first()
        axes.plot(limit.index, limit, color="black", **LOOK)
        log_y(axes)


def _finding(of_grid: pd.DataFrame, grid: str, quantity: str) -> str:
    order = tables.ordering(of_grid, quantity, by=grid, falls=FALLS[grid])
    verbs = {
        ("peak_eigenvalue", True): "falls with",
        ("peak_eigenvalue", False): "rises with",
        ("peak_epoch", True): "earlier with",
        ("peak_epoch", False): "later with",
    }
    answer = {0: "no", order.num_seeds: "yes"}.get(order.num_ordered, "partly")
    if not order.num_seeds:
        return f"{verbs[quantity, FALLS[grid]]} {words(grid)}: one value only"
    return f"{verbs[quantity, FALLS[grid]]} {words(grid)}: {answer}, {order.num_ordered} of {order.num_seeds} seeds"


def _legend(rows: pd.DataFrame) -> list[Line2D]:
    return [*legend_of_dots(rows), legend_of_limit()]
