"""Estimates with their intervals, and tests: numbers of seeds in, numbers out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from sharpness.analysis.claims.rules import LEVEL

MOST_EXACT = 10  # settings whose orders are counted
_EQUAL = 1e-9  # numbers that differ by less, relative to the largest, are the same but for their arithmetic


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval; NaN where there is none."""

    estimate: float
    low: float
    high: float
    num: int  # seeds behind it


NONE = Interval(np.nan, np.nan, np.nan, 0)


@dataclass(frozen=True)
class Mean:
    """The mean of one number a seed. A seed without one is no part of it; an infinite one makes the mean unbounded."""

    estimate: float
    deviation: float  # NaN where nothing tells it: of a single number, or of equal ones that are not rounded
    num: int
    rounding: float  # how far each may be from what it was rounded to

    def interval(self, level: float = LEVEL) -> Interval:
        """Student's interval, widened by the rounding."""
        if self.num > 1 and np.isinf(self.deviation):
            return Interval(self.estimate, -np.inf, np.inf, self.num)
        half = float(stats.t.ppf((1 + level) / 2, self.num - 1) * self._error()) if self.num > 1 else np.nan
        half += self.rounding
        return Interval(self.estimate, self.estimate - half, self.estimate + half, self.num)

    def p(self, threshold: float = 0.0) -> float:
        """Of Student's two-sided test against a threshold."""
        return float(np.minimum(1.0, 2 * self._beyond(abs(self.estimate - threshold))))

    def p_same(self, margin: float) -> float:
        """Of two one-sided tests: that the mean is not within the margin of zero (Schuirmann 1987)."""
        return self._beyond(margin - abs(self.estimate))

    def _beyond(self, distance: float) -> float:
        """The probability of an estimate at least so far above one's own."""
        away = distance - self.rounding * np.sign(distance)
        if np.isnan(self.deviation) or np.isinf(self.deviation):
            return np.nan if np.isnan(self.deviation) else 1.0
        if self.rounding and abs(distance) <= self.rounding:
            return 0.5
        with np.errstate(divide="ignore"):
            return float(stats.t.sf(np.divide(away, self._error()), self.num - 1))

    def _error(self) -> float:
        return float(self.deviation / np.sqrt(self.num))


def mean_of(numbers: Sequence[float], *, rounding: float = 0.0) -> Mean:
    """The mean of those numbers that are there.

    Args:
        numbers: one a seed; NaN for none.
        rounding: half the distance between neighbouring values, of a quantity that takes few.
    """
    values = np.asarray(numbers, dtype=float)
    values = values[~np.isnan(values)]
    if not len(values):
        return Mean(np.nan, np.nan, 0, rounding)
    if np.isinf(values).any():
        return Mean(np.inf, np.inf if len(values) > 1 else np.nan, len(values), rounding)
    deviation = float(values.std(ddof=1)) if len(values) > 1 else np.nan
    if np.ptp(values) <= _EQUAL * np.abs(values).max():
        deviation = 0.0 if rounding and len(values) > 1 else np.nan
    return Mean(float(values.mean()), deviation, len(values), rounding)


@dataclass(frozen=True)
class Trend:
    """One-sided p-values of Page's test."""

    rising: float
    falling: float

    @property
    def p(self) -> float:
        """Two-sided: twice the smaller one."""
        return min(1.0, 2 * min(self.rising, self.falling))


def trend(values: Any) -> Trend:
    """Whether values rise, or fall, along the settings: Page's test by every permutation of the observed ranks.

    Page, "Ordered hypotheses for multiple treatments: a significance test for linear ranks", 1963. The distribution is
    exact with ties too: equal values share their mean rank, and permutations are of these. Beyond ``MOST_EXACT``
    settings, of which there are too many orders to count, it is normal, with its exact mean and variance.

    Args:
        values: [seeds, settings], finite.
    """
    ranks = stats.rankdata(np.asarray(values, dtype=float), axis=1)
    if ranks.shape[1] > MOST_EXACT:
        return _normal_trend(ranks)
    # Mean ranks are multiples of one half: sums of doubled ranks are whole numbers.
    doubled = np.rint(2 * ranks).astype(int)
    observed = int((doubled * np.arange(1, doubled.shape[1] + 1)).sum())
    whole: Counter[int] = Counter({0: 1})
    for seed in doubled:
        whole = _sums(whole, _weighted_sums(tuple(seed)))
    total = sum(whole.values())
    rising = sum(count for value, count in whole.items() if value >= observed)
    falling = sum(count for value, count in whole.items() if value <= observed)
    return Trend(rising / total, falling / total)


def _normal_trend(ranks: Any) -> Trend:
    num_settings = ranks.shape[1]
    away = np.arange(num_settings) - (num_settings - 1) / 2
    variance = away @ away * ranks.var(axis=1, ddof=1).sum()
    if variance == 0:
        return Trend(1.0, 1.0)
    above = float((ranks @ away).sum())
    # Half a step of the statistic: it takes whole numbers, or halves of them with ties.
    step = 0.5 if (ranks % 1 == 0).all() else 0.25
    rising, falling = (float(stats.norm.sf((side * above - step) / np.sqrt(variance))) for side in (1, -1))
    return Trend(rising, falling)


@cache
def _weighted_sums(ranks: tuple[int, ...]) -> Counter[int]:
    """How many permutations of ``ranks`` have which sum of position times rank, setting by setting."""
    ways: dict[int, Counter[int]] = {0: Counter({0: 1})}  # by the set of ranks already placed, as bits
    for position in range(1, len(ranks) + 1):
        placed: dict[int, Counter[int]] = defaultdict(Counter)
        for used, sums in ways.items():
            for index, rank in enumerate(ranks):
                if not used >> index & 1:
                    for value, count in sums.items():
                        placed[used | 1 << index][value + position * rank] += count
        ways = placed
    return ways[(1 << len(ranks)) - 1]


def _sums(first: Counter[int], second: Counter[int]) -> Counter[int]:
    """The distribution of the sum of two independent numbers."""
    found: Counter[int] = Counter()
    for one, count in first.items():
        for other, times in second.items():
            found[one + other] += count * times
    return found
