"""A logarithmic axis with numbers a reader can read: 20, not 2 x 10^1."""

import math

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter


def log_y(axes: Axes) -> None:
    """Make the y axis logarithmic, with more ticks the fewer decades there are; called when all is drawn."""
    axes.set_yscale("log", nonpositive="mask")
    low, high = axes.get_ylim()
    if not low > 0:
        axes.set_yscale("linear")  # nothing that a logarithmic axis could show was drawn
        return
    decades = math.log10(high / low)
    subs = (1, 2, 3, 4, 5, 6, 8) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(_number))
    axes.yaxis.set_minor_locator(LogLocator(subs=range(1, 10)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _number(value: float, _: object) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
