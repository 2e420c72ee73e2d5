"""Where a curve does something: its first peak, and the distance at which it has risen so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

FALL = 0.8  # a peak is over once the curve is down to this part of it
RISE = 0.1  # of the loss along a direction, in nats: so far does a bowl reach


@dataclass(frozen=True)
class Peak:
    """The first maximum of a curve."""

    index: int  # of the highest value before the curve first falls to ``FALL`` of it
    is_over: bool  # whether it falls so far; if not, its peak is at or after the end


def first_peak(values: Sequence[float]) -> Peak:
    """Find the highest value before the curve first falls to ``FALL`` of it.

    Args:
        values: finite, in the order of time, at least one.
    """
    highest = 0
    for index, value in enumerate(values):
        if value > values[highest]:
            highest = index
        elif values[highest] > 0 and value <= FALL * values[highest]:
            return Peak(highest, is_over=True)
    return Peak(highest, is_over=False)


def distance_of_rise(distances: Sequence[float], losses: Sequence[float]) -> float:
    """The distance from 0 on at which the loss has first risen by ``RISE``, linear between two points of the grid.

    Args:
        distances: ascending, 0 and larger ones among them.
        losses: there; one that overflows is above any bound.

    Returns:
        The distance; infinite where the loss does not rise so far, NaN where it is unknown at 0.
    """
    ahead = [(place, loss) for place, loss in zip(distances, losses, strict=True) if place >= 0]
    if not ahead or ahead[0][0] != 0 or not np.isfinite(ahead[0][1]):
        return float("nan")
    bound = ahead[0][1] + RISE
    for (before, low), (place, loss) in pairwise(ahead):
        if not loss < bound:
            part = (bound - low) / (loss - low) if np.isfinite(loss) else 1.0
            return float(before + part * (place - before))
    return float("inf")
