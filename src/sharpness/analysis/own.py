"""Figures by a user's own function: from the tables of an experiment, or, to try it, from tables that are made up."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from sharpness.runtime import own
from sharpness.runtime.definitions import OwnError
from sharpness.study.identity import MADE_BY, PLACE, PLACE_IN_A_HISTORY
from sharpness.study.measurement import required
from sharpness.study.records import columns_of

# Rows of each run in a table that is made up.
_ROWS = 4
# What is no number in measured tables, but for names and hashes: code may compare with it.
_KNOWN = {
    "checkpoint": "planned",
    "which": "largest",
    "search_precision": "float32",
    "direction": "top",
    "quantity": "eigenvalue",
    "threads": 1,
}


def drawn(code: str, frames: Mapping[str, pd.DataFrame]) -> Any:
    """Call the user's function with the tables that its arguments name, and return what it returns.

    Args:
        code: the function, file.py:name.
        frames: the tables that there are.

    Raises:
        OwnError: it needs another table, or fails; the message has the line of the user's file.
    """
    draw, place = own.load(code), own.place_of_definition(code)
    if not callable(draw):
        raise OwnError(f"{place}: must be a function that returns a matplotlib figure, got {type(draw).__name__}")
    parameters = inspect.signature(draw).parameters.values()
    takes_all = any(each.kind == each.VAR_KEYWORD for each in parameters)
    wanted = {each.name: each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    for name, each in wanted.items():
        if name not in frames and each.default is each.empty:
            raise OwnError(f"{place}: there is no table {name!r}, the tables are {', '.join(frames)}")
    chosen = {name: frame.copy() for name, frame in frames.items() if takes_all or name in wanted}
    return own.call(code, draw, **chosen)


def check_figure(code: str, picture: Any) -> Figure:
    """Return what a user's function returned, if it is a figure.

    Raises:
        OwnError: it is none.
    """
    if not isinstance(picture, Figure):
        place = own.place_of_definition(code)
        raise OwnError(f"{place}: must return a matplotlib figure, got {type(picture).__name__}")
    return picture


def made_up(
    measurement: str, members: Iterable[tuple[str, str]], runs: pd.DataFrame, columns: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """A table as an experiment's will be, of its own runs, but with numbers that nobody measured.

    Args:
        measurement: what it holds.
        members: grid and run of each.
        runs: columns run and epochs.
        columns: those of a user's own measurement, each with the Python type of what it holds.
    """
    of_runs = runs.set_index("run")["epochs"]
    of_measurement = required(columns_of(measurement)) if columns is None else tuple(columns)
    place = [column for column in (PLACE_IN_A_HISTORY if measurement == "history" else PLACE) if column != "stopped"]
    types = columns or {}
    rows = [
        {
            "experiment": "made_up",
            "grid": grid,
            **{column: _KNOWN.get(column, "made up") for column in place},
            "run": run,
            "step": number,
            "epoch": number * of_runs[run] / (_ROWS - 1),
            "diverged": False,
            **{column: _value(column, types.get(column, "float"), number) for column in of_measurement},
            **{column: _KNOWN.get(column, "made up") for column in MADE_BY},
        }
        for grid, run in members
        for number in range(_ROWS)
    ]
    return pd.DataFrame(rows)


def _value(column: str, kind: str, number: int) -> object:
    if column in _KNOWN:
        return _KNOWN[column]
    of_kind: Sequence[object] = {
        "int": range(_ROWS),
        "bool": (False, True) * _ROWS,
        "str": ("made up",) * _ROWS,
    }.get(kind, [1 + index / 8 for index in range(_ROWS)])
    return of_kind[number]
