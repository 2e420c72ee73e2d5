"""The loss along the sharpest direction, over training: a surface, and some of its curves."""

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LightSource, Normalize
from matplotlib.figure import Figure, SubFigure
from mpl_toolkits.mplot3d import Axes3D
from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped]

from sharpness.analysis.figures.palette import EIGENVALUES
from sharpness.analysis.figures.runs import divergence_in_words, epoch_in_words, first_seeds, is_measured, title_of
from sharpness.analysis.figures.style import styled

WIDTH = 8  # of the surface, in expected steps to each side
HEADROOM = 1.5  # of the surface, in largest training losses
NUM_CURVES = 6
FLAT = 0.01  # of the height of the surface: what changes less is not enlarged
# Of the surface: strips of a step to each side, and between one measurement and the next.
STRIPS_PER_STEP = 6
STRIPS_BETWEEN = 3
LIGHT = LightSource(azdeg=225, altdeg=60)


@styled
def slices(slices: pd.DataFrame) -> Figure:
    """L(weights + k * expected step along the top eigenvector), over k and epoch, coloured by the largest eigenvalue.

    A row per configuration: the surface, and beside it the curves of six of its times. Of several seeds, the first. The
    sign of an eigenvector is arbitrary: every curve is turned so that its higher end is on the left.

    Args:
        slices: columns run and the run's fields, step, epoch, k, loss, eigenvalue.
    """
    runs = first_seeds(slices)
    # A run that was lost at once is a line of text.
    heights = [3.4 if is_measured(run.loc[run["k"] == 0, "loss"]) else 0.4 for run in runs]
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
    norm = Normalize(curvature.min(), curvature.max())
    ceiling = HEADROOM * losses[0.0].max()
    left, right = row.subfigures(1, 2, width_ratios=[1.15, 1], squeeze=False)[0]
    surface: Axes3D = left.add_subplot(projection="3d")
    _draw_surface(surface, losses, curvature, norm, ceiling)
    panels = right.subplots(2, NUM_CURVES // 2, sharex=True, sharey=True)
    _draw_curves(panels.ravel(), losses, curvature, norm)
    panels[0, 0].set_ylim(-0.04 * ceiling, ceiling)
    right.supxlabel("k, in expected SGD steps along the top eigenvector", fontsize="medium")
    right.supylabel("training loss", fontsize="medium")
    left.colorbar(
        ScalarMappable(norm, EIGENVALUES), ax=surface, location="left", shrink=0.6, pad=0.02, label="largest eigenvalue"
    )


def turned(run: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Losses of a run by epoch and k, the higher end on the left, and the largest eigenvalue by epoch.

    Where k reaches farther to one side than to the other, no curve can be turned.
    """
    near = run[(run["k"].abs() <= WIDTH) & ~run["diverged"]].drop_duplicates(["step", "k"])
    losses = near.pivot(index="epoch", columns="k", values="loss")
    # Far out the loss may overflow, and the surface is cut in any case.
    known = losses.fillna(np.inf)
    is_even = np.array_equal(known.columns, -known.columns[::-1])
    stays = (known.iloc[:, 0] >= known.iloc[:, -1]) | (not is_even)
    turned = known.where(stays, known.iloc[:, ::-1].to_numpy())
    curvature = near.groupby("epoch")["eigenvalue"].first().loc[losses.index]
    return turned, curvature


def _draw_surface(axes: Axes3D, losses: pd.DataFrame, curvature: pd.Series, norm: Normalize, ceiling: float) -> None:
    # Equal room for each measurement, however far apart in epochs: the early phase gets its own.
    order = np.arange(len(losses))
    between = np.linspace(0, len(losses) - 1, (len(losses) - 1) * STRIPS_BETWEEN + 1)
    low, high = losses.columns.min(), losses.columns.max()  # no farther than was measured
    steps = np.linspace(low, high, int(np.ceil((high - low) * STRIPS_PER_STEP)) + 1)
    curves = smoothed(losses, steps, ceiling)
    heights = np.stack([np.interp(between, order, column) for column in curves.T], axis=1)
    colours = np.repeat(EIGENVALUES(norm(np.interp(between, order, curvature)))[:, None], len(steps), axis=1)
    chosen = spread(len(losses))
    # From the back to the front, a curve on the rear edge of the strips before it: what is in front hides it.
    axes.computed_zorder = False
    for index in reversed(range(len(losses))):
        if index in chosen:
            axes.plot(steps, np.full(len(steps), index), curves[index], color="black", linewidth=0.7, zorder=-2 * index)
        if index > 0:
            strips = slice((index - 1) * STRIPS_BETWEEN, index * STRIPS_BETWEEN + 1)
            axes.plot_surface(
                *np.meshgrid(steps, between[strips]),
                heights[strips],
                facecolors=colours[strips],
                lightsource=LIGHT,
                rstride=1,
                cstride=1,
                linewidth=0,
                rasterized=True,  # thousands of faces
                zorder=1 - 2 * index,
            )
    if np.ptp(heights) < FLAT * ceiling:
        axes.set_zlim(0, ceiling)  # otherwise the ticks would be of the last digits
    axes.set_yticks(chosen, [epoch_in_words(losses.index[index]) for index in chosen])
    axes.set_xticks([-WIDTH, -WIDTH // 2, 0, WIDTH // 2, WIDTH])
    # A label of the z axis would stick out of the room that the layout gives to the axes.
    axes.set(xlabel="k", ylabel="epoch", title="training loss")
    axes.view_init(elev=35, azim=-60)
    axes.tick_params(pad=0)
    axes.set_box_aspect((1, 1.15, 0.75), zoom=1.05)


def smoothed(losses: pd.DataFrame, steps: np.ndarray, ceiling: float) -> np.ndarray:
    """The losses at ``steps``, [epochs, steps]: through every measurement, monotone between two of them, then cut.

    The monotone cubic of Fritsch and Carlson (1980), which adds no minimum of its own.
    """
    # Cut far above the ceiling first: an overflow has no slope, and the ceiling itself would bend the curve below it.
    known = losses.clip(upper=100 * ceiling)
    curves: np.ndarray = PchipInterpolator(known.columns, known, axis=1)(steps)
    return curves.clip(max=ceiling)


def _draw_curves(panels: np.ndarray, losses: pd.DataFrame, curvature: pd.Series, norm: Normalize) -> None:
    chosen = spread(len(losses))
    for axes in panels[len(chosen) :]:
        axes.set_axis_off()
    for axes in panels[: len(chosen)][-NUM_CURVES // 2 :]:
        axes.tick_params(labelbottom=True)  # the lowest of its column, where the next row is not full
    for axes, index in zip(panels, chosen, strict=False):
        axes.axvspan(-1, 1, color="0.93", zorder=0)
        axes.plot(
            losses.columns, losses.iloc[index], color=EIGENVALUES(norm(curvature.iloc[index])), marker="o", markersize=2
        )
        axes.set_title(f"epoch {epoch_in_words(losses.index[index])}")
        axes.set_xticks([-WIDTH, 0, WIDTH])


def spread(count: int) -> list[int]:
    """Up to six positions among ``count``, the first and the last among them."""
    return sorted({round(position) for position in np.linspace(0, count - 1, NUM_CURVES)})
