"""Estimates with their 95 % intervals, and a test of a trend: numbers in, numbers out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

LEVEL = 0.95
_RESAMPLES = 1999


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval; NaN where there is none."""

    estimate: float
    low: float
    high: float
    num: int  # numbers behind it

    def scaled(self, scale: Callable[[float], Any]) -> Interval:
        """The same after an increasing function, such as the exponential for logarithms of ratios."""
        with np.errstate(over="ignore"):
            estimate, low, high = (float(scale(value)) for value in (self.estimate, self.low, self.high))
        return Interval(estimate, low, high, self.num)


NONE = Interval(np.nan, np.nan, np.nan, 0)


def of_mean(numbers: Sequence[float], *, level: float = LEVEL) -> Interval:
    """Student's interval of the mean of the finite numbers; a single number has none."""
    values = np.asarray(numbers, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return Interval(float(values[0]), np.nan, np.nan, 1) if len(values) else NONE
    mean = float(values.mean())
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half, len(values))


def of_fraction(num_true: int, total: int) -> Interval:
    """Wilson's interval of a fraction."""
    if not total:
        return NONE
    interval = stats.binomtest(num_true, total).proportion_ci(LEVEL, method="wilson")
    return Interval(num_true / total, float(interval.low), float(interval.high), total)


def of_rank_correlation(first: Sequence[float], second: Sequence[float], groups: Sequence[Hashable]) -> Interval:
    """Spearman's correlation and its bootstrap interval (percentiles), the same at every call.

    Whole groups are drawn: what belongs together, such as seeds of one configuration, is not independent. No interval
    where there is one group only; nothing where either quantity has fewer than two values.
    """
    pairs = np.asarray([first, second], dtype=float)
    if pairs.shape[1] < 2 or (np.ptp(pairs, axis=1) == 0).any():
        return Interval(np.nan, np.nan, np.nan, pairs.shape[1])
    estimate = _rank_correlation(*pairs)
    _, group_of = np.unique([str(group) for group in groups], return_inverse=True)
    members = [np.flatnonzero(group_of == group) for group in range(group_of.max() + 1)]
    if len(members) < 2:
        return Interval(estimate, np.nan, np.nan, pairs.shape[1])
    generator = np.random.default_rng(0)
    resampled = []
    for _ in range(_RESAMPLES):
        chosen = np.concatenate([members[group] for group in generator.integers(len(members), size=len(members))])
        resampled.append(_rank_correlation(*pairs[:, chosen]))
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(estimate, float(low), float(high), pairs.shape[1])


def _rank_correlation(first: Any, second: Any) -> float:
    x, y = (rank - rank.mean() for rank in (stats.rankdata(first), stats.rankdata(second)))
    norm = np.sqrt((x @ x) * (y @ y))
    # A resample of one value only says nothing for a correlation.
    return float(x @ y / norm) if norm > 0 else 0.0


@dataclass(frozen=True)
class Trend:
    """One-sided p-values of Page's test."""

    rising: float
    falling: float


def trend(values: Any) -> Trend:
    """Whether values rise, or fall, along the settings: Page's test by every permutation of the observed ranks.

    Page, "Ordered hypotheses for multiple treatments: a significance test for linear ranks", 1963. The distribution is
    exact with ties too: equal values share their mean rank, and permutations are of these.

    Args:
        values: [seeds, settings], finite.
    """
    ranks = stats.rankdata(np.asarray(values, dtype=float), axis=1)
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
