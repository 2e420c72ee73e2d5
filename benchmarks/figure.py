"""How the cost of a spectrum grows, with the least it could be."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from benchmarks.jobs import NUM_EXAMPLES
from benchmarks.summary import SETTING, with_floor
from sharpness.analysis.figures.palette import BLUE, GREY, ORANGE

_NETWORK, _NUM_PAIRS = "simple_cnn", 10
_LINES = {
    "ours float32": (BLUE, "o", "this project, float32"),
    "ours bfloat16": (ORANGE, "s", "this project, bfloat16"),
    "scipy LM": (GREY, "^", "eigsh over double backward"),
}
_PANELS = {
    "num_examples": "number of examples",
    "num_pairs": "number of eigenpairs k",
}
_FIXED = {"num_examples": NUM_EXAMPLES, "num_pairs": _NUM_PAIRS}


def kind_drawn(table: pd.DataFrame) -> str:
    """The kind of processor with the most settings measured; the latest of those with equally many."""
    spectra = table[table["part"] == "spectrum"].drop_duplicates(["kind", *SETTING])
    counts = spectra.groupby("kind", sort=False).size()
    return str(counts.idxmax()) if len(counts) else str(table["kind"].iloc[0])


def cost_growth(table: pd.DataFrame) -> Figure:
    """Time of a spectrum against the number of examples and of eigenpairs; dashed, the floor.

    As used, without malloc's settings, unless all was measured with them.

    Args:
        table: what ``benchmarks.spectrum`` writes, of one kind of processor.
    """
    figure = Figure(figsize=(6.5, 3.0), layout="constrained")
    spectra = with_floor(table)
    set_up = spectra["malloc"].astype(bool)
    spectra = spectra[(spectra["network"] == _NETWORK) & (~set_up | set_up.all())]
    for axes, (column, label) in zip(figure.subplots(1, 2, sharey=True), _PANELS.items(), strict=True):
        fixed = {name: value for name, value in _FIXED.items() if name != column}
        chosen = spectra[(spectra[list(fixed)] == pd.Series(fixed)).all(axis=1)]
        _draw_panel(axes, chosen, column)
        axes.set_xlabel(label)
    axes = figure.axes[0]
    axes.set_ylabel("time of a spectrum [s]")
    axes.plot([], [], color="black", linestyle="--", label="floor: FLOPs of the products\nat a convolution's rate")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _draw_panel(axes: Axes, spectra: pd.DataFrame, column: str) -> None:
    for tool, (colour, marker, label) in _LINES.items():
        medians = spectra[spectra["tool"] == tool].groupby(column)[["seconds", "floor"]].median()
        axes.plot(medians.index, medians["seconds"], color=colour, marker=marker, label=label)
        axes.plot(medians.index, medians["floor"], color=colour, linestyle="--")
    axes.set(xscale="log", yscale="log")
    ticks = sorted(spectra[column].unique())
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
