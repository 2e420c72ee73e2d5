"""Check arguments of public functions: each error says in one sentence what would be right."""

from __future__ import annotations

import math
from numbers import Integral, Real

import torch


def whole_number(name: str, value: object, *, least: int | None = None) -> int:
    """Check that ``value`` is an integer, of at least ``least`` if given, and return it.

    Raises:
        TypeError: it is not an integer; True and 2.0 are not either.
        ValueError: it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def flag(name: str, value: object) -> bool:
    """Check that ``value`` is True or False, and return it.

    Raises:
        TypeError: it is neither; "no" would count as True.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def factor(name: str, value: object) -> None:
    """Check that ``value`` is a finite number that is not negative.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative or not finite.
    """
    if not 0 <= _number(name, value) < math.inf:
        raise ValueError(f"{name} must be finite and not negative, got {value}")


def tolerance(value: object) -> None:
    """Check that ``value`` is a positive, finite number.

    Raises:
        TypeError: it is not a number.
        ValueError: it is not positive or not finite.
    """
    if not 0 < _number("tolerance", value) < math.inf:
        raise ValueError(f"tolerance must be positive and finite, such as 1e-3, got {value}")


def generator(value: object) -> None:
    """Check that ``value`` is a random generator on the CPU.

    Raises:
        TypeError: it is not a generator.
        ValueError: it is on another device, where the same seed gives other numbers.
    """
    if not isinstance(value, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, such as torch.Generator().manual_seed(0), got {value!r}")
    if value.device.type != "cpu":
        raise ValueError(f"generator must be on the CPU, so that all devices draw the same, got {value.device}")


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)
