"""How wide a bowl is: the distance at which the loss along a direction has risen by a fixed amount."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

RISE = 0.1  # of the loss along a direction, in nats: so far does a bowl reach


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
