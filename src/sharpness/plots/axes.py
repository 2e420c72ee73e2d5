"""Axes to draw on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito, "Color universal design", 2008.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#777777"


def axes_or_new(axes: Axes | None, **figure: Any) -> Axes:
    """Return the given axes, or those of a new pyplot figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    if axes is not None:
        return axes
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise ModuleNotFoundError("plots are drawn by matplotlib: pip install matplotlib", name=error.name) from None
    return pyplot.subplots(**{"figsize": (6.0, 4.0), "layout": "constrained"} | figure)[1]
