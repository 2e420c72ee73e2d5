"""Where gradient descent on a quadratic loss would become unstable: at the curvature 2 / step size.

Along nudged directions the step is γ times the learning rate.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

LOOK: dict[str, Any] = {"linewidth": 1, "linestyle": (0, (1, 2))}


def limits_of(rows: pd.DataFrame) -> pd.Series:
    """The limit along the sharpest directions, by row.

    Args:
        rows: columns learning_rate, gamma.
    """
    limits: pd.Series = 2 / (rows["learning_rate"] * rows["gamma"])
    return limits


def draw_limits(axes: Axes, colours: Mapping[float, str]) -> None:
    """A dotted line at each limit in its colour, where it is in sight; called when all is drawn."""
    seen = axes.get_ylim()
    for limit, colour in colours.items():
        axes.axhline(limit, color=colour, zorder=0, **LOOK)
    axes.set_ylim(seen)


def name_of_limit(rows: pd.DataFrame) -> str:
    """What a figure of these runs calls the limit.

    Args:
        rows: column gamma.
    """
    return "2 / learning rate" if (rows["gamma"] == 1).all() else "2 / (γ × learning rate)"


def legend_of_limit(rows: pd.DataFrame, colour: str = "black") -> Line2D:
    """What ``draw_limits`` draws, as an entry of a legend."""
    return Line2D([], [], color=colour, label=name_of_limit(rows), **LOOK)
