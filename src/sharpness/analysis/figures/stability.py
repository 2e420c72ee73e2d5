"""Where gradient descent on a quadratic loss would become unstable: at the curvature 2 / learning rate."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

LOOK: dict[str, Any] = {"linewidth": 1, "linestyle": (0, (1, 2))}


def draw_limits(axes: Axes, colours: Mapping[float, str]) -> None:
    """A dotted line at 2 / learning rate in the colour of each rate, where it is in sight; called when all is drawn."""
    seen = axes.get_ylim()
    for learning_rate, colour in colours.items():
        axes.axhline(2 / learning_rate, color=colour, zorder=0, **LOOK)
    axes.set_ylim(seen)


def legend_of_limit(colour: str = "black") -> Line2D:
    """What ``draw_limits`` draws, as an entry of a legend."""
    return Line2D([], [], color=colour, label="2 / learning rate", **LOOK)
