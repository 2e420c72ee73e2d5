"""How many seeds like those that were seen would decide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from sharpness.analysis.claims.intervals import Mean
from sharpness.analysis.claims.rules import LEVEL, POWER

MOST = 1000  # beyond it nobody trains so many


def seeds_for_mean(mean: Mean, threshold: float = 0.0) -> float:
    """The fewest seeds with which Student's two-sided test would tell a mean like this one from a threshold.

    By the noncentral t distribution; NaN where no spread is known, infinite beyond ``MOST``.
    """

    def power(num: int) -> float:
        beyond = stats.t.ppf((1 + LEVEL) / 2, num - 1)
        shift = abs(mean.estimate - threshold) / mean.deviation * np.sqrt(num)
        # scipy's distribution is not to be had far out, where the test is sure.
        return 1.0 if shift > 10 + 2 * beyond else float(stats.nct.sf(beyond, num - 1, shift))

    return _fewest(mean, power)


def seeds_for_same(mean: Mean, margin: float) -> float:
    """The fewest seeds with which a mean like this one would be within a margin, or outside it; as above."""
    if abs(mean.estimate) >= margin:
        return seeds_for_mean(mean, float(np.copysign(margin, mean.estimate)))
    # The spread of a sample of n is that of chi squared: its quantiles stand for all values that it may have.
    quantiles = (np.arange(500) + 0.5) / 500

    def power(num: int) -> float:
        error = mean.deviation / np.sqrt(num)
        seen = error * np.sqrt(stats.chi2.ppf(quantiles, num - 1) / (num - 1))
        room = margin - stats.t.ppf(LEVEL, num - 1) * seen
        inside = stats.norm.cdf((room - mean.estimate) / error) - stats.norm.cdf((-room - mean.estimate) / error)
        return float(np.where(room > 0, inside, 0.0).mean())

    return _fewest(mean, power)


def _fewest(mean: Mean, power: Callable[[int], float]) -> float:
    if not (np.isfinite(mean.deviation) and mean.deviation > 0):
        return np.nan
    if power(MOST) < POWER:
        return np.inf
    low, high = 1, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return float(high)
