"""The poster's schematic, drawn from data: the valley along the sharpest direction narrows, then widens."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from sharpness.analysis.figures.palette import RED
from sharpness.analysis.figures.runs import (
    divergence_in_words,
    epoch_in_words,
    first_seeds,
    is_measured,
    title_of,
)
from sharpness.analysis.figures.style import styled


@styled
def schematic(slices: pd.DataFrame) -> Figure:
    """Change of the loss along the top eigenvector: at the start, on the way up, at the curvature's peak, at the end.

    A row per configuration, its first seed; the same axes in every panel of a row, the other times in grey.

    Args:
        slices: columns run and the run's fields, step, epoch, k, loss, scale, eigenvalue.
    """
    runs = first_seeds(slices)
    figure = Figure(figsize=(6.8, 2.5 * len(runs)), layout="constrained")
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
        for other in curves.values():
            axes.plot(other["distance"], other["change"], color="0.8", linewidth=1)
        axes.plot(curve["distance"], curve["change"], color=RED, linewidth=2)
        axes.plot(0, 0, color="black", marker="o")
        epoch, eigenvalue = epoch_in_words(curve["epoch"].iloc[0]), curve["eigenvalue"].iloc[0]
        axes.set_title(f"{name}\nepoch {epoch}, $\\lambda_1$ = {eigenvalue:.3g}")
    _frame(panels[0], list(curves.values()))
    panels[0].set_ylabel("change of the loss")
    row.supxlabel("distance along the top eigenvector", fontsize="medium")


def _moments(run: pd.DataFrame) -> dict[str, int]:
    """The steps to show by name, in order: fewer than four where the peak is at the start or the end."""
    here = run[(run["k"] == 0) & ~run["diverged"]]
    over_time = here.groupby("step")["eigenvalue"].first()
    peak = int(over_time.to_numpy().argmax())
    positions = {"start": 0, "early": peak // 2, "peak of the curvature": peak, "end": len(over_time) - 1}
    names: dict[int, str] = {}
    for name, position in positions.items():
        # The peak gives its name to the moment it shares.
        names[position] = name if name == "peak of the curvature" else names.get(position, name)
    return {names[position]: int(over_time.index[position]) for position in sorted(names)}


def _curve(run: pd.DataFrame, step: int) -> pd.DataFrame:
    """The curve at a step, in parameter units and from the loss of the weights themselves; its higher end left."""
    rows = run[run["step"] == step].drop_duplicates("k").sort_values("k")
    here = rows.loc[rows["k"] == 0, "loss"].iloc[0]
    curve = rows.assign(distance=rows["k"] * rows["scale"], change=rows["loss"] - here)
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
