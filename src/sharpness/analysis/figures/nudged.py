"""Accuracy and sharpness of SGD nudged towards sharper or flatter regions."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from sharpness.analysis.axes import grid_axes, with_axis
from sharpness.analysis.figures.epochs import from_start
from sharpness.analysis.figures.legends import legend_below
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.palette import colours_of
from sharpness.analysis.figures.runs import models, name_of, optimizer_in_words, settings_in_words, text
from sharpness.analysis.figures.seeds import draw_over_seeds, legend_of_divergence
from sharpness.analysis.figures.stability import draw_limits, legend_of_limit
from sharpness.analysis.figures.style import styled
from sharpness.analysis.tables import frobenius, trajectory, with_fields_of
from sharpness.study.varied import Axis

# Lines that lie on each other are told apart by their marks, too.
MARKERS = ("v", "s", "o", "^", "D")


@styled
def nudged(history: pd.DataFrame, spectrum: pd.DataFrame) -> Figure:
    """Validation accuracy, and spectral and Frobenius norm on a log scale, over the epochs, a colour per gamma.

    The Frobenius norm is the root of the sum of the squares of the tracked largest eigenvalues. A dotted line in the
    colour of each is the limit of stability along the directions that it nudges, where it is in sight.

    Args:
        history: columns grid, run and the run's fields, epoch, validation_accuracy, diverged.
        spectrum: columns grid, run and the run's fields, settings, which, checkpoint, step, epoch, rank,
            eigenvalue.
    """
    accuracies = history.drop_duplicates(["grid", "run", "epoch"])
    accuracies = accuracies.assign(percent=100 * accuracies["validation_accuracy"])
    eigenvalues, axes = trajectory(spectrum), grid_axes(accuracies)
    grids = [(axes[grid], rows) for grid in axes for rows in models(accuracies[accuracies["grid"] == grid])]
    figure = Figure(figsize=(7.6, 0.8 + 2.8 * len(grids)), layout="constrained")
    parts = figure.subfigures(len(grids), 1, squeeze=False)[:, 0]
    for part, (axis, of_grid) in zip(parts, grids, strict=True):
        same = eigenvalues
        for field in ("data", "model", "grid"):
            same = same[same[field] == of_grid[field].iloc[0]]
        rate = "" if axis.field == "learning_rate" else settings_in_words(of_grid, "learning_rate")
        part.suptitle(", ".join(filter(None, [name_of(of_grid), rate])))
        shown = with_axis(of_grid, axis)
        _draw_grid(part, shown, with_axis(same, axis), axis)
        if len(axes) > 1:
            legend_below(part, _legend(shown, axis))
    if len(axes) == 1:
        (axis,) = axes.values()
        legend_below(figure, _legend(with_axis(accuracies, axis), axis))
    return figure


def _draw_grid(part: SubFigure, accuracies: pd.DataFrame, eigenvalues: pd.DataFrame, axis: Axis) -> None:
    accuracy, spectral, whole = part.subplots(1, 3, sharex=True)
    whole.sharey(spectral)
    num_eigenvalues = _tracked(eigenvalues)
    largest = eigenvalues[eigenvalues["rank"] == 0]
    norms = with_axis(with_fields_of(frobenius(eigenvalues[eigenvalues["rank"] < num_eigenvalues]), eigenvalues), axis)
    panels = ((accuracy, accuracies, "percent"), (spectral, largest, "eigenvalue"), (whole, norms, "frobenius"))
    for axes, rows, quantity in panels:
        for value, (colour, marker) in _looks(accuracies, axis).items():
            of_value = rows[rows[axis.column] == value]
            draw_over_seeds(axes, of_value, x="epoch", y=quantity, colour=colour, marker=marker)
        axes.set_xlabel("epoch")
    from_start(accuracy, accuracies["epoch"].max())
    accuracy.set_title("validation accuracy (%)")
    spectral.set_title("largest eigenvalue")
    whole.set_title(f"Frobenius norm\nof {num_eigenvalues} eigenvalues")
    log_y(spectral)
    looks = _looks(accuracies, axis)
    draw_limits(spectral, largest, [looks[value][0] for value in largest[axis.column]])


def _tracked(eigenvalues: pd.DataFrame) -> int:
    """How many eigenvalues every checkpoint has that could be measured."""
    measured = eigenvalues[eigenvalues["eigenvalue"].notna()]
    return int(min(measured.groupby(["run", "step"])["rank"].nunique(), default=0))


def _looks(rows: pd.DataFrame, axis: Axis) -> dict[Any, tuple[str, str]]:
    """Colour and mark of each value of the axis."""
    colours = colours_of(axis.field, rows[axis.column])
    return {value: (colour, MARKERS[index % len(MARKERS)]) for index, (value, colour) in enumerate(colours.items())}


def _legend(accuracies: pd.DataFrame, axis: Axis) -> list[Line2D]:
    looks = _looks(accuracies, axis).items()
    names = [f"{axis.words} = {text(value)}{_beside(accuracies, axis, value)}" for value, _ in looks]
    lines = [
        Line2D([], [], color=colour, marker=marker, label=name)
        for name, (_, (colour, marker)) in zip(names, looks, strict=True)
    ]
    return [*lines, *legend_of_limit(accuracies), *legend_of_divergence(accuracies)]


def _beside(rows: pd.DataFrame, axis: Axis, value: object) -> str:
    """What a gamma of 1 is: the optimizer itself."""
    if axis.field != "gamma" or value != 1:
        return ""
    return f" ({optimizer_in_words(rows, several='not nudged')})"
