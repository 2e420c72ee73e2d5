"""The style sheet, worn by every figure while it is drawn and while it is saved."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import matplotlib.style
from matplotlib.figure import Figure

Arguments = ParamSpec("Arguments")


def style() -> AbstractContextManager[None]:
    """The look of the project's figures, for a ``with`` block; under it matplotlib's defaults, not the user's."""
    return matplotlib.style.context(["default", Path(__file__).parent.parent / "style.mplstyle"])


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """``draw``, drawing in the project's style."""

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with style():
            return draw(*args, **kwargs)

    return drawn
