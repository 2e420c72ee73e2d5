"""Legends as wide as the figure, and no wider."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.legend import Legend

# What ``_fit`` is given: adds a legend of so many columns, its title as given.
_Add = Callable[[int, str], Legend]
_SHARE = 0.98  # of the room that a legend may take
_TALLEST = 0.45  # of its part of the figure, above which the figure grows


def legend_below(part: Figure | SubFigure, handles: Sequence[Artist]) -> None:
    """Add a legend below a figure, or a part as wide as the whole, with as many columns as there is room for.

    Args:
        part: of a constrained layout.
        handles: the legend's entries.
    """
    legend = _fit(
        lambda ncols, _: part.legend(handles=handles, ncols=ncols, loc="outside lower center"),
        handles,
        len(handles),
        room=part.bbox.width,
    )
    _grow(part, legend)


def legend_above(axes: Axes, handles: Sequence[Artist], *, title: str, num_panels: int) -> None:
    """Add a legend on top of a panel, with as many columns as there is room for.

    Args:
        axes: the panel.
        handles: the legend's entries.
        title: of the legend.
        num_panels: beside one another in the figure.
    """
    _beside(axes, handles, title, num_panels, len(handles), loc="lower center", anchor=(0.5, 1.0), pad=0.2)


def legend_under(axes: Axes, handles: Sequence[Artist], *, title: str, num_panels: int) -> None:
    """Add a legend under the axis of a panel, its entries one below the other.

    Args:
        axes: the panel.
        handles: the legend's entries.
        title: of the legend.
        num_panels: beside one another in the figure.
    """
    _beside(axes, handles, title, num_panels, 1, loc="upper center", anchor=(0.5, -0.2), pad=0.0)


def _beside(
    axes: Axes,
    handles: Sequence[Artist],
    title: str,
    num_panels: int,
    max_columns: int,
    *,
    loc: str,
    anchor: tuple[float, float],
    pad: float,
) -> None:
    place: dict[str, Any] = {"loc": loc, "bbox_to_anchor": anchor, "borderaxespad": pad}
    _fit(
        lambda ncols, named: axes.legend(handles=handles, ncols=ncols, title=named, **place),
        handles,
        max_columns,
        room=0.85 * _whole(axes).bbox.width / num_panels,
        title=title,
    )


def _whole(artist: Artist) -> Figure:
    whole = artist.get_figure(root=True)
    assert isinstance(whole, Figure)
    return whole


def _width(legend: Legend) -> float:
    renderer = FigureCanvasAgg(_whole(legend)).get_renderer()  # type: ignore[no-untyped-call]
    return float(legend.get_window_extent(renderer).width)


def _fit(add: _Add, handles: Sequence[Artist], max_columns: int, *, room: float, title: str = "") -> Legend:
    """Add a legend with as many columns as allowed and fitting; in one column, words are broken into lines.

    Where a single word is wider than the room, the figure grows to its width.
    """
    for ncols in range(max_columns, 1, -1):
        legend = add(ncols, title)
        if _width(legend) <= _SHARE * room:
            return legend
        legend.remove()
    labels = [str(handle.get_label()) for handle in handles]
    characters = max(map(len, [*labels, title]), default=1)
    while True:
        for handle, label in zip(handles, labels, strict=True):
            handle.set_label(_broken(label, characters))
        legend = add(1, _broken(title, characters))
        if (width := _width(legend)) <= _SHARE * room or characters == 1:
            break
        legend.remove()
        characters = max(1, round(0.9 * characters) - 1)
    if width > _SHARE * room:
        whole = _whole(legend)
        whole.set_figwidth(whole.get_figwidth() * width / (_SHARE * room))
    return legend


def _broken(words: str, characters: int) -> str:
    """Words in lines of so many characters; no word is cut, and lines stay lines."""
    wrapped = (
        textwrap.fill(line, characters, break_long_words=False, break_on_hyphens=False) for line in words.split("\n")
    )
    return "\n".join(wrapped)


def _grow(part: Figure | SubFigure, legend: Legend) -> None:
    """Make a figure higher by what a legend takes of a part beyond its share, so that its panels keep theirs."""
    renderer = FigureCanvasAgg(_whole(legend)).get_renderer()  # type: ignore[no-untyped-call]
    taken = legend.get_window_extent(renderer).height / part.bbox.height
    if taken > _TALLEST:
        whole = _whole(legend)
        whole.set_figheight(whole.get_figheight() * (1 + taken - _TALLEST))
