"""How wide the bowl along the top eigenvector is, against learning rate and batch size."""

import pandas as pd
from matplotlib.figure import Figure

from sharpness.analysis import tables
from sharpness.analysis.figures.legends import legend_below
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.runs import OTHER, models, name_of
from sharpness.analysis.figures.seeds import draw_against_setting, legend_of_dots
from sharpness.analysis.figures.style import styled


@styled
def widths(slices: pd.DataFrame) -> Figure:
    """Width of the bowl on a log scale: a dot per seed, a line through the means; a row per model, a column per grid.

    Args:
        slices: columns grid ("learning_rate", "batch_size"), run and the run's fields, step, epoch, k, loss, scale.
    """
    table = tables.bowl_widths(slices).merge(slices[["run", "num_training"]].drop_duplicates(), on="run")
    table = table[table["grid"].isin(list(OTHER))].assign(is_bound=False)
    rows = models(table)
    grids = [grid for grid in OTHER if (table["grid"] == grid).any()]
    figure = Figure(figsize=(max(4.2, 3.2 * len(grids)), 0.5 + 2.7 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(grids), squeeze=False, sharey="row")
    for row, of_model in zip(panels, rows, strict=True):
        for axes, grid in zip(row, grids, strict=True):
            draw_against_setting(axes, of_model[of_model["grid"] == grid], grid, "width")
        row[0].set_ylabel("width of the bowl (distance)")
        row[0].set_title(name_of(of_model), loc="left")
        log_y(row[0])
    legend_below(figure, legend_of_dots(table, bound=""))
    return figure
