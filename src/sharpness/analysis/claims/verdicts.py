"""How a verdict is reached: the same few rules for every claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from sharpness.analysis.claims import intervals
from sharpness.analysis.claims.intervals import Interval
from sharpness.analysis.claims.wording import number, per_setting

Answer = Literal["holds", "does not hold", "undecided"]
SIGNIFICANCE = 0.05
STUDENT = "95 % Student interval over seeds"
PAGE = "Page's trend test over seeds"
WILSON = "95 % Wilson interval over runs"
SPEARMAN = "95 % bootstrap interval over configurations"


@dataclass(frozen=True)
class Verdict:
    """The answer, what it rests on, and what would decide it where it is undecided."""

    answer: Answer
    measured: str
    effect: Interval
    test: str
    num_seeds: int
    would_decide: str = ""


def undecided(would_decide: str, *, measured: str = "", effect: Interval = intervals.NONE, test: str = "") -> Verdict:
    """A claim that these runs cannot answer."""
    return Verdict("undecided", measured, effect, test, effect.num, would_decide)


def paired(
    numbers: Sequence[float],
    *,
    above: bool,
    threshold: float = 0.0,
    scale: Callable[[float], Any] = float,
    measured: str,
    alternatives: int = 1,
) -> Verdict:
    """Whether a quantity lies on the predicted side of a threshold: the whole interval over seeds does, or does not.

    Args:
        numbers: one per seed, such as the logarithm of a ratio or a difference; those not finite have no part.
        above: the predicted side.
        threshold: in the unit of ``numbers``.
        scale: increasing, from the unit of ``numbers`` to that in which the effect is shown.
        measured: in words.
        alternatives: of so many quantities any may decide; the interval is wider the more there are (Bonferroni).
    """
    level = 1 - (1 - intervals.LEVEL) / alternatives
    interval = intervals.of_mean(numbers, level=level)
    answer = _side(interval, threshold, above=above)
    limit = f"{float(scale(threshold)):.3g}"
    would_decide = _more_seeds(interval, f"the interval covers {limit}") if answer == "undecided" else ""
    return Verdict(
        answer,
        _counting_lost(measured, numbers),
        interval.scaled(scale),
        STUDENT.replace("95", f"{100 * level:.3g}"),
        interval.num,
        would_decide,
    )


def within(numbers: Sequence[float], bound: float, *, scale: Callable[[float], Any] = float, measured: str) -> Verdict:
    """Whether a quantity is at most ``bound`` in size: the whole interval over seeds is, or none of it."""
    interval = intervals.of_mean(numbers)
    inside = interval.low > -bound and interval.high < bound
    outside = interval.low > bound or interval.high < -bound
    answer: Answer = "holds" if inside else "does not hold" if outside else "undecided"
    limits = " or ".join(f"{float(scale(value)):.3g}" for value in (-bound, bound))
    would_decide = _more_seeds(interval, f"the interval covers {limits}") if answer == "undecided" else ""
    return Verdict(
        answer, _counting_lost(measured, numbers), interval.scaled(scale), STUDENT, interval.num, would_decide
    )


def ordered(table: pd.DataFrame, *, rises: bool, setting: str) -> Verdict:
    """Whether a positive quantity rises (or falls) from setting to setting.

    Two settings are compared in pairs; of more, a seed takes part if it has all that any seed has.

    Args:
        table: [seeds, settings] in the order of the claim; NaN where there is no value.
        rises: the predicted order.
        setting: what the columns are.
    """
    known = table.dropna(axis="columns", how="all")
    complete = known.dropna()
    measured = per_setting(known, setting)
    if len(known.columns) < 2:
        return undecided(f"a second {setting.replace('_', ' ')} with a value", measured=measured)
    ratios = log_ratio(complete.iloc[:, -1], complete.iloc[:, 0])
    if len(known.columns) == 2:
        return paired(ratios, above=rises, scale=np.exp, measured=measured)
    # A ratio to zero, such as that of a peak at initialisation, is no effect to show; it has a rank all the same.
    effect = intervals.of_mean(ratios if np.isfinite(ratios).all() else []).scaled(np.exp)
    if len(complete) < 2:
        wanted = "a second seed with all settings" if len(complete) else "two seeds with all settings"
        return Verdict("undecided", measured, effect, PAGE, len(complete), wanted)
    trend = intervals.trend(complete)
    predicted, reverse = (trend.rising, trend.falling) if rises else (trend.falling, trend.rising)
    decided: Answer = "does not hold" if reverse < SIGNIFICANCE else "undecided"
    answer: Answer = "holds" if predicted < SIGNIFICANCE else decided
    would_decide = f"more seeds: p = {number(predicted)}" if answer == "undecided" else ""
    return Verdict(answer, measured, effect, f"{PAGE}, p = {number(predicted)}", len(complete), would_decide)


def mostly(answers: pd.Series, *, seeds: pd.Series, measured: str) -> Verdict:
    """Whether more than half of all runs do something.

    Args:
        answers: one boolean per run.
        seeds: of these runs.
        measured: in words.
    """
    effect = intervals.of_fraction(int(answers.sum()), len(answers))
    return _over_runs(effect, 0.5, above=True, seeds=seeds, test=WILSON, measured=measured)


def correlated(
    first: pd.Series, second: pd.Series, *, rises: bool, configurations: pd.Series, seeds: pd.Series, measured: str
) -> Verdict:
    """Whether one quantity rises (or falls) with another over all runs; those of a configuration go together."""
    effect = intervals.of_rank_correlation(first, second, list(configurations))
    return _over_runs(effect, 0.0, above=rises, seeds=seeds, test=SPEARMAN, measured=measured)


def any_of(parts: Sequence[tuple[str, Verdict]]) -> Verdict:
    """Several alternatives of one claim: it holds if one does, and does not if none does.

    The effect shown is the largest of those with the answer of the whole.
    """
    answers = {verdict.answer for _, verdict in parts}
    order: tuple[Answer, ...] = ("holds", "undecided", "does not hold")
    answer = next(answer for answer in order if answer in answers)
    deciding = [(name, verdict) for name, verdict in parts if verdict.answer == answer]
    name, shown = max(deciding, key=lambda part: np.nan_to_num(part[1].effect.estimate, nan=-np.inf))
    wanted = [f"{part}: {verdict.would_decide}" for part, verdict in parts if verdict.would_decide]
    return Verdict(
        answer,
        shown.measured,
        shown.effect,
        f"{shown.test}, of {len(parts)} alternatives; effect: {name}" if shown.test else "",
        min(verdict.num_seeds for _, verdict in parts),
        "; ".join(wanted) if answer == "undecided" else "",
    )


def all_of(parts: Sequence[tuple[str, Verdict]]) -> Verdict:
    """Several parts of one claim: it holds if all do, and does not if one does not.

    The effect shown is that of the first part with the answer of the whole.
    """
    answers = {verdict.answer for _, verdict in parts}
    order: tuple[Answer, ...] = ("does not hold", "undecided", "holds")
    answer = next(answer for answer in order if answer in answers)
    name, deciding = next((name, verdict) for name, verdict in parts if verdict.answer == answer)
    wanted = [f"{name}: {verdict.would_decide}" for name, verdict in parts if verdict.would_decide]
    return Verdict(
        answer,
        "; ".join(f"{name}: {verdict.answer} ({verdict.measured})" for name, verdict in parts),
        deciding.effect,
        f"{deciding.test}, of all parts; effect: {name}" if deciding.test else "",
        min(verdict.num_seeds for _, verdict in parts),
        "; ".join(wanted) if answer == "undecided" else "",
    )


def log_ratio(numbers: pd.Series, others: pd.Series) -> pd.Series:
    """Natural logarithm of the ratio of two positive quantities; NaN where one is not positive and finite."""
    logs = [np.log(values.where((values > 0) & np.isfinite(values))) for values in (numbers, others)]
    return logs[0] - logs[1]


def _side(interval: Interval, threshold: float, *, above: bool) -> Answer:
    if interval.low > threshold:
        return "holds" if above else "does not hold"
    if interval.high < threshold:
        return "does not hold" if above else "holds"
    return "undecided"


def _over_runs(
    effect: Interval, threshold: float, *, above: bool, seeds: pd.Series, test: str, measured: str
) -> Verdict:
    num_seeds = int(seeds.nunique())
    answer = _side(effect, threshold, above=above)
    if num_seeds < 2:
        return Verdict("undecided", measured, effect, test, num_seeds, _more_values(num_seeds))
    would_decide = "" if answer != "undecided" else f"more runs: the interval covers {threshold:.3g}"
    if np.isnan(effect.low):
        would_decide = "runs that differ"
    return Verdict(answer, measured, effect, test, num_seeds, would_decide)


def _more_seeds(interval: Interval, reason: str) -> str:
    return f"more seeds: {reason}" if interval.num > 1 else _more_values(interval.num)


def _more_values(num_seeds: int) -> str:
    return "a second seed" if num_seeds else "seeds with all values that are compared"


def _counting_lost(measured: str, numbers: Sequence[float]) -> str:
    lost = int((~np.isfinite(np.asarray(numbers, dtype=float))).sum())
    return f"{measured} ({lost} of {len(numbers)} seeds without a finite value)" if lost else measured
