"""Combine the axes of a grid into runs.

No torch: the workflow imports it each time it plans.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from sharpness.study.run import Run, RunError


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
    axes = {key: values_of(key, value) for key, value in axes.items()}
    for values in itertools.product(*axes.values()):
        try:
            runs.append(Run(**{**defaults, **dict(zip(axes, values, strict=True))}).canonical())
        except RunError as error:
            wrong |= dict.fromkeys(error.problems)
    if wrong:
        raise RunError([*wrong], runs)
    return runs


def values_of(field: str, value: Any) -> list[Any]:
    """List all values of an axis; a single value may stand alone, and some fields have lists for values."""
    is_axis = any(isinstance(item, list) for item in value) if field == "learning_rate_epochs" else True
    return value if isinstance(value, list) and is_axis else [value]
