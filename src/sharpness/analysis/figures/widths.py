"""How wide the bowl along the top eigenvector is, against learning rate and batch size."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sharpness.analysis.axes import grid_axes, with_axis
from sharpness.analysis.figures.legends import legend_below
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.runs import models, name_of
from sharpness.analysis.figures.seeds import draw_against_setting, legend_of_dots
from sharpness.analysis.figures.style import styled
from sharpness.analysis.rise import RISE, distance_of_rise
from sharpness.analysis.tables import RUN, distances_of, with_fields_of
from sharpness.study.kinds import FROM_EPOCH


@styled
def widths(slices: pd.DataFrame) -> Figure:
    """Width of the bowl on a log scale: a dot per seed, a line through the medians; a row per model, a column per grid.

    The width of a slice is the distance downhill at which the loss has risen by ``RISE``; that of a seed is the median
    over its slices from ``FROM_EPOCH`` on. One that does not rise so far is an open dot at the upper edge.

    Args:
        slices: columns grid, run and the run's fields, step, epoch, k, loss, scale, and
            distance if it was measured.
    """
    table = with_fields_of(widths_of_runs(slices), slices)
    grids = grid_axes(table)
    rows = models(table)
    figure = Figure(figsize=(max(4.6, 3.2 * len(grids)), 0.7 + 2.9 * len(rows)), layout="constrained")
    for part, of_model in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        panels = part.subplots(1, len(grids), squeeze=False, sharey=True)[0]
        largest = of_model.loc[np.isfinite(of_model["width"]), "width"].max()
        edge = 1.5 * largest if largest > 0 else 1.0
        shown = of_model.assign(width=of_model["width"].replace(np.inf, edge))
        for axes, (grid, axis) in zip(panels, grids.items(), strict=True):
            of_grid = with_axis(shown[shown["grid"] == grid], axis)
            draw_against_setting(axes, of_grid, axis, "width", centre="median")
        panels[0].set_ylabel(f"distance to a rise by {RISE:g}")
        log_y(panels[0])
        if shown["is_bound"].any():
            panels[0].set_ylim(top=edge)
        part.suptitle(name_of(of_model))
    legend_below(figure, legend_of_dots(table, bound="wider than was measured", centre="median"))
    return figure


def widths_of_runs(slices: pd.DataFrame) -> pd.DataFrame:
    """The width of the bowl of each run.

    Args:
        slices: as ``widths`` takes them.

    Returns:
        One row per grid and run: its fields, width (infinite where the loss does not rise so far in half of the slices
        or more, NaN where no slice counts), is_bound (whether it is infinite), diverged.
    """
    rows = []
    unique = slices.assign(distance=distances_of(slices)).drop_duplicates(["grid", "run", "step", "distance"])
    for key, run in unique.groupby(RUN, sort=False, dropna=False):
        late = run[(run["epoch"] >= FROM_EPOCH) & ~run["diverged"]].sort_values("distance")
        found = [distance_of_rise(each["distance"], each["loss"]) for _, each in late.groupby("step")]
        width = float(pd.Series(found, dtype=float).median())
        measured = {"width": width, "is_bound": np.isinf(width), "diverged": bool(run["diverged"].any())}
        rows.append({**dict(zip(RUN, key, strict=True)), **measured})
    return pd.DataFrame(rows)
