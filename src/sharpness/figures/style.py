"""The style sheet, worn by every figure while it is drawn and while it is saved."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec, cast

import matplotlib.style
from matplotlib.figure import Figure

from sharpness.tables import with_columns

Arguments = ParamSpec("Arguments")


def style() -> AbstractContextManager[None]:
    """The look of the project's figures, for a ``with`` block; under it matplotlib's defaults, not the user's."""
    return matplotlib.style.context(["default", Path(__file__).parent.parent / "style.mplstyle"])


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """``draw``, drawing in the project's style tables that lack no column; its arguments are named as measurements."""
    names = tuple(signature(draw).parameters)

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        tables: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
        whole: Any = {name: with_columns(name, table) for name, table in tables.items()}
        with style():
            return cast("Callable[..., Figure]", draw)(**whole)

    return drawn
