"""The poster's schematic, drawn from data: the valley along the sharpest direction narrows, then widens."""

from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped]

from sharpness.analysis.figures.legends import legend_below
from sharpness.analysis.figures.palette import BLUE, GREEN, ORANGE, RED
from sharpness.analysis.figures.runs import (
    divergence_in_words,
    epoch_in_words,
    first_seeds,
    is_measured,
    title_of,
)
from sharpness.analysis.figures.style import styled
from sharpness.analysis.peak import peak_of
from sharpness.analysis.tables import distances_of

PEAK = "peak of the curvature"
COLOURS = {"start": BLUE, "early": GREEN, PEAK: RED, "end": ORANGE}
POINTS = 20  # of a curve between two measurements


@styled
def schematic(slices: pd.DataFrame) -> Figure:
    """Change of the loss along the top eigenvector: at the start, on the way up, at the curvature's peak, at the end.

    A row per configuration, its first seed; the same axes in every panel of a row, and the other times as thin lines. A
    dot is a measurement; between two, the curve is monotone.

    Args:
        slices: columns run and the run's fields, step, epoch, k, loss, scale, eigenvalue.
    """
    runs = first_seeds(slices)
    figure = Figure(figsize=(7.2, 3.0 * len(runs)), layout="constrained")
    for row, run in zip(figure.subfigures(len(runs), 1, squeeze=False)[:, 0], runs, strict=True):
        here = run[run["k"] == 0]
        end = divergence_in_words(here)
        row.suptitle(title_of(run, slices) + end)
        if is_measured(here["loss"]):
            _draw_run(row, run)
    return figure


def _draw_run(row: SubFigure, run: pd.DataFrame) -> None:
    curves = {name: _curve(run, step) for name, step in _moments(run).items()}
    panels = row.subplots(1, len(curves), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, curve) in zip(panels, curves.items(), strict=True):
        for other, beside in curves.items():
            axes.plot(*_between(beside), color=COLOURS[other], linewidth=2 if other == name else 0.8)
        axes.plot(curve["distance"], curve["change"], color=COLOURS[name], marker="o", markersize=3, linestyle="none")
        axes.axvline(0, color="black", linewidth=0.7, linestyle=":", zorder=0)
        axes.set_xlabel("distance along e₁")
        axes.set_title(f"{name}\nepoch {_epoch(curve)}, λ₁ = {curve['eigenvalue'].iloc[0]:.3g}")
    _frame(panels[0], list(curves.values()))
    panels[0].set_ylabel("change of the loss")
    lines = [
        Line2D([], [], color=COLOURS[name], label=f"{name} (epoch {_epoch(curve)})") for name, curve in curves.items()
    ]
    legend_below(row, lines)


def _epoch(curve: pd.DataFrame) -> str:
    return epoch_in_words(curve["epoch"].iloc[0])


def _between(curve: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Places on and between those of a curve, and the change of the loss there."""
    known = curve[np.isfinite(curve["distance"]) & np.isfinite(curve["change"])].drop_duplicates("distance")
    if len(known) < 2:
        return known["distance"].to_numpy(), known["change"].to_numpy()
    ends = known["distance"].to_numpy()
    places = np.concatenate([np.linspace(*pair, POINTS, endpoint=False) for pair in pairwise(ends)] + [ends[-1:]])
    return places, PchipInterpolator(ends, known["change"])(places)


def _moments(run: pd.DataFrame) -> dict[str, int]:
    """The steps to show by name, in order: fewer than four where the peak is at the start or the end."""
    here = run[(run["k"] == 0) & ~run["diverged"]]
    over_time = here.groupby("step")[["epoch", "eigenvalue"]].first()
    peak = over_time["epoch"].to_list().index(peak_of(over_time["epoch"], over_time["eigenvalue"]).epoch)
    positions = {"start": 0, "early": peak // 2, PEAK: peak, "end": len(over_time) - 1}
    names: dict[int, str] = {}
    for name, position in positions.items():
        # The peak gives its name to the moment it shares.
        names[position] = name if name == PEAK else names.get(position, name)
    return {names[position]: int(over_time.index[position]) for position in sorted(names)}


def _curve(run: pd.DataFrame, step: int) -> pd.DataFrame:
    """The curve at a step, in parameter units and from the loss of the weights themselves; its higher end left."""
    rows = run[run["step"] == step].drop_duplicates("k").sort_values("k")
    here = rows.loc[rows["k"] == 0, "loss"].iloc[0]
    curve = rows.assign(distance=distances_of(rows), change=rows["loss"] - here)
    ends = curve["change"].fillna(np.inf).to_numpy()
    return curve if ends[0] >= ends[-1] else curve.assign(distance=-curve["distance"]).sort_values("distance")


def _frame(axes: Axes, curves: list[pd.DataFrame]) -> None:
    """As wide as the narrowest curve reaches, but with two points to each side of any; high enough for the steepest."""
    distances = [np.sort(curve["distance"][curve["distance"] > 0]) for curve in curves]
    distances = [each for each in distances if len(each)]  # where the gradient is lost, steps have no length
    if not distances:
        return
    width = max(min(each[-1] for each in distances), *(each[:2][-1] for each in distances))
    seen = pd.concat([curve[curve["distance"].abs() <= width] for curve in curves])["change"]
    seen = seen[np.isfinite(seen)]
    room = 0.08 * (seen.max() - seen.min())
    axes.set_xlim(-1.05 * width, 1.05 * width)
    axes.set_ylim(seen.min() - room, seen.max() + room)
