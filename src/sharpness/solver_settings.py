"""Checks of what a caller gives to a solver or an estimator: each says in one sentence what would be right."""

from __future__ import annotations

import math
from numbers import Integral, Real

import torch


def check_whole(name: str, number: object) -> None:
    """Raise an error unless ``number`` is a whole number.

    Raises:
        TypeError: it is none; neither are True and 2.0.
    """
    if isinstance(number, bool) or not isinstance(number, Integral):
        raise TypeError(f"{name} must be a whole number, got {number!r}")


def check_at_least(name: str, number: int, least: int) -> None:
    """Raise an error unless ``number`` is a whole number and at least ``least``.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is smaller.
    """
    check_whole(name, number)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")


def check_tolerance(tolerance: object) -> None:
    """Raise an error unless ``tolerance`` is a positive, finite number.

    Raises:
        TypeError: it is no number.
        ValueError: it is not positive or not finite.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, Real):
        raise TypeError(f"tolerance must be a number, got {tolerance!r}")
    if not 0 < float(tolerance) < math.inf:
        raise ValueError(f"tolerance must be positive and finite, such as 1e-3, got {tolerance}")


def check_generator(generator: object) -> None:
    """Raise an error unless ``generator`` is a random generator on the CPU: the global one is never used.

    Raises:
        TypeError: it is no generator.
        ValueError: it draws on another device, where the same seed gives other numbers.
    """
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, as torch.Generator().manual_seed(0), got {generator!r}")
    if generator.device.type != "cpu":
        raise ValueError(f"generator must be on the CPU, so that all devices draw the same, got {generator.device}")
