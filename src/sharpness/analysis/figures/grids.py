"""A row of panels for each grid of a table, with a colour for each value of the grid's setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from sharpness.analysis.figures.legends import legend_below
from sharpness.analysis.figures.palette import colour_of
from sharpness.analysis.figures.runs import OTHER, name_of, settings_in_words, text, words
from sharpness.analysis.figures.seeds import legend_of_divergence
from sharpness.analysis.tables import batch_order


@dataclass(frozen=True)
class Grid:
    """The rows of one grid, and how its values are told apart."""

    rows: pd.DataFrame
    field: str  # the setting that it varies
    colours: dict[object, str]  # by its values, in order

    @property
    def last(self) -> float:
        """Its last epoch."""
        return float(self.rows["epoch"].max())


def draw_grids(table: pd.DataFrame, draw_panels: Callable[[SubFigure, Grid], Line2D], *, height: float) -> Figure:
    """Draw each grid in a part of its own, with its name above and its legend below.

    Args:
        table: columns data, model, grid ("learning_rate", "batch_size" or another) and those of the runs.
        draw_panels: draws the panels, and returns the legend's line for what they mark.
        height: of a part, in inches.
    """
    grids = [grid for _, grid in table.groupby(["data", "model", "grid"], sort=False)]
    figure = Figure(figsize=(7.2, height * len(grids)), layout="constrained")
    for part, rows in zip(figure.subfigures(len(grids), 1, squeeze=False)[:, 0], grids, strict=True):
        name = rows["grid"].iloc[0]
        field = name if name in OTHER else "learning_rate"
        colours = {value: colour_of(field, value) for value in sorted(rows[field].unique(), key=batch_order)}
        mark = draw_panels(part, Grid(rows, field, colours))
        fixed = settings_in_words(rows, OTHER[field])
        part.suptitle(name_of(rows) + (f", {fixed}" if fixed else ""))
        lines = [Line2D([], [], color=colour, label=f"{words(field)} {text(v)}") for v, colour in colours.items()]
        legend_below(part, [*lines, mark, *legend_of_divergence(rows)])
    return figure
