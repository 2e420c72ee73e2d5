"""The leading eigenvalues of one run over its training."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patheffects import withStroke

from sharpness.analysis.figures.bracket import draw_bracket, legend_of_bracket
from sharpness.analysis.figures.epochs import from_start
from sharpness.analysis.figures.legends import legend_below
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.palette import RANKS
from sharpness.analysis.figures.runs import (
    divergence_in_words,
    eigenvalue_in_words,
    first_seeds,
    is_measured,
    title_of,
)
from sharpness.analysis.figures.seeds import mark_divergence
from sharpness.analysis.figures.stability import LOOK, limits_of, name_of_limit
from sharpness.analysis.figures.style import styled
from sharpness.analysis.peak import peak_of
from sharpness.analysis.tables import trajectory

SHORT = 0.75  # of a run: where its start is as long, the start is all of it
DECADES = 3  # of the logarithmic panel: what is below is noise around zero


@styled
def spectrum(spectrum: pd.DataFrame) -> Figure:
    """The largest eigenvalues, orange (the largest) to blue: over the whole run, and over its start on a log scale.

    One row of panels per configuration; of several seeds, the first. A run so short that its start is most of it has
    one panel, the logarithmic one. A hatched band reaches from the largest down to the curvature along its eigenvector
    on other images.

    Args:
        spectrum: columns grid, run and the run's fields, which, checkpoint, step, epoch, rank, eigenvalue, and
            elsewhere if it was measured.
    """
    leading = trajectory(spectrum)
    runs = first_seeds(leading)
    figure = Figure(figsize=(6.4, 3.1 * len(runs)), layout="constrained")
    rows = figure.subfigures(len(runs), 1, squeeze=False)[:, 0]
    for row, run in zip(rows, runs, strict=True):
        end = ""
        if is_measured(run["eigenvalue"]):
            _draw_run(row, run)
        else:
            end = divergence_in_words(run)
        row.suptitle(title_of(run, leading) + end)
    return figure


def _draw_run(row: SubFigure, run: pd.DataFrame) -> None:
    last = run["epoch"].max()
    end = _end_of_start(run)
    is_short = end >= SHORT * last
    panels = list(row.subplots(1, 1 if is_short else 2, squeeze=False)[0])
    num_ranks = run["rank"].nunique()
    colours = ScalarMappable(Normalize(1, max(2, num_ranks)), RANKS)
    for axes in panels:
        for rank, line in run.groupby("rank"):
            # The larger lies on top, and nothing on the marks.
            axes.plot(
                line["epoch"], line["eigenvalue"], color=colours.to_rgba(rank + 1), linewidth=1, zorder=2 - rank / 1000
            )
        mark_divergence(axes, run[run["rank"] == 0], x="epoch", y="eigenvalue", colour=RANKS(0.0))
    limits, top = limits_of(run), run["eigenvalue"].max()
    limit = limits.min()
    with_limit = panels
    if is_short:
        _frame_log(panels[0], run, end=last, title="whole run, log scale")
    else:
        # A limit far above would press the eigenvalues to the floor of the linear panel.
        in_whole = limit < 1.5 * top
        with_limit = panels if in_whole else panels[1:]
        _frame_whole(panels[0], run, max(top, limit) if in_whole else top)
        _frame_log(panels[1], run, end=end, title="start, log scale")
    panels[0].set_ylabel(eigenvalue_in_words(run))
    if math.isfinite(limit):
        for axes in with_limit:
            _draw_limit(axes, run, limits)
        # Once, where the fewer lines are.
        value = f" = {limit:.3g}" if limits.nunique() == 1 else ""
        _name_limit(with_limit[0], f"{name_of_limit(run)}{value}", limit)
    for axes in panels:
        draw_bracket(axes, run, colour=RANKS(0.0))
    if bands := legend_of_bracket(run, RANKS(0.0)):
        legend_below(row, bands)
    if num_ranks > 1:
        bar = row.colorbar(colours, ax=panels[-1], ticks=sorted({1, max(2, num_ranks // 2), num_ranks}), pad=0.02)
        bar.set_label("rank (1: largest)")
        bar.ax.invert_yaxis()


def _draw_limit(axes: Axes, run: pd.DataFrame, limits: pd.Series) -> None:
    """A line from side to side, or the course of a limit that moves with the learning rate."""
    if limits.nunique() == 1:
        axes.axhline(limits.iloc[0], color="black", **LOOK)
    else:
        axes.plot(run["epoch"], limits, color="black", **LOOK)


def _frame_whole(axes: Axes, run: pd.DataFrame, top: float) -> None:
    axes.set_ylim(min(0, run["eigenvalue"].min()), 1.15 * top)
    axes.set(title="whole run", xlabel="epoch")
    from_start(axes, run["epoch"].max())


def _frame_log(axes: Axes, run: pd.DataFrame, *, end: float, title: str) -> None:
    axes.set_ylim(log_range(run))
    log_y(axes)
    axes.set(title=title, xlabel="epoch")
    from_start(axes, end)


def log_range(run: pd.DataFrame) -> tuple[float, float]:
    """From where to where a logarithmic axis shows the eigenvalues of a run, and 2 / learning rate."""
    limit, top = limits_of(run).min(), run["eigenvalue"].max()
    smallest = run.loc[run["eigenvalue"] > 0, "eigenvalue"].min()
    return max(smallest, top / 10**DECADES) / 1.3, 2 * max(top, top if math.isnan(limit) else limit)


def _name_limit(axes: Axes, name: str, limit: float) -> None:
    axes.annotate(
        name,
        (1, limit),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize="small",
        # Readable where it lies on lines of eigenvalues.
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )


def _end_of_start(run: pd.DataFrame) -> float:
    """Twice the time of the peak, but eight measurements at least."""
    largest = run[run["rank"] == 0].sort_values("epoch")
    epochs = largest["epoch"].to_numpy()
    peak = peak_of(epochs, largest["eigenvalue"])
    return float(max(min(2 * peak.epoch, epochs[-1]), epochs[min(8, len(epochs) - 1)]))
