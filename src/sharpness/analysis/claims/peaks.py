"""Claims on the course of the largest eigenvalues: they rise, peak and fall, and what moves the peak (a to e, p)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sharpness.analysis.claims.collected import Collected, num_lost
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.intervals import mean_of
from sharpness.analysis.claims.rules import AFTER_PEAK, DOUBLED
from sharpness.analysis.claims.subjects import AXES, Axis, along, over_settings, subjects, with_fields
from sharpness.analysis.claims.times import planned_times
from sharpness.analysis.claims.verdicts import Verdict, all_of, differs, not_asked, ordered, undecided
from sharpness.analysis.claims.wording import number, setting_text, spread
from sharpness.analysis.peak import peak_of

# What the poster calls a smaller and an earlier peak.
QUANTITIES = {"height": "lower", "time": "earlier"}
LETTERS = {"learning_rate": ("b", "c"), "batch_size": ("d", "e")}


def peaks(collected: Collected) -> Iterator[Finding]:
    """The claims on peaks."""
    spectrum = collected.rows("spectrum", "eigenvalues")
    for subject, runs in subjects(courses(spectrum, rank=0)):
        yield Finding("a", subject, _pattern(runs), num_lost(runs))
    for axis in AXES:
        for subject, runs in along(courses(spectrum[spectrum["axis"] == axis.setting], rank=0), axis):
            for letter, quantity in zip(LETTERS[axis.setting], QUANTITIES, strict=True):
                yield Finding(letter, subject, _ordering(runs, axis, quantity), num_lost(runs))
    for subject, rows in subjects(spectrum[spectrum["axis"].isin(list(LETTERS))]):
        parts = [part for axis in AXES for part in _second_parts(rows, axis)]
        yield Finding("p", subject, all_of(parts), num_lost(rows))


def courses(spectrum: pd.DataFrame, *, rank: int) -> pd.DataFrame:
    """What became of the eigenvalue of some rank in each run, once for each settings of the measurement.

    Returns:
        The run's fields, lost, settings; height, first and end (decades: the highest value, that at initialisation and
        the last one), time (log10 of the epoch of the peak; minus infinity at initialisation, infinite where it is at
        or after the end), rounding (half the distance to its neighbours, in decades), slope (decades an epoch after
        the peak; NaN for too few checkpoints). NaN for what is unknown.
    """
    is_planned = (spectrum["which"] == "largest") & (spectrum["checkpoint"] == "planned")
    planned = spectrum[is_planned & (spectrum["rank"] == rank)].sort_values("epoch", kind="stable")
    planned = planned.drop_duplicates(["run", "settings", "epoch"])
    planned = planned.assign(time=planned_times(planned))
    found = [
        {"run": run, "settings": settings, **_course(course)}
        for (run, settings), course in planned.groupby(["run", "settings"], sort=False, dropna=False)
    ]
    columns = ["run", "settings", "height", "first", "end", "time", "rounding", "slope"]
    table = pd.DataFrame(found, columns=columns)
    return with_fields(table, spectrum)


def _course(course: pd.DataFrame) -> dict[str, float]:
    epochs, values = (course[name].to_numpy(dtype=float) for name in ("epoch", "eigenvalue"))
    known = np.isfinite(values) & (values > 0) & np.isfinite(epochs) & (epochs >= 0)
    times, logs = epochs[known], np.log10(values[known])
    if not len(logs):
        return {}
    peak = peak_of(times, values[known])
    # Where it never falls so far it is followed from its highest value on: else only curves that decline would count.
    after = times > (peak.epoch if peak.has_fallen else times[logs.argmax()])
    is_long = after.sum() >= AFTER_PEAK
    with np.errstate(divide="ignore"):
        gaps = np.diff(np.log10(times))[np.diff(times > peak.epoch) | np.diff(times >= peak.epoch)]
        time = float(np.log10(course["time"].to_numpy(dtype=float)[known][times == peak.epoch][0]))
    return {
        "height": logs.max(),
        "first": logs[0] if times[0] == 0 else np.nan,
        "end": logs[-1] if known[-1] else np.nan,
        "time": time if peak.has_fallen else np.inf,
        "rounding": gaps[np.isfinite(gaps)].max(initial=0.0) / 2,
        "slope": float(np.polyfit(times[after], logs[after], 1)[0]) if is_long else np.nan,
    }


def _ordering(runs: pd.DataFrame, axis: Axis, quantity: str) -> Verdict:
    cells = over_settings(runs, axis.setting, quantity)
    return ordered(
        cells,
        rises=axis.is_batch,
        setting=axis.setting,
        rounding=over_settings(runs, axis.setting, "rounding") if quantity == "time" else None,
        measured=cells.in_words(axis.setting, beyond="at or after the end"),
    )


def _pattern(runs: pd.DataFrame) -> Verdict:
    rises = runs.assign(rise=(runs["height"] - runs["first"]).mask(runs["lost"], 0.0)).dropna(subset="rise")
    falls = runs.assign(slope=runs["slope"].mask(runs["lost"], 0.0)).dropna(subset="slope")
    if rises.empty:
        return not_asked()
    lacking = len(runs) - len(rises)
    measured = f"{spread(rises['rise'])} decades in {len(rises)} runs"
    measured += f", {lacking} without a value at initialisation" if lacking else ""
    parts = [
        (
            "rises",
            differs(rises.groupby("seed")["rise"].mean(), above=True, threshold=DOUBLED, measured=measured),
        )
    ]
    if falls.empty:
        parts.append(("declines", undecided(f"runs with {AFTER_PEAK} checkpoints after the peak", measured="no runs")))
    else:
        slopes = falls.groupby("seed")["slope"].mean()
        parts.append(("declines", differs(slopes, above=False, measured=_slopes_in_words(runs, falls))))
    return all_of(parts)


def _slopes_in_words(runs: pd.DataFrame, falls: pd.DataFrame) -> str:
    """The slope of each configuration by itself, with its interval over seeds."""
    settings = [axis.setting for axis in AXES]
    told = []
    for key, alike in falls.groupby(settings, sort=True):
        place = ", ".join(
            f"{name.replace('_', ' ')} {setting_text(value)}" for name, value in zip(settings, key, strict=True)
        )
        found = mean_of(alike.groupby("seed")["slope"].mean()).interval()
        width = "" if np.isnan(found.low) else f" ({number(found.low)} to {number(found.high)})"
        told.append(f"{place}: {number(found.estimate)}{width}")
    short = len(runs) - len(falls)
    few = f"; runs with fewer than {AFTER_PEAK} checkpoints after the peak: {short}" if short else ""
    return f"decades an epoch, {'; '.join(told)}{few}"


def _second_parts(rows: pd.DataFrame, axis: Axis) -> Iterator[tuple[str, Verdict]]:
    groups = list(along(courses(rows[rows["axis"] == axis.setting], rank=1), axis))
    for subject, runs in groups:
        place = f" ({subject.configuration})" if len(groups) > 1 else ""
        for quantity, word in QUANTITIES.items():
            yield f"{word} with a {axis.words}{place}", _ordering(runs, axis, quantity)
    if not groups:
        yield axis.words, not_asked()
