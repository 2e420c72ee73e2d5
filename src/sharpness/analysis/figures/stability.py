"""Where gradient descent on a quadratic loss would become unstable: at the curvature 2 / step size.

Along nudged directions the step is γ times the learning rate. With momentum β the curvature is 1 + β times as large,
and with Nesterov's (1 + β) / (1 + 2β) times. Optimizers that scale each weight by itself have no such limit.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sharpness.study.optimizers import OPTIMIZERS

LOOK: dict[str, Any] = {"linewidth": 1, "linestyle": (0, (1, 2))}


def limits_of(rows: pd.DataFrame) -> pd.Series:
    """The limit along the sharpest directions, by row.

    Args:
        rows: columns learning_rate, gamma; and momentum and optimizer, or it is SGD.

    Returns:
        NaN for an optimizer without a limit.
    """
    limits: pd.Series = 2 / (rows["learning_rate"] * rows["gamma"])
    return limits * _factors(rows)


def _factors(rows: pd.DataFrame) -> pd.Series:
    """What the update rule multiplies the limit of plain SGD by."""
    momentum = rows["momentum"] if "momentum" in rows else pd.Series(0.0, index=rows.index)
    optimizer = rows["optimizer"] if "optimizer" in rows else pd.Series("{}", index=rows.index)
    pairs = zip(momentum, optimizer, strict=True)
    return pd.Series([_factor(beta, json.loads(told)) for beta, told in pairs], index=rows.index, dtype=float)


def _factor(momentum: float, optimizer: dict[str, Any]) -> float:
    if not optimizer:
        return 1 + momentum
    if optimizer["name"] != "nesterov":
        return math.nan
    beta = optimizer.get("momentum", OPTIMIZERS["nesterov"]["momentum"][0])
    return float((1 + beta) / (1 + 2 * beta))


def draw_limits(axes: Axes, colours: Mapping[float, str]) -> None:
    """A dotted line at each limit in its colour, where it is in sight; called when all is drawn."""
    seen = axes.get_ylim()
    for limit, colour in colours.items():
        if math.isnan(limit):
            continue
        axes.axhline(limit, color=colour, zorder=0, **LOOK)
    axes.set_ylim(seen)


def name_of_limit(rows: pd.DataFrame) -> str:
    """What a figure of these runs calls the limit.

    Args:
        rows: column gamma, and those of the update rule.
    """
    factors = _factors(rows)
    if factors.isna().all():
        return "no limit of this optimizer"
    rate = "learning rate" if (rows["gamma"] == 1).all() else "(γ × learning rate)"
    return f"2 / {rate}" if (factors.dropna() == 1).all() else f"2 / {rate}, times that of momentum"


def legend_of_limit(rows: pd.DataFrame, colour: str = "black") -> Line2D:
    """What ``draw_limits`` draws, as an entry of a legend."""
    look = LOOK | ({"linestyle": "none"} if _factors(rows).isna().all() else {})
    return Line2D([], [], color=colour, label=name_of_limit(rows), **look)
