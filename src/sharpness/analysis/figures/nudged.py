"""Accuracy and sharpness of SGD nudged towards sharper or flatter regions."""

import pandas as pd
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from sharpness.analysis.figures.epochs import from_start
from sharpness.analysis.figures.legends import legend_below
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.palette import colour_of
from sharpness.analysis.figures.runs import models, name_of, settings_in_words, text
from sharpness.analysis.figures.seeds import draw_over_seeds, legend_of_divergence
from sharpness.analysis.figures.stability import draw_limits, legend_of_limit, limits_of
from sharpness.analysis.figures.style import styled
from sharpness.analysis.tables import frobenius, trajectory

# Lines that lie on each other are told apart by their marks, too.
MARKERS = ("v", "s", "o", "^", "D")


@styled
def nudged(history: pd.DataFrame, spectrum: pd.DataFrame) -> Figure:
    """Validation accuracy, and spectral and Frobenius norm on a log scale, over the epochs, a colour per gamma.

    The Frobenius norm is the root of the sum of the squares of the tracked largest eigenvalues. A dotted line in the
    colour of each gamma is the limit of stability along the directions that it nudges, where it is in sight.

    Args:
        history: columns grid ("gamma"), run and the run's fields, epoch, validation_accuracy, diverged.
        spectrum: columns grid ("gamma"), run and the run's fields, settings, which, checkpoint, step, epoch, rank,
            eigenvalue.
    """
    accuracies = history[history["grid"] == "gamma"].drop_duplicates(["run", "epoch"])
    accuracies = accuracies.assign(percent=100 * accuracies["validation_accuracy"])
    eigenvalues = trajectory(spectrum).query("grid == 'gamma'")
    names = accuracies[["data", "model"]].drop_duplicates()
    figure = Figure(figsize=(7.6, 0.8 + 2.8 * len(names)), layout="constrained")
    for part, of_model in zip(figure.subfigures(len(names), 1, squeeze=False)[:, 0], models(accuracies), strict=True):
        same = (eigenvalues["data"] == of_model["data"].iloc[0]) & (eigenvalues["model"] == of_model["model"].iloc[0])
        part.suptitle(f"{name_of(of_model)}, {settings_in_words(of_model, 'learning_rate')}")
        _draw_model(part, of_model, eigenvalues[same])
    legend_below(figure, _legend(accuracies))
    return figure


def _draw_model(part: SubFigure, accuracies: pd.DataFrame, eigenvalues: pd.DataFrame) -> None:
    accuracy, spectral, whole = part.subplots(1, 3, sharex=True)
    whole.sharey(spectral)
    num_eigenvalues = _tracked(eigenvalues)
    largest = eigenvalues[eigenvalues["rank"] == 0]
    norms = frobenius(eigenvalues[eigenvalues["rank"] < num_eigenvalues])
    panels = ((accuracy, accuracies, "percent"), (spectral, largest, "eigenvalue"), (whole, norms, "frobenius"))
    for axes, rows, quantity in panels:
        for gamma, (colour, marker) in _looks(accuracies).items():
            of_gamma = rows[rows["gamma"] == gamma]
            draw_over_seeds(axes, of_gamma, x="epoch", y=quantity, colour=colour, marker=marker)
        axes.set_xlabel("epoch")
    from_start(accuracy, accuracies["epoch"].max())
    accuracy.set_title("validation accuracy (%)")
    spectral.set_title("largest eigenvalue")
    whole.set_title(f"Frobenius norm\nof {num_eigenvalues} eigenvalues")
    log_y(spectral)
    colours = [colour_of("gamma", gamma) for gamma in largest["gamma"]]
    draw_limits(spectral, dict(zip(limits_of(largest), colours, strict=True)))


def _tracked(eigenvalues: pd.DataFrame) -> int:
    """How many eigenvalues every checkpoint has that could be measured."""
    measured = eigenvalues[eigenvalues["eigenvalue"].notna()]
    return int(min(measured.groupby(["run", "step"])["rank"].nunique(), default=0))


def _looks(rows: pd.DataFrame) -> dict[float, tuple[str, str]]:
    """Colour and mark of each gamma."""
    gammas = sorted(rows["gamma"].unique())
    return {gamma: (colour_of("gamma", gamma), MARKERS[index % len(MARKERS)]) for index, gamma in enumerate(gammas)}


def _legend(accuracies: pd.DataFrame) -> list[Line2D]:
    gammas = [
        Line2D([], [], color=colour, marker=marker, label=f"γ = {text(gamma)}" + (" (SGD)" if gamma == 1 else ""))
        for gamma, (colour, marker) in _looks(accuracies).items()
    ]
    return [*gammas, legend_of_limit(accuracies), *legend_of_divergence(accuracies)]
