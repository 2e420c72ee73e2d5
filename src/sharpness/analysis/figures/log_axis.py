"""A logarithmic axis with numbers a reader can read: 20, not 2 x 10^1."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator


def log_y(axes: Axes) -> None:
    """Make the y axis logarithmic, with more ticks the fewer decades there are; called when all is drawn."""
    axes.set_yscale("log", nonpositive="mask")
    low, high = axes.get_ylim()
    if not low > 0:
        axes.set_yscale("linear")  # nothing that a logarithmic axis could show was drawn
        return
    log_ticks(axes.yaxis, low, high)


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Give a logarithmic axis from ``low`` to ``high`` more ticks the fewer decades there are."""
    axis.set_major_locator(LogLocator(subs=_factors(low, high), numticks=20))
    axis.set_major_formatter(FuncFormatter(_number))
    axis.set_minor_locator(LogLocator(subs=range(1, 10)))
    axis.set_minor_formatter(NullFormatter())


def log_y_from_zero(*panels: Axes) -> None:
    """Make the y axis that panels share logarithmic from the smallest positive value drawn on, with zero below."""
    lines = [line for axes in panels for line in axes.get_lines()]
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in lines])
    positive = drawn[np.isfinite(drawn) & (drawn > 0)]
    if not len(positive):
        return
    low, high = float(positive.min()), float(positive.max())
    axes = panels[0]
    axes.set_yscale("symlog", linthresh=low, linscale=0.3)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    axes.yaxis.set_major_locator(FixedLocator([0, *(tick for tick in ticks if tick >= low)]))
    axes.yaxis.set_major_formatter(FuncFormatter(_number))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-0.3 * low, 1.5 * high)


def _factors(low: float, high: float) -> tuple[int, ...]:
    """The ticks of a decade: more, the fewer decades there are."""
    decades = math.log10(high / low)
    return (1, 2, 3, 4, 5, 6, 8) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)


def _number(value: float, _: object) -> str:
    # Within two ticks of a decade, the locator takes others: 1.05, 1.1, ...
    return f"{value:,.0f}" if value >= 1 and math.isclose(value, round(value)) else f"{value:.4g}"
