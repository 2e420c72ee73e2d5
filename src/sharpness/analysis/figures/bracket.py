"""How far the largest eigenvalue on a sample may lie from that on all training examples, drawn as a band."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from sharpness.analysis.figures.runs import examples_in_words

LOOK: dict[str, Any] = {"alpha": 0.3, "linewidth": 0, "hatch": "////", "zorder": 0.9}


def has_bracket(rows: pd.DataFrame) -> bool:
    """Whether a table knows the curvature of the largest eigenvalue's vector on other examples."""
    return "elsewhere" in rows and bool(rows.loc[rows["rank"] == 0, "elsewhere"].notna().any())


def draw_bracket(axes: Axes, rows: pd.DataFrame, *, colour: Any) -> None:
    """Draw a hatched band from ``elsewhere`` to ``eigenvalue``, means over runs; called when all else is drawn.

    The line on the band's upper edge hides it where it is narrower than the line.

    Args:
        axes: where.
        rows: columns epoch, rank, eigenvalue, diverged, and elsewhere if it was measured.
        colour: that of the eigenvalue's line.
    """
    if not has_bracket(rows):
        return
    both = rows[(rows["rank"] == 0) & ~rows["diverged"] & np.isfinite(rows["eigenvalue"])]
    # Where all examples were measured there are no others, and the band has no width.
    means = both.assign(elsewhere=both["elsewhere"].fillna(both["eigenvalue"])).groupby("epoch").mean(numeric_only=True)
    low, _ = seen = axes.get_ylim()
    axes.fill_between(
        means.index, means["elsewhere"].clip(lower=low), means["eigenvalue"], facecolor="none", edgecolor=colour, **LOOK
    )
    axes.set_ylim(seen)


def legend_of_bracket(rows: pd.DataFrame, colour: Any) -> list[Patch]:
    """The band as an entry of a legend, where there is one."""
    look = {key: value for key, value in LOOK.items() if key != "zorder"}
    label = f"down to the curvature on other {examples_in_words(rows)}"
    return [Patch(facecolor="none", edgecolor=colour, label=label, **look)] if has_bracket(rows) else []
