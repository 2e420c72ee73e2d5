"""Legends as wide as the figure, and no wider."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.legend import Legend


def legend_below(part: Figure | SubFigure, handles: Sequence[Artist]) -> None:
    """Add a legend below a figure, or a part as wide as the whole, with as many columns as there is room for.

    Args:
        part: of a constrained layout.
        handles: the legend's entries.
    """
    _fit(
        lambda ncols: part.legend(handles=handles, ncols=ncols, loc="outside lower center"),
        most=len(handles),
        room=part.bbox.width,
    )


def legend_above(axes: Axes, handles: Sequence[Artist], *, title: str, num_panels: int) -> None:
    """Add a legend on top of a panel, with as many columns as there is room for.

    Args:
        axes: the panel.
        handles: the legend's entries.
        title: of the legend.
        num_panels: beside one another in the figure.
    """
    whole = axes.get_figure(root=True)
    assert whole is not None
    _fit(
        lambda ncols: axes.legend(
            handles=handles, ncols=ncols, title=title, loc="lower center", bbox_to_anchor=(0.5, 1.0), borderaxespad=0.2
        ),
        most=len(handles),
        room=0.85 * whole.bbox.width / num_panels,
    )


def _fit(add: Callable[[int], Legend], *, most: int, room: float) -> None:
    for ncols in range(most, 0, -1):
        legend = add(ncols)
        whole = legend.get_figure(root=True)
        assert whole is not None
        renderer = FigureCanvasAgg(whole).get_renderer()  # type: ignore[no-untyped-call]
        if ncols == 1 or legend.get_window_extent(renderer).width <= 0.98 * room:
            return
        legend.remove()
