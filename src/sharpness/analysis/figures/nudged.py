"""Accuracy and sharpness of SGD nudged towards sharper or flatter regions."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sharpness.analysis.figures.epochs import from_start
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.palette import ordered_colours
from sharpness.analysis.figures.runs import models, name_of, settings_in_words, text
from sharpness.analysis.figures.seeds import draw_over_seeds, legend_of_divergence
from sharpness.analysis.figures.stability import draw_limits, legend_of_limit
from sharpness.analysis.figures.style import styled
from sharpness.analysis.tables import frobenius, trajectory


@styled
def nudged(history: pd.DataFrame, spectrum: pd.DataFrame) -> Figure:
    """Validation accuracy, and spectral and Frobenius norm on a log scale, over the epochs, a colour per gamma.

    The Frobenius norm is the root of the sum of the squares of the tracked largest eigenvalues.

    Args:
        history: columns grid ("gamma"), run and the run's fields, epoch, validation_accuracy, diverged.
        spectrum: columns grid ("gamma"), run and the run's fields, settings, which, checkpoint, step, epoch, rank,
            eigenvalue.
    """
    accuracies = history[history["grid"] == "gamma"].drop_duplicates(["run", "epoch"])
    accuracies = accuracies.assign(percent=100 * accuracies["validation_accuracy"])
    eigenvalues = trajectory(spectrum).query("grid == 'gamma'")
    names = accuracies[["data", "model"]].drop_duplicates()
    figure = Figure(figsize=(6.6, 0.8 + 2.6 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), 2, squeeze=False, sharex="row")
    for (left, right), of_model in zip(panels, models(accuracies), strict=True):
        same = (eigenvalues["data"] == of_model["data"].iloc[0]) & (eigenvalues["model"] == of_model["model"].iloc[0])
        _draw_model(left, right, of_model, eigenvalues[same])
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    handles = _legend(accuracies)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)))
    return figure


def _draw_model(left: Axes, right: Axes, accuracies: pd.DataFrame, eigenvalues: pd.DataFrame) -> None:
    num_eigenvalues = _tracked(eigenvalues)
    largest = eigenvalues[eigenvalues["rank"] == 0]
    norms = frobenius(eigenvalues[eigenvalues["rank"] < num_eigenvalues])
    for gamma, colour in _colours(accuracies).items():
        of_gamma = accuracies[accuracies["gamma"] == gamma]
        draw_over_seeds(left, of_gamma, x="epoch", y="percent", colour=colour)
        draw_over_seeds(right, largest[largest["gamma"] == gamma], x="epoch", y="eigenvalue", colour=colour)
        draw_over_seeds(right, norms[norms["gamma"] == gamma], x="epoch", y="frobenius", colour=colour, linestyle="--")
    from_start(left, accuracies["epoch"].max())
    left.set_ylabel("validation accuracy (%)")
    left.set_title(f"{name_of(accuracies)}\n{settings_in_words(accuracies, 'learning_rate')}", loc="left")
    right.set_ylabel("norm of the Hessian")
    right.set_title(f"solid: spectral norm\ndashed: Frobenius norm of {num_eigenvalues} eigenvalues", loc="left")
    log_y(right)
    draw_limits(right, dict.fromkeys(eigenvalues["learning_rate"].unique(), "black"))


def _tracked(eigenvalues: pd.DataFrame) -> int:
    """How many eigenvalues every checkpoint has that could be measured."""
    measured = eigenvalues[eigenvalues["eigenvalue"].notna()]
    return int(min(measured.groupby(["run", "step"])["rank"].nunique(), default=0))


def _colours(rows: pd.DataFrame) -> dict[float, str]:
    return ordered_colours(sorted(rows["gamma"].unique()))


def _legend(accuracies: pd.DataFrame) -> list[Line2D]:
    gammas = [
        Line2D([], [], color=colour, label=f"γ = {text(gamma)}" + (" (SGD)" if gamma == 1 else ""))
        for gamma, colour in _colours(accuracies).items()
    ]
    return [*gammas, legend_of_limit(), *legend_of_divergence(accuracies)]
