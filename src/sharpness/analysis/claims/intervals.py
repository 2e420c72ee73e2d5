"""Estimates with their 95 % intervals, and a test of a trend: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

LEVEL = 0.95
_RESAMPLES = 1999
# The exact distribution lists all orders of the settings.
_MOST_SETTINGS_EXACT = 8


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
    """Whether values rise, or fall, along the settings.

    Args:
        values: [seeds, settings], at least two by three, finite. Ties make the test conservative.
    """
    values = np.asarray(values, dtype=float)
    method = "exact" if values.shape[1] <= _MOST_SETTINGS_EXACT else "asymptotic"
    rising, falling = (
        float(stats.page_trend_test(ordered, method=method).pvalue) for ordered in (values, values[:, ::-1])
    )
    return Trend(rising, falling)
