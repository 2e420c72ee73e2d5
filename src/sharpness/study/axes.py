"""Combine the axes of a grid into runs.

No torch: the workflow imports it each time it plans.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from sharpness.study import nested
from sharpness.study.run import Run, RunError


class MappingError(ValueError):
    """The default of a field that is a mapping is none; the message names the field."""


def runs_of(defaults: Mapping[str, Any], axes: Mapping[str, Any]) -> list[Run]:
    """Combine the axes' values with one another, over the defaults.

    Args:
        defaults: a value for each field of ``Run`` that is not an axis.
        axes: field to value or list of values.

    Raises:
        RunError: a combination is not a possible run.
    """
    runs: list[Run] = []
    wrong: dict[str, None] = {}
    try:
        axes = {key: values_of(key, value, defaults.get(key)) for key, value in axes.items()}
    except MappingError as error:
        raise RunError([str(error)]) from None
    for values in itertools.product(*axes.values()):
        try:
            runs.append(Run(**{**defaults, **dict(zip(axes, values, strict=True))}).canonical())
        except RunError as error:
            wrong |= dict.fromkeys(error.problems)
    if wrong:
        raise RunError([*wrong], runs)
    return runs


def values_of(field: str, value: Any, default: Any = None) -> list[Any]:
    """List all values of an axis; a single value may stand alone, and some fields have lists for values."""
    if field in nested.MAPPINGS:
        try:
            return nested.values_of(value, nested.as_mapping(nested.as_text(default or {})))
        except ValueError as error:
            raise MappingError(f"{field} {error}") from None
    is_axis = any(isinstance(item, list) for item in value) if field == "learning_rate_epochs" else True
    return value if isinstance(value, list) and is_axis else [value]
