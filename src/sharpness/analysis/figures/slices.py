"""The loss along the sharpest direction, over training: as a map, and some of its curves as bowls."""

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure
from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped]

from sharpness.analysis.figures.log_axis import log_ticks
from sharpness.analysis.figures.palette import BLUE, EIGENVALUES
from sharpness.analysis.figures.runs import divergence_in_words, epoch_in_words, first_seeds, is_measured, title_of
from sharpness.analysis.figures.style import styled

WIDTH = 8  # of what is shown, in expected steps to each side
HEADROOM = 1.5  # of the colours and of the bowls' panels, in largest training losses
NUM_CURVES = 6
STRIPS_PER_STEP = 8  # of the map, to each side


@styled
def slices(slices: pd.DataFrame) -> Figure:
    """L(weights + k * expected step along the top eigenvector): a map over k and epoch, beside it six curves.

    A row per configuration. Of several seeds, the first. The sign of an eigenvector is arbitrary: every curve is turned
    so that its higher end is on the left. Slices on a grid of distances are shown over these instead of k.

    Args:
        slices: columns run and the run's fields, step, epoch, k, loss, eigenvalue, and distance if it was measured.
    """
    runs = first_seeds(slices)
    # A run that was lost at once is a line of text.
    heights = [3.4 if is_measured(run.loc[run["k"] == 0, "loss"]) else 0.5 for run in runs]
    figure = Figure(figsize=(7.4, sum(heights)), layout="constrained")
    rows = figure.subfigures(len(runs), 1, squeeze=False, height_ratios=heights)[:, 0]
    for row, run in zip(rows, runs, strict=True):
        here = run[run["k"] == 0]
        end = divergence_in_words(here)
        row.suptitle(title_of(run, slices) + end)
        if is_measured(here["loss"]):
            _draw_run(row, run)
    return figure


def _draw_run(row: SubFigure, run: pd.DataFrame) -> None:
    losses, curvature = turned(run)
    ceiling = HEADROOM * losses[0.0].max()
    left, right = row.subfigures(1, 2, width_ratios=[1, 1.15], squeeze=False)[0]
    name = f"{axis_of(run)}, along the top eigenvector"
    _draw_map(left, losses, ceiling, name)
    panels = right.subplots(2, NUM_CURVES // 2, sharex=True, sharey=True)
    _draw_curves(panels.ravel(), losses, curvature, has_step=in_steps(run))
    panels[0, 0].set_ylim(-0.04 * ceiling, ceiling)
    right.supxlabel(name, fontsize="medium")
    right.supylabel("training loss", fontsize="medium")


def in_steps(run: pd.DataFrame) -> bool:
    """Whether the places are the same numbers of expected steps at every checkpoint, rather than the same distances."""
    return "distance" not in run or run["k"].nunique() <= run["distance"].nunique()


def axis_of(run: pd.DataFrame) -> str:
    """What the places of a run's slices are called."""
    return "k, in expected SGD steps" if in_steps(run) else "distance"


def turned(run: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Losses of a run by epoch and place, the higher end on the left, and the largest eigenvalue by epoch.

    The places are ``k`` as far as ``WIDTH``, or distances. Where they reach farther to one side than to the other, no
    curve can be turned.
    """
    place = "k" if in_steps(run) else "distance"
    measured = run[~run["diverged"]].drop_duplicates(["step", place])
    near = measured[measured["k"].abs() <= WIDTH] if place == "k" else measured
    losses = near.pivot(index="epoch", columns=place, values="loss")
    # Far out the loss may overflow, and the colours end before.
    known = losses.fillna(np.inf)
    is_even = np.array_equal(known.columns, -known.columns[::-1])
    stays = (known.iloc[:, 0] >= known.iloc[:, -1]) | (not is_even)
    turned = known.where(stays, known.iloc[:, ::-1].to_numpy())
    curvature = near.groupby("epoch")["eigenvalue"].first().loc[losses.index]
    return turned, curvature


def _draw_map(part: SubFigure, losses: pd.DataFrame, ceiling: float, name: str) -> None:
    # Equal room for each measurement, however far apart in epochs: the early phase gets its own.
    axes = part.subplots()
    low, high = losses.columns.min(), losses.columns.max()  # no farther than was measured
    step = (losses.columns.to_numpy()[losses.columns > 0].min() if high > 0 else 1.0) / STRIPS_PER_STEP
    edges = np.linspace(low, high, max(2, min(400, int(np.ceil((high - low) / step)))) + 1)
    heights = smoothed(losses, (edges[1:] + edges[:-1]) / 2, ceiling)
    # A loss of zero has no logarithm.
    bottom = min(heights[heights > 0], default=ceiling)
    bottom = min(bottom, ceiling / 2)
    norm = LogNorm(bottom, ceiling)
    axes.pcolormesh(edges, np.arange(len(losses) + 1) - 0.5, heights, norm=norm, cmap=EIGENVALUES, rasterized=True)
    chosen = spread(len(losses))
    axes.set_yticks(chosen, [epoch_in_words(losses.index[index]) for index in chosen])
    axes.axvline(0, color="white", linewidth=0.7, linestyle=":")
    axes.set(xlabel=name, ylabel="epoch (each checkpoint)")
    axes.grid(visible=False)
    bar = part.colorbar(ScalarMappable(norm, EIGENVALUES), ax=axes, location="top", aspect=30, extend="max")
    bar.set_label("training loss")
    log_ticks(bar.ax.xaxis, bottom, ceiling)


def smoothed(losses: pd.DataFrame, places: np.ndarray, ceiling: float) -> np.ndarray:
    """The losses at ``places``, [epochs, places]: through every measurement, monotone between two of them, then cut.

    The monotone cubic of Fritsch and Carlson (1980), which adds no minimum of its own.
    """
    # Cut far above the ceiling first: an overflow has no slope, and the ceiling itself would bend the curve below it.
    known = losses.clip(upper=100 * ceiling)
    curves: np.ndarray = PchipInterpolator(known.columns, known, axis=1)(places)
    return curves.clip(max=ceiling)


def _draw_curves(panels: np.ndarray, losses: pd.DataFrame, curvature: pd.Series, *, has_step: bool) -> None:
    chosen = spread(len(losses))
    for axes in panels[len(chosen) :]:
        axes.set_axis_off()
    for axes in panels[: len(chosen)][-NUM_CURVES // 2 :]:
        axes.tick_params(labelbottom=True)  # the lowest of its column, where the next row is not full
    for axes, index in zip(panels, chosen, strict=False):
        if has_step:
            axes.axvspan(-1, 1, color="0.93", zorder=0)
        axes.plot(losses.columns, losses.iloc[index], color=BLUE, marker="o", markersize=2)
        axes.set_title(f"epoch {epoch_in_words(losses.index[index])}\nλ₁ = {curvature.iloc[index]:.3g}")
        if has_step:
            axes.set_xticks([-WIDTH, 0, WIDTH])


def spread(count: int) -> list[int]:
    """Up to six positions among ``count``, the first and the last among them."""
    return sorted({round(position) for position in np.linspace(0, count - 1, NUM_CURVES)})
