"""Loss and sharpness of SGD with its step inside the sharpest direction kept, frozen or removed."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sharpness.analysis.figures.epochs import from_start
from sharpness.analysis.figures.legends import legend_below
from sharpness.analysis.figures.log_axis import log_y
from sharpness.analysis.figures.palette import BLUE, GREEN, GREY, ORANGE, RED
from sharpness.analysis.figures.runs import is_measured, models, name_of, say_lost, settings_in_words
from sharpness.analysis.figures.seeds import draw_over_seeds, legend_of_losses
from sharpness.analysis.figures.stability import draw_limits, legend_of_limit
from sharpness.analysis.figures.style import styled

COLOURS = {"sgd": BLUE, "top_only": ORANGE, "constant_top": GREEN, "top_removed": RED}
NAMES = {
    "sgd": "SGD",
    "top_only": "only along the top eigenvector",
    "constant_top": "only along the first top eigenvector",
    "top_removed": "top eigenvector removed",
}
# Of variants with other names, in order; dashed, since there are few colours.
OTHERS = (GREY, "black")


@styled
def variants(variants: pd.DataFrame) -> Figure:
    """Training loss and largest eigenvalue over the steps after the switch, a line per variant, a row per model.

    Args:
        variants: columns run and the run's fields, settings (the variant), step, loss and eigenvalue
            (NaN: not measured at that step), diverged.
    """
    rows, looks = models(variants), _looks(variants)
    figure = Figure(figsize=(6.4, 0.6 + 2.6 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 2, squeeze=False, sharex="row")
    for (left, right), of_model in zip(panels, rows, strict=True):
        if is_measured(of_model["loss"]):
            _draw_model(left, right, of_model, looks)
        else:
            say_lost(left, right)
        left.set_title(f"{name_of(of_model)}\n{settings_in_words(of_model, 'learning_rate', 'batch_size')}", loc="left")
    for axes in panels[-1]:
        axes.set_xlabel("step after the switch")
    handles = [
        Line2D([], [], color=colour, linestyle=linestyle, label=NAMES.get(variant, variant) + _end(variants, variant))
        for variant, (colour, linestyle) in looks.items()
    ]
    if is_measured(variants["eigenvalue"]):
        handles += legend_of_limit(variants)
    handles += legend_of_losses(panels.flat, variants, "run", "settings")
    legend_below(figure, handles)
    return figure


def _end(variants: pd.DataFrame, variant: str) -> str:
    """What the legend says of a variant of which there is no curve."""
    return "" if is_measured(variants.loc[variants["settings"] == variant, "loss"]) else " (no curve)"


def _looks(variants: pd.DataFrame) -> dict[str, tuple[str, Any]]:
    """Colour and line of each variant that is there, the poster's first."""
    there = list(dict.fromkeys(variants["settings"]))
    others = [variant for variant in there if variant not in NAMES]
    known: dict[str, tuple[str, Any]] = {
        variant: (colour, "-") for variant, colour in COLOURS.items() if variant in there
    }
    return known | {variant: (OTHERS[index % len(OTHERS)], "--") for index, variant in enumerate(others)}


def _draw_model(left: Axes, right: Axes, of_model: pd.DataFrame, looks: dict[str, tuple[str, Any]]) -> None:
    for variant, (colour, linestyle) in looks.items():
        rows = of_model[of_model["settings"] == variant].drop_duplicates(["run", "start_step", "step"])
        # Between two measurements there is no loss; where a run diverged there is none either, and it is shown.
        measured = rows[rows["loss"].notna() | rows["diverged"]]
        for _, of_start in measured.groupby("start_step", dropna=False):
            draw_over_seeds(left, of_start, x="step", y="loss", colour=colour, linestyle=linestyle)
            draw_over_seeds(right, of_start, x="step", y="eigenvalue", colour=colour, linestyle=linestyle)
    left.set_ylabel("training loss")
    right.set_ylabel("largest eigenvalue")
    log_y(right)
    draw_limits(right, of_model, ["black"] * len(of_model))
    from_start(right, of_model["step"].max())
