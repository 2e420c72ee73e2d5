"""Eigenvalue errors of all rows, against ARPACK at machine precision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

_SETTING = ("network", "num_examples")
# The tools that look for the algebraically largest; the others look for the largest in magnitude.
_LARGEST = ("ours float32", "ours bfloat16", "scipy LA")
_BY_ARPACK = ("scipy LM", "scipy LA")

Row = dict[str, Any]


def with_errors(rows: list[Row]) -> list[Row]:
    """The rows with the worst eigenvalue error of each spectrum, over the largest magnitude, where it is known."""
    return [row | {"eigenvalue_error": error} if (error := _error(row, rows)) is not None else row for row in rows]


def as_text(values: Iterable[float]) -> str:
    """Eigenvalues as one cell of a table."""
    return " ".join(repr(float(value)) for value in values)


def _error(row: Row, rows: list[Row]) -> float | None:
    if row["part"] != "spectrum" or "eigenvalues" not in row:
        return None
    found = np.sort(_values(row))[::-1]
    largest = row["tool"] in _LARGEST
    wanted = _wanted(row, rows, largest=largest)
    if wanted is None:
        return None
    wanted = wanted[: len(found)]
    return float(np.abs(found - np.sort(wanted)[::-1]).max() / np.abs(wanted).max())


def _wanted(row: Row, rows: list[Row], *, largest: bool) -> np.ndarray[Any, Any] | None:
    """At least as many true eigenvalues as the row has, those it looks for first; None where they are not known.

    From a reference, or else from another run of ARPACK, which stops at machine precision by default.
    """
    same = [other for other in rows if all(other[name] == row[name] for name in _SETTING) and "eigenvalues" in other]
    references = [other for other in same if other["part"] == "reference"]
    references += [other for other in same if other["tool"] in _BY_ARPACK and other is not row]
    for other in references:
        values = _values(other)
        if not largest and other["tool"] == "scipy LA":
            continue
        order = np.argsort(values)[::-1] if largest else np.argsort(np.abs(values))[::-1]
        wanted = values[order][: row["num_pairs"]]
        # Below the last positive one, others may be hidden behind negative ones of larger magnitude.
        complete = not largest or other["tool"] == "scipy LA" or wanted.min() > 0
        if len(wanted) == row["num_pairs"] and complete:
            return wanted
    return None


def _values(row: Row) -> np.ndarray[Any, Any]:
    return np.array([float(word) for word in str(row["eigenvalues"]).split()])
