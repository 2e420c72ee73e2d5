"""A row of panels for each grid of a table, with a colour for each value of its axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from sharpness.analysis.axes import grid_axes, with_axis
from sharpness.analysis.figures.legends import legend_below
from sharpness.analysis.figures.palette import colours_of
from sharpness.analysis.figures.runs import fixed_in_words, name_of, text
from sharpness.analysis.figures.seeds import legend_of_divergence
from sharpness.study.varied import Axis


@dataclass(frozen=True)
class Grid:
    """The rows of one grid, and how its values are told apart."""

    rows: pd.DataFrame
    axis: Axis  # what it varies
    colours: dict[object, str]  # by its values, in order

    @property
    def field(self) -> str:
        """The column of what it varies."""
        return self.axis.column

    @property
    def last(self) -> float:
        """Its last epoch."""
        return float(self.rows["epoch"].max())


def draw_grids(table: pd.DataFrame, draw_panels: Callable[[SubFigure, Grid], list[Line2D]], *, height: float) -> Figure:
    """Draw each grid in a part of its own, with its name above and its legend below.

    Args:
        table: columns data, model, grid and those of the runs.
        draw_panels: draws the panels, and returns the legend's lines for what they mark.
        height: of a part, in inches.
    """
    axes = grid_axes(table)
    grids = [grid for _, grid in table.groupby(["data", "model", "grid"], sort=False)]
    figure = Figure(figsize=(7.2, height * len(grids)), layout="constrained")
    for part, rows in zip(figure.subfigures(len(grids), 1, squeeze=False)[:, 0], grids, strict=True):
        axis = axes[rows["grid"].iloc[0]]
        shown = with_axis(rows, axis)
        colours = colours_of(axis.field, shown[axis.column])
        marks = draw_panels(part, Grid(shown, axis, colours))
        fixed = fixed_in_words(rows, axis)
        part.suptitle(name_of(rows) + (f", {fixed}" if fixed else ""))
        lines = [Line2D([], [], color=colour, label=f"{axis.words} {text(v)}") for v, colour in colours.items()]
        legend_below(part, [*lines, *marks, *legend_of_divergence(rows)])
    return figure
