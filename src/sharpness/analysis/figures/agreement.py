"""What a cheaper setting changes, beside the spread over seeds."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sharpness.analysis.agreement import compare, label_ways
from sharpness.analysis.figures.epochs import from_start
from sharpness.analysis.figures.legends import legend_under
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.palette import BLUE, GREEN, GREY, ORANGE, RED
from sharpness.analysis.figures.runs import name_of, words
from sharpness.analysis.figures.seeds import draw_over_seeds, legend_of_divergence
from sharpness.analysis.figures.style import styled
from sharpness.analysis.tables import trajectory

# Two lines that lie on each other are both seen: the reference is drawn first, and solid.
_STYLES: list[tuple[str, Any]] = [
    (GREY, "-"),
    (RED, "--"),
    (BLUE, ":"),
    (GREEN, "-."),
    (ORANGE, "--"),
    (BLUE, "-."),
    ("black", ":"),
]


@styled
def agreement(spectrum: pd.DataFrame, history: pd.DataFrame) -> Figure:
    """Largest eigenvalue, on a log scale, and validation accuracy over the epochs: a column per grid, a line per way.

    Args:
        spectrum: columns grid, run and the run's fields, which, checkpoint, step, epoch, rank, eigenvalue.
        history: columns grid, run and the run's fields, epoch, validation_accuracy, test_accuracy, training_loss,
            diverged, num_direction_products.
    """
    numbers, ways = compare(history, spectrum), label_ways(spectrum)
    keys = ["data", "model", "grid"]
    history = history.drop_duplicates(["grid", "run", "epoch"]).merge(ways, on=[*keys, "run"])
    history = history.assign(percent=100 * history["validation_accuracy"])
    largest = trajectory(spectrum).query("rank == 0").merge(ways, on=[*keys, "run"])
    places = list(ways[keys].drop_duplicates().itertuples(index=False, name=None))
    height = 5.2 + 0.2 * ways["way"].nunique()
    figure = Figure(figsize=(max(5.2, 4.2 * len(places)), height), layout="constrained")
    panels = figure.subplots(2, len(places), squeeze=False, sharex="col")
    for (upper, lower), place in zip(panels.T, places, strict=True):
        here, curves, found = (rows[(rows[keys] == list(place)).all(axis=1)] for rows in (history, largest, numbers))
        _draw(upper, lower, curves, here)
        _add_legend(lower, here, found, num_panels=len(places))
        upper.set_title(f"{words(place[2])}: {name_of(here)}", loc="left")
    return figure


def _draw(upper: Axes, lower: Axes, largest: pd.DataFrame, history: pd.DataFrame) -> None:
    for way, (colour, linestyle) in _styles(history).items():
        look = {"x": "epoch", "colour": colour, "linestyle": linestyle}
        draw_over_seeds(upper, largest[largest["way"] == way], y="eigenvalue", **look)
        draw_over_seeds(lower, history[history["way"] == way], y="percent", **look)
    upper.set_ylabel("largest eigenvalue")
    log_y(upper)
    lower.set_ylabel("validation accuracy (%)")
    lower.set_xlabel("epoch")
    from_start(lower, history["epoch"].max())


def _styles(history: pd.DataFrame) -> dict[str, tuple[str, Any]]:
    ways = list(history["way"].unique())
    return {way: _STYLES[index % len(_STYLES)] for index, way in enumerate(ways)}


def _add_legend(axes: Axes, history: pd.DataFrame, numbers: pd.DataFrame, *, num_panels: int) -> None:
    """Below the panel: what each line is, and by how much it differs from the first."""
    handles = []
    for way, (colour, linestyle) in _styles(history).items():
        ratios = numbers[numbers["way"] == way].set_index("quantity")["ratio"]
        label = f"{way}: reference"
        if len(ratios):
            label = f"{way}: {ratios['largest eigenvalue']:.1f}, {ratios['test accuracy']:.1f}"
        handles.append(Line2D([], [], color=colour, linestyle=linestyle, label=label))
    legend_under(
        axes,
        [*handles, *legend_of_divergence(history)],
        title="eigenvalue and test accuracy differ by so many spreads over seeds",
        num_panels=num_panels,
    )
