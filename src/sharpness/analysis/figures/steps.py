"""What one SGD step, shortened or lengthened, does to the loss."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sharpness.analysis.figures.epochs import early_label, stretch_early
from sharpness.analysis.figures.palette import BLUE, GREEN, GREY, RED
from sharpness.analysis.figures.runs import is_measured, models, name_of, say_lost, settings_in_words
from sharpness.analysis.figures.seeds import legend_of_losses, mark_divergence
from sharpness.analysis.figures.style import styled

# Of the poster's factors; others have grey ones.
COLOURS = {0.5: BLUE, 1.0: GREEN, 2.0: RED}
MARKERS = {0.5: "v", 1.0: "o", 2.0: "^"}
NAMES = {0.5: "half the step (α = 0.5)", 1.0: "SGD's step (α = 1)", 2.0: "twice the step (α = 2)"}
DIRECTIONS = {"top": "along the top eigenvector", "random": "along a random direction", "full": "full step"}


@styled
def steps(steps: pd.DataFrame) -> Figure:
    """Relative change of the loss after a step times alpha, over the epochs: along e1, a random direction, and in full.

    A row of panels per model. Points are means over batches (and seeds), bars their standard error.

    Args:
        steps: columns run and the run's fields, epoch, direction, alpha, batch, loss_before, loss_after,
            diverged.
    """
    rows, alphas = models(steps), _alphas(steps)
    figure = Figure(figsize=(7.4, 0.4 + 2.6 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(DIRECTIONS), squeeze=False, sharex="row")
    drawn = panels[0, 0]
    for row, of_model in zip(panels, rows, strict=True):
        if is_measured(of_model["loss_before"]):
            drawn = row[0]
            for axes, direction in zip(row, DIRECTIONS, strict=True):
                _draw_direction(axes, _of_direction(of_model, direction, alphas), alphas)
                # A little beyond the last time: its bars must not be cut.
                stretch_early(axes, 1.06 * of_model["epoch"].max())
        else:
            say_lost(*row)
        settings = settings_in_words(of_model, "learning_rate", "batch_size").replace(", ", "\n")
        row[0].set_ylabel(f"{name_of(of_model)}\n{settings}\nchange of the loss (%)")
    for axes, title in zip(panels[0], DIRECTIONS.values(), strict=True):
        axes.set_title(title)
    for axes in panels[-1]:
        axes.set_xlabel(early_label(steps["epoch"].max()))
    handles, labels = drawn.get_legend_handles_labels()
    crosses = legend_of_losses(panels.flat, steps, "run")
    labels += [str(cross.get_label()) for cross in crosses]
    figure.legend([*handles, *crosses], labels, loc="outside upper center", ncols=len(labels))
    return figure


def _alphas(steps: pd.DataFrame) -> list[float]:
    """The factors that were measured, the poster's first."""
    there = set(steps.loc[~steps["diverged"], "alpha"])
    return [*(alpha for alpha in COLOURS if alpha in there), *sorted(there - set(COLOURS))]


def _of_direction(rows: pd.DataFrame, direction: str, alphas: list[float]) -> pd.DataFrame:
    """The rows of one direction; one row of a lost run stands for all directions and alphas."""
    lost = rows[rows["diverged"]]
    kept = rows[~rows["diverged"] & (rows["direction"] == direction)]
    return pd.concat([kept, *(lost.assign(alpha=alpha) for alpha in alphas if len(lost))])


def _draw_direction(axes: Axes, rows: pd.DataFrame, alphas: list[float]) -> None:
    axes.axhline(0, color="black", linewidth=0.8)
    unique = rows.drop_duplicates(["run", "step", "alpha", "batch"])
    # The loss before is the same for all batches, so the mean of the ratios is the ratio of the means.
    percent = 100 * (unique["loss_after"] / unique["loss_before"] - 1)
    change = unique.assign(change=percent.where(np.isfinite(percent)))
    for alpha in alphas:
        of_alpha, colour = change[change["alpha"] == alpha], COLOURS.get(alpha, GREY)
        over_batches = of_alpha.groupby("epoch")["change"].agg(["mean", "sem"]).dropna(subset="mean")
        axes.errorbar(
            over_batches.index,
            over_batches["mean"],
            yerr=over_batches["sem"].fillna(0),
            color=colour,
            marker=MARKERS.get(alpha, "s"),
            markersize=3,
            linewidth=0.8,
            elinewidth=0.8,
            label=NAMES.get(alpha, f"α = {alpha:g}"),
        )
        of_runs = of_alpha.groupby(["run", "epoch"], as_index=False)["change"].mean()
        # A step may lose the loss where the run goes on.
        of_runs["diverged"] = of_runs["change"].isna()
        mark_divergence(axes, of_runs, x="epoch", y="change", colour=colour)
    means = change.groupby(["alpha", "epoch"])["change"].mean().abs()
    if means.max() > 100 * means.median() > 0:
        axes.set_yscale("symlog", linthresh=10 ** np.ceil(np.log10(3 * means.median())))
