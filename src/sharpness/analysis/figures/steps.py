"""What one SGD step, shortened or lengthened, does to the loss."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sharpness.analysis.figures.epochs import early_label, stretch_early
from sharpness.analysis.figures.palette import BLUE, GREEN, GREY, RED
from sharpness.analysis.figures.runs import models, name_of, settings_in_words
from sharpness.analysis.figures.seeds import legend_of_divergence, mark_divergence
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
        steps: columns run and the run's fields, epoch, direction, alpha, batch, loss_before, loss_after.
    """
    rows = models(steps)
    figure = Figure(figsize=(7.4, 0.4 + 2.6 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(DIRECTIONS), squeeze=False, sharex="row")
    for row, of_model in zip(panels, rows, strict=True):
        for axes, direction in zip(row, DIRECTIONS, strict=True):
            _draw_direction(axes, of_model[of_model["direction"] == direction])
            # A little beyond the last time: its bars must not be cut.
            stretch_early(axes, 1.06 * of_model["epoch"].max())
        settings = settings_in_words(of_model, "learning_rate", "batch_size").replace(", ", "\n")
        row[0].set_ylabel(f"{name_of(of_model)}\n{settings}\nchange of the loss (%)")
    for axes, title in zip(panels[0], DIRECTIONS.values(), strict=True):
        axes.set_title(title)
    for axes in panels[-1]:
        axes.set_xlabel(early_label(steps["epoch"].max()))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    crosses = legend_of_divergence(steps, "loss_after")
    labels += [str(cross.get_label()) for cross in crosses]
    figure.legend([*handles, *crosses], labels, loc="outside upper center", ncols=len(labels))
    return figure


def _draw_direction(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhline(0, color="black", linewidth=0.8)
    unique = rows.drop_duplicates(["run", "step", "alpha", "batch"])
    # The loss before is the same for all batches, so the mean of the ratios is the ratio of the means.
    percent = 100 * (unique["loss_after"] / unique["loss_before"] - 1)
    change = unique.assign(change=percent.where(np.isfinite(percent)))
    for alpha in [*COLOURS, *sorted(set(change["alpha"]) - set(COLOURS))]:
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
        mark_divergence(axes, of_runs, x="epoch", y="change", colour=colour)
    means = change.groupby(["alpha", "epoch"])["change"].mean().abs()
    if means.max() > 100 * means.median() > 0:
        axes.set_yscale("symlog", linthresh=10 ** np.ceil(np.log10(3 * means.median())))
