"""How a verdict is reached: the same few tests for every claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from sharpness.analysis.claims import intervals
from sharpness.analysis.claims.intervals import Interval, Mean, mean_of
from sharpness.analysis.claims.power import MOST, seeds_for_mean, seeds_for_same
from sharpness.analysis.claims.rules import LEVEL
from sharpness.analysis.claims.subjects import Cells
from sharpness.analysis.claims.wording import number

Answer = Literal["holds", "does not hold", "undecided"]
# Where the claim says that the effect lies, seen from the threshold; "within" is at most so far from zero.
Side = Literal["above", "below", "either side", "within"]
STUDENT = "Student's t over seeds"
SAME = "two one-sided t-tests over seeds"
PAGE = "Page's L over seeds, exact"
_LEVEL_OF_SAME = 2 * LEVEL - 1  # of the interval that lies within a margin if both one-sided tests reject


@dataclass(frozen=True)
class Verdict:
    """The answer, what it rests on, and what would decide it where it is undecided."""

    answer: Answer
    measured: str
    effect: Interval
    test: str
    p: float = np.nan
    would_decide: str = ""
    seeds_needed: float = np.nan  # in all, with 80 % power
    side: Side | None = None  # None: nothing was compared
    threshold: float = np.nan  # in the unit of the effect
    part: str = ""  # of a claim of several, whose effect this is
    is_asked: bool = True  # whether the runs have what the claim is about; other claims are not listed

    @property
    def num_seeds(self) -> int:
        """How many seeds it rests on."""
        return self.effect.num


def undecided(would_decide: str, *, measured: str = "", effect: Interval = intervals.NONE) -> Verdict:
    """A claim that these runs cannot answer, though they have what it is about."""
    return Verdict("undecided", measured, effect, "", would_decide=would_decide)


def not_asked() -> Verdict:
    """A claim that these runs are not about: they lack a setting, or a measurement, that it compares."""
    return Verdict("undecided", "", intervals.NONE, "", is_asked=False)


def differs(
    numbers: Sequence[float],
    *,
    above: bool | None,
    threshold: float = 0.0,
    rounding: float = 0.0,
    same: float | None = None,
    measured: str,
) -> Verdict:
    """Whether the mean lies on the claimed side of a threshold: its 95 % interval does, or lies on the other side.

    Args:
        numbers: one a seed, NaN for none.
        above: the claimed side; None: either.
        threshold: in the unit of ``numbers``.
        rounding: half the distance between neighbouring values of a quantity that takes few.
        same: within this margin of zero the claim does not hold; None: there is none.
        measured: in words.
    """
    mean = mean_of(numbers, rounding=rounding)
    effect = mean.interval()
    side = 1 if effect.low > threshold else -1 if effect.high < threshold else 0
    answer: Answer = "undecided"
    if side:
        answer = "holds" if above is None or (side > 0) == above else "does not hold"
    limit = "" if threshold == 0 else f" against {number(threshold)}"
    test, p = f"{STUDENT}{limit}", mean.p(threshold)
    if same is not None and answer != "does not hold" and _is_within(mean.interval(_LEVEL_OF_SAME), same):
        answer, test, p = "does not hold", f"{SAME}, margin {number(same)}", mean.p_same(same)
    needed = seeds_for_mean(mean, threshold) if answer == "undecided" else np.nan
    wanted = _more_seeds(mean, needed, f"the interval covers {number(threshold)}") if answer == "undecided" else ""
    told = _counting_missing(measured, numbers)
    claimed: Side = "either side" if above is None else _side(above=above)
    return Verdict(answer, told, effect, test, p, wanted, needed, claimed, threshold)


def alike(numbers: Sequence[float], margin: float, *, rounding: float = 0.0, measured: str) -> Verdict:
    """Whether the mean is within a margin of zero: its 90 % interval lies within, or the 95 % interval outside."""
    mean = mean_of(numbers, rounding=rounding)
    effect = mean.interval()
    is_outside = effect.low > margin or effect.high < -margin
    is_inside = _is_within(mean.interval(_LEVEL_OF_SAME), margin)
    answer: Answer = "holds" if is_inside else "does not hold" if is_outside else "undecided"
    needed = seeds_for_same(mean, margin) if answer == "undecided" else np.nan
    reason = f"the interval is neither within ±{number(margin)} nor outside"
    wanted = _more_seeds(mean, needed, reason) if answer == "undecided" else ""
    told = _counting_missing(measured, numbers)
    test = f"{SAME}, margin {number(margin)}"
    return Verdict(answer, told, effect, test, mean.p_same(margin), wanted, needed, "within", margin)


def ordered(
    cells: Cells,
    *,
    rises: bool,
    setting: str,
    sizes: Cells | None = None,
    rounding: Cells | None = None,
    measured: str,
) -> Verdict:
    """Whether a quantity rises (or falls) from setting to setting, by Page's test; of two settings, by the slope.

    A seed takes part if it has all settings that any seed has.

    Args:
        cells: the quantity's logarithms, or whatever has their order.
        rises: the claimed order.
        setting: along which.
        sizes: the logarithms, where ``cells`` are not; they give the slope.
        rounding: half the distance between neighbouring values, in decades.
        measured: in words.
    """
    sizes = sizes or cells
    if len(cells.values.columns) < 2:
        return undecided(f"a second {setting.replace('_', ' ')} with a value", measured=measured)
    complete = cells.against(rises=rises).dropna()
    slopes, rounded = _slopes(sizes, complete.index, rounding)
    mean = mean_of(slopes, rounding=rounded)
    if 0 < (sloped := int(slopes.notna().sum())) < len(complete):
        measured += f"; slope of {sloped} of {len(complete)} seeds"
    effect = Interval(*_numbers(mean.interval()), len(complete))
    if len(complete) < 2:
        wanted = "a second seed with all settings" if len(complete) else "two seeds with all settings"
        return Verdict("undecided", measured, effect, PAGE, would_decide=wanted, side=_side(above=rises), threshold=0.0)
    if len(complete.columns) == 2 and slopes.notna().all():
        return differs(slopes, above=rises, rounding=rounded, measured=measured)
    trend = intervals.trend(complete)
    answer: Answer = "undecided"
    if trend.p < 1 - LEVEL:
        answer = "holds" if (trend.rising < trend.falling) == rises else "does not hold"
    # The slope may be told from zero already where the ranks cannot.
    needed = np.maximum(seeds_for_mean(mean), len(complete) + 1) if answer == "undecided" else np.nan
    wanted = _more_seeds(mean, needed, f"p = {number(trend.p)}") if answer == "undecided" else ""
    return Verdict(answer, measured, effect, PAGE, trend.p, wanted, needed, _side(above=rises), 0.0)


def all_of(parts: Sequence[tuple[str, Verdict]]) -> Verdict:
    """Several parts of one claim: it holds if all do, and does not if one does not.

    It is asked where all of its parts are, or one that is decides it.

    The effect shown is that of the first part with the answer of the whole; p is the largest of those with it.
    """
    answers = {verdict.answer for _, verdict in parts}
    order: tuple[Answer, ...] = ("does not hold", "undecided", "holds")
    answer = next(answer for answer in order if answer in answers)
    deciding = [(name, verdict) for name, verdict in parts if verdict.answer == answer]
    name, shown = deciding[0]
    wanted = [f"{name}: {verdict.would_decide}" for name, verdict in parts if verdict.would_decide]
    needed = [verdict.seeds_needed for _, verdict in deciding if answer == "undecided"]
    return Verdict(
        answer,
        "; ".join(f"{name}: {verdict.answer} ({verdict.measured})" for name, verdict in parts),
        shown.effect,
        f"{shown.test}, of all parts; effect: {name}" if shown.test else "",
        max((verdict.p for _, verdict in deciding if not np.isnan(verdict.p)), default=np.nan),
        "; ".join(wanted) if answer == "undecided" else "",
        max(needed) if needed and not np.isnan(needed).any() else np.nan,
        shown.side,
        shown.threshold,
        name,
        answer == "does not hold" or all(verdict.is_asked for _, verdict in parts),
    )


def _side(*, above: bool) -> Side:
    return "above" if above else "below"


def _is_within(interval: Interval, margin: float) -> bool:
    return interval.low > -margin and interval.high < margin


def _numbers(interval: Interval) -> tuple[float, float, float]:
    return interval.estimate, interval.low, interval.high


def _slopes(cells: Cells, seeds: pd.Index, rounding: Cells | None) -> tuple[pd.Series, float]:
    """The slope of the least-squares line of each seed over the logarithm of the setting, and how far it is rounded.

    A seed with a diverged run has a slope of zero; one with a value beyond what was seen has none.
    """
    values = cells.values.reindex(seeds)
    settings = np.log10(values.columns.to_numpy(dtype=float))
    if not np.isfinite(settings).all():
        return pd.Series(np.nan, seeds), 0.0
    away = settings - settings.mean()
    weights = away / (away @ away)
    slopes = pd.Series(np.where(np.isfinite(values), values, np.nan) @ weights, seeds)
    slopes = slopes.mask(cells.lost.reindex(seeds).any(axis="columns"), 0.0)
    if rounding is None or slopes.isna().all():
        return slopes, 0.0
    return slopes, float((rounding.values.reindex(seeds).fillna(0.0) @ abs(weights))[slopes.notna()].mean())


def _more_seeds(mean: Mean, needed: float, reason: str) -> str:
    if mean.num < 2:
        return "a second seed" if mean.num else "seeds with all values that are compared"
    if not np.isfinite(mean.deviation):
        return f"seeds that {'do not diverge' if np.isinf(mean.deviation) else 'differ'}: {reason}"
    if np.isnan(needed):
        return f"more seeds: {reason}"
    many = f"more than {MOST} seeds" if np.isinf(needed) else f"{needed:.0f} seeds"
    return f"more seeds: {reason}; {many} like these would decide it with 80 % power"


def _counting_missing(measured: str, numbers: Sequence[float]) -> str:
    missing = int(np.isnan(np.asarray(numbers, dtype=float)).sum())
    return f"{measured} ({missing} of {len(numbers)} seeds without a value)" if missing else measured
