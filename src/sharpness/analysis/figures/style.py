"""The style sheet, worn by every figure while it is drawn and while it is saved."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec, cast

import matplotlib.style
from matplotlib.figure import Figure

from sharpness.analysis.tables import with_columns

Arguments = ParamSpec("Arguments")


def style() -> AbstractContextManager[None]:
    """The look of the project's figures, for a ``with`` block; under it matplotlib's defaults, not the user's."""
    return matplotlib.style.context(["default", Path(__file__).with_name("style.mplstyle")])


def nothing_measured() -> Figure:
    """A figure in place of one of which no run has a row: all ended before what was to be measured."""
    figure = Figure(figsize=(5.2, 1.2), layout="constrained")
    figure.text(0.5, 0.5, "nothing was measured: every run ended before its first checkpoint", ha="center", va="center")
    return figure


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """``draw``, drawing in the project's style tables that lack no column; its arguments are named as measurements."""
    names = tuple(signature(draw).parameters)

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        tables: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
        whole: Any = {name: with_columns(name, table) for name, table in tables.items()}
        with style():
            if any(table.empty for table in whole.values()):
                return nothing_measured()
            return cast("Callable[..., Figure]", draw)(**whole)

    return drawn
