"""How the eigenvalues of the Hessian are distributed, bulk and outliers, at some times of a training."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sharpness.analysis.figures.legends import legend_below
from sharpness.analysis.figures.palette import RED, ordered_colours
from sharpness.analysis.figures.runs import epoch_in_words, first_seeds, title_of
from sharpness.analysis.figures.style import styled

# Of each Gaussian, as a part of the axis: the least that a reader can tell apart.
WIDTH = 0.01
DECADES = 7  # below, the tails of the Gaussians are all that is left


@styled
def density(density: pd.DataFrame) -> Figure:
    """Density of the eigenvalues on a log scale, a panel per checkpoint, and the leading ones as ticks.

    One column per configuration; of several seeds, the first.

    Args:
        density: columns grid, run and the run's fields, step, epoch, quantity, probe, value, weight, standard_error.
    """
    runs = first_seeds(density)
    num_rows = max(run["step"].nunique() for run in runs)
    figure = Figure(figsize=(5.6 * len(runs), 0.8 + 1.5 * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, len(runs), squeeze=False, sharex="col", sharey=True)
    for column, run in zip(panels.T, runs, strict=True):
        _draw_run(list(column), run)
        column[0].set_title(title_of(run, density), loc="left")
        column[-1].set_xlabel("eigenvalue of the Hessian")
    ticks = Line2D([], [], color=RED, marker="|", linestyle="", markersize=9, label="largest eigenvalues")
    legend_below(figure, [ticks])
    figure.supylabel("density of eigenvalues (per unit)", fontsize="medium")
    return figure


def _draw_run(column: list[Axes], run: pd.DataFrame) -> None:
    checkpoints = list(run.groupby("step"))
    colours = ordered_colours([step for step, _ in checkpoints])
    grid, width = grid_of(run, 1500)
    for axes, (step, checkpoint) in zip(column, checkpoints, strict=False):
        _draw_checkpoint(axes, checkpoint, grid, width, colours[step])
    for axes in column[len(checkpoints) :]:
        axes.set_visible(False)


def grid_of(run: pd.DataFrame, num: int) -> tuple[np.ndarray, float]:
    """Where the density of a run is shown, [num], and how wide the Gaussian of each node is.

    Args:
        run: columns quantity, value.
        num: places, evenly spaced over all of its eigenvalues.
    """
    values = run.loc[run["quantity"].isin(["node", "eigenvalue"]), "value"]
    low, high = values.min(), values.max()
    width = WIDTH * (high - low or 1.0)
    return np.linspace(low - 4 * width, high + 4 * width, num), width


def density_at(grid: np.ndarray, nodes: pd.DataFrame, width: float) -> np.ndarray:
    """The density of the eigenvalues per unit, a Gaussian for each node, mean over probes.

    Args:
        grid: [N], where.
        nodes: of one checkpoint; columns value, weight, probe.
        width: of each Gaussian.
    """
    distances = (grid[:, None] - nodes["value"].to_numpy()) / width
    gaussians = np.exp(-(distances**2) / 2) / (width * np.sqrt(2 * np.pi))
    curve: np.ndarray = gaussians @ (nodes["weight"].to_numpy() / nodes["probe"].nunique())
    return curve


def _draw_checkpoint(axes: Axes, checkpoint: pd.DataFrame, grid: np.ndarray, width: float, colour: str) -> None:
    nodes = checkpoint[checkpoint["quantity"] == "node"]
    axes.set_yscale("log")
    axes.annotate(_in_words(checkpoint), (0.98, 0.9), xycoords="axes fraction", ha="right", va="top", fontsize="small")
    if nodes.empty:
        return
    curve = density_at(grid, nodes, width)
    top = curve.max()
    floor = top / 10**DECADES
    axes.fill_between(grid, floor, np.maximum(curve, floor), color=colour, alpha=0.35, linewidth=0)
    axes.plot(grid, curve, color=colour, linewidth=1)
    axes.set_ylim(floor, 30 * top)
    leading = checkpoint.loc[checkpoint["quantity"] == "eigenvalue", "value"]
    axes.plot(leading, [0.03] * len(leading), "|", color=RED, markersize=9, transform=axes.get_xaxis_transform())


def _in_words(checkpoint: pd.DataFrame) -> str:
    """``epoch 2: trace 61 ± 3, Frobenius norm 25.1 ± 0.2``."""
    parts = [f"epoch {epoch_in_words(checkpoint['epoch'].iloc[0])}"]
    if checkpoint["diverged"].any():
        return "\n".join([*parts, "diverged"])
    for quantity, name in (("trace", "trace"), ("frobenius_norm", "Frobenius norm")):
        row = checkpoint[checkpoint["quantity"] == quantity].iloc[0]
        value, error = row["value"], row["standard_error"]
        decimals = max(0, 1 - int(np.floor(np.log10(error)))) if error > 0 else 2
        parts.append(f"{name} {value:.{decimals}f} ± {error:.{decimals}f}")
    return "\n".join(parts)
