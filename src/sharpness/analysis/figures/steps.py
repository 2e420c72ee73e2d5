"""What one SGD step, shortened or lengthened, does to the loss."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from sharpness.analysis.figures.epochs import early_label, stretch_early
from sharpness.analysis.figures.legends import legend_below
from sharpness.analysis.figures.palette import BLUE, GREEN, GREY, RED
from sharpness.analysis.figures.runs import is_measured, models, name_of, say_lost, settings_in_words
from sharpness.analysis.figures.seeds import legend_of_losses, mark_divergence
from sharpness.analysis.figures.style import styled
from sharpness.analysis.parabola import parabola_through

# Of the poster's factors; others have grey ones.
COLOURS = {0.5: BLUE, 1.0: GREEN, 2.0: RED}
MARKERS = {0.5: "v", 1.0: "o", 2.0: "^"}
NAMES = {0.5: "half the step (α = 0.5)", 1.0: "SGD's step (α = 1)", 2.0: "twice the step (α = 2)"}
STAR: dict[str, Any] = {
    "marker": "*",
    "markersize": 9,
    "markeredgecolor": "black",
    "markeredgewidth": 0.6,
    "linestyle": "none",
}
DIRECTIONS = {"top": "along the top eigenvector", "random": "along a random direction", "full": "full step"}


@styled
def steps(steps: pd.DataFrame) -> Figure:
    """Relative change of the loss after a step times alpha, over the epochs: along e1, a random direction, and in full.

    Four panels per model. A mark is one seed, the mean over its batches; lines are means over seeds. Beside the steps
    along e1, their mean over the checkpoints against alpha, with the parabola of each seed and a star at its minimum.

    Args:
        steps: columns run and the run's fields, epoch, direction, alpha, batch, loss_before, loss_after,
            diverged.
    """
    rows, alphas = models(steps), _alphas(steps)
    figure = Figure(figsize=(7.4, 0.4 + 5.0 * len(rows)), layout="constrained")
    for part, of_model in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        part.suptitle(f"{name_of(of_model)}\n{settings_in_words(of_model, 'learning_rate', 'batch_size')}")
        _draw_model(part, of_model, alphas)
    crosses = legend_of_losses(figure.get_axes(), steps, "run")
    legend_below(figure, [*_legend(alphas), *crosses])
    return figure


def _legend(alphas: list[float]) -> list[Line2D]:
    factors = [
        Line2D([], [], color=_colour(alpha), marker=MARKERS.get(alpha, "s"), label=NAMES.get(alpha, f"α = {alpha:g}"))
        for alpha in alphas
    ]
    return [*factors, Line2D([], [], color=GREY, **STAR, label="α*, the minimiser of a seed's parabola")]


def _colour(alpha: float) -> str:
    return COLOURS.get(alpha, GREY)


def _draw_model(part: SubFigure, of_model: pd.DataFrame, alphas: list[float]) -> None:
    (top, mean), (random, full) = panels = part.subplots(2, 2)
    over_time = dict(zip(DIRECTIONS, (top, random, full), strict=True))
    if not is_measured(of_model["loss_before"]):
        say_lost(*panels.flat)
        return
    for direction, axes in over_time.items():
        changes = _changes(_of_direction(of_model, direction, alphas))
        _draw_direction(axes, changes, alphas)
        axes.set_title(DIRECTIONS[direction])
        # A little beyond the last time: its marks must not be cut.
        stretch_early(axes, 1.06 * of_model["epoch"].max())
        axes.set_xlabel(early_label(of_model["epoch"].max()))
        if direction == "top":
            _draw_parabolas(mean, changes, alphas)
    for axes in panels[:, 0]:
        axes.set_ylabel("change of the loss (%)")


def _alphas(steps: pd.DataFrame) -> list[float]:
    """The factors that were measured, the poster's first."""
    there = set(steps.loc[~steps["diverged"], "alpha"])
    return [*(alpha for alpha in COLOURS if alpha in there), *sorted(there - set(COLOURS))]


def _of_direction(rows: pd.DataFrame, direction: str, alphas: list[float]) -> pd.DataFrame:
    """The rows of one direction; one row of a lost run stands for all directions and alphas."""
    lost = rows[rows["diverged"]]
    kept = rows[~rows["diverged"] & (rows["direction"] == direction)]
    return pd.concat([kept, *(lost.assign(alpha=alpha) for alpha in alphas if len(lost))])


def _changes(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean change over the batches in per cent, by run, epoch and alpha."""
    unique = rows.drop_duplicates(["run", "step", "alpha", "batch"])
    # The loss before is the same for all batches, so the mean of the ratios is the ratio of the means.
    percent = 100 * (unique["loss_after"] / unique["loss_before"] - 1)
    change = unique.assign(change=percent.where(np.isfinite(percent)))
    return change.groupby(["run", "epoch", "alpha"], as_index=False)["change"].mean()


def _draw_direction(axes: Axes, changes: pd.DataFrame, alphas: list[float]) -> None:
    axes.axhline(0, color="black", linewidth=0.8)
    for alpha in alphas:
        of_alpha, colour = changes[changes["alpha"] == alpha], _colour(alpha)
        means = of_alpha.groupby("epoch")["change"].mean().dropna()
        axes.plot(means.index, means, color=colour, linewidth=1)
        marker = MARKERS.get(alpha, "s")
        axes.plot(of_alpha["epoch"], of_alpha["change"], marker, color=colour, markersize=3.5, alpha=0.6)
        # A step may lose the loss where the run goes on.
        mark_divergence(axes, of_alpha.assign(diverged=of_alpha["change"].isna()), x="epoch", y="change", colour=colour)
    means = changes.groupby(["alpha", "epoch"])["change"].mean().abs()
    if means.max() > 100 * means.median() > 0:
        axes.set_yscale("symlog", linthresh=10 ** np.ceil(np.log10(3 * means.median())))


def _draw_parabolas(axes: Axes, changes: pd.DataFrame, alphas: list[float]) -> None:
    """The mean over the checkpoints that have every alpha, a curve per run."""
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("α, times SGD's step along the top eigenvector")
    complete = changes.pivot(index=["run", "epoch"], columns="alpha", values="change")[alphas].dropna()
    minimisers = []
    for _, of_run in complete.groupby("run"):
        means = of_run.mean()
        for alpha, change in means.items():
            axes.plot(alpha, change, MARKERS.get(alpha, "s"), color=_colour(alpha), markersize=4)
        if len(alphas) > 1:
            parabola = parabola_through(means.index, means)
            factors = np.linspace(0, max(alphas), 101)
            axes.plot(factors, parabola.at(factors), color=GREY, linewidth=0.8)
            minimisers.append(parabola.minimiser)
            axes.plot(minimisers[-1], parabola.at(minimisers[-1]), color=GREY, zorder=5, **STAR)
    ends = (
        list(dict.fromkeys(f"{end:.2f}" for end in (min(minimisers), max(minimisers)))) if minimisers else ["unknown"]
    )
    axes.set_title(f"mean over the checkpoints: α* = {' to '.join(ends)}")
