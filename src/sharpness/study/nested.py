"""Fields of a run that are mappings of their own, as arguments of a user's network: text, so that runs stay values."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping
from typing import Any

MAPPINGS = ("model_args", "optimizer", "schedule")
"""The fields of a run that a study gives as a mapping."""
EMPTY = "{}"
# What YAML takes for text though it is meant as a number.
_EXPONENT = re.compile(r"[+-]?\d+[eE][+-]?\d+")


def as_text(value: Any) -> str:
    """Write a mapping as JSON, the same for any order of its keys; text is taken to be that already.

    Raises:
        ValueError: it is no mapping, or has a value that JSON has not.
    """
    if isinstance(value, str):
        value = json.loads(value) if value.startswith("{") else {"name": value}
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a mapping, as {{ width: 64 }}, got {value!r}")
    _check(value, "")
    return json.dumps(value, sort_keys=True)


def as_mapping(text: str) -> dict[str, Any]:
    """Read what ``as_text`` wrote."""
    found: dict[str, Any] = json.loads(text)
    return found


def _check(value: Any, place: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"has the key {key!r}, which is not text")
            _check(item, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, place)
    elif isinstance(value, str):
        if _EXPONENT.fullmatch(value):
            raise ValueError(f"has {place} {value!r}, which YAML reads as text; write {float(value)!r} with a point")
    elif value is not None and not isinstance(value, bool | int | float):
        raise ValueError(f"has {place} {value!r}, must be numbers, words, lists and mappings of these")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"has {place} {value}, must be finite")


def values_of(value: Any, default: Mapping[str, Any]) -> list[Any]:
    """List all values of an axis that is a mapping, over the default.

    A list in the place of the mapping has one value each; within it, a list has the values of one key, and all keys are
    combined with one another.
    """
    if isinstance(value, list):
        return [combined for item in value for combined in values_of(item, default)]
    if not isinstance(value, Mapping):
        return [value]  # the name of an optimizer or a schedule
    # Of another optimizer or schedule, the default's settings mean nothing.
    is_other = "name" in value and value["name"] != default.get("name")
    lists = {key: item if isinstance(item, list) else [item] for key, item in value.items()}
    return [
        {**({} if is_other else default), **dict(zip(lists, chosen, strict=True))}
        for chosen in itertools.product(*lists.values())
    ]


def spelt(text: str) -> str:
    """Spell a mapping for a run's name, ``width64_depth2_1f0e3dad``: words for people, and a hash to tell all apart."""
    found = as_mapping(text)
    name = found.pop("name", "")
    if not found:
        return str(name)
    words = [f"{key}{value if isinstance(value, str) else json.dumps(value)}" for key, value in found.items()]
    plain = "_".join([str(name), *words] if name else words)
    hashed = short_hash(text)
    return f"{plain}_{hashed}" if re.fullmatch(r"[A-Za-z0-9_.+-]{1,60}", plain) and ".." not in plain else hashed


def short_hash(text: str) -> str:
    """Eight hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
