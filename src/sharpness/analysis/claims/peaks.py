"""Claims on the course of the largest eigenvalues: they rise, peak and fall, and what moves the peak (a to e, p)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from sharpness.analysis import tables
from sharpness.analysis.claims.collected import Collected
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.subjects import AXES, Axis, along, over_settings, subjects, with_fields
from sharpness.analysis.claims.verdicts import Verdict, all_of, mostly, ordered, undecided
from sharpness.analysis.claims.wording import spread

# What the poster calls a smaller and an earlier peak.
QUANTITIES = {"peak_eigenvalue": "lower", "peak_epoch": "earlier"}
LETTERS = {"learning_rate": ("b", "c"), "batch_size": ("d", "e")}
RISE = 2  # at least, from initialisation to the peak


def peaks(collected: Collected) -> Iterator[Finding]:
    """The claims on peaks."""
    spectrum = collected.rows("spectrum", "eigenvalues")
    yield from _patterns(collected, spectrum)
    for axis in AXES:
        for subject, runs in along(peaks_in_grid(spectrum, axis.setting, rank=0), axis):
            for letter, quantity in zip(LETTERS[axis.setting], QUANTITIES, strict=True):
                verdict = _ordering(collected, runs, axis, quantity)
                yield Finding(letter, subject, verdict, collected.num_diverged(runs))
    yield from _second_peaks(collected, spectrum)


def peaks_in_grid(spectrum: pd.DataFrame, grid: str, *, rank: int) -> pd.DataFrame:
    """Height and time of the peak of the eigenvalue of some rank, one row per run of a grid."""
    return _peaks(spectrum[spectrum["grid"] == grid], rank=rank)


def _planned(spectrum: pd.DataFrame, *, rank: int) -> pd.DataFrame:
    is_planned = (spectrum["which"] == "largest") & (spectrum["checkpoint"] == "planned")
    return spectrum[is_planned & (spectrum["rank"] == rank)]


def _peaks(spectrum: pd.DataFrame, *, rank: int) -> pd.DataFrame:
    """As ``tables.peaks`` of that rank, each run once for each settings; nothing where none was measured."""
    of_rank = _planned(spectrum, rank=rank)
    if of_rank.empty:
        return of_rank
    found = [
        tables.peaks(alike.assign(rank=0)).drop_duplicates("run").assign(settings=settings)
        for settings, alike in of_rank.groupby("settings", sort=False, dropna=False)
    ]
    return with_fields(pd.concat(found, ignore_index=True), spectrum)


def _ordering(collected: Collected, runs: pd.DataFrame, axis: Axis, quantity: str) -> Verdict:
    table = over_settings(collected.converged(runs), axis.setting, quantity, ascending=axis.ascending)
    return ordered(table, rises=False, setting=axis.setting)


def _patterns(collected: Collected, spectrum: pd.DataFrame) -> Iterator[Finding]:
    found = _peaks(spectrum, rank=0)
    if found.empty:
        return
    place = ["run", "settings"]
    courses = _planned(spectrum, rank=0).sort_values("step", kind="stable").drop_duplicates([*place, "step"])
    first = courses.loc[courses["step"] == 0, [*place, "eigenvalue"]].rename(columns={"eigenvalue": "first"})
    end = courses.groupby(place, dropna=False)["epoch"].max().rename("end").reset_index()
    found = found.merge(first, on=place, how="left").merge(end, on=place, how="left")
    for subject, runs in subjects(found):
        yield Finding("a", subject, _pattern(collected.converged(runs)), collected.num_diverged(runs))


def _pattern(runs: pd.DataFrame) -> Verdict:
    known = runs.dropna(subset=["first", "peak_eigenvalue", "final_eigenvalue"])
    if known.empty:
        return undecided("runs that do not diverge, measured at initialisation")
    rises = known["peak_eigenvalue"] >= RISE * known["first"]
    early = known["peak_epoch"] <= known["end"] / 2
    falls = known["final_eigenvalue"] < known["peak_eigenvalue"]
    follows = rises & early & falls
    heights = known["peak_eigenvalue"] / known["first"].where(known["first"] > 0)
    measured = (
        f"{follows.sum()} of {len(known)} runs: {rises.sum()} rise at least {RISE} times "
        f"({spread(heights)} times), {early.sum()} peak in the first half "
        f"(at epoch {spread(known['peak_epoch'])}), {falls.sum()} end below the peak"
    )
    if len(known) < len(runs):
        measured += f"; {len(runs) - len(known)} without a value at initialisation or at the end"
    return mostly(follows, seeds=known["seed"], measured=measured)


def _second_peaks(collected: Collected, spectrum: pd.DataFrame) -> Iterator[Finding]:
    for subject, rows in subjects(spectrum[spectrum["grid"].isin(list(LETTERS))]):
        parts = [part for axis in AXES for part in _second_parts(collected, rows, axis)]
        yield Finding("p", subject, all_of(parts), collected.num_diverged(rows))


def _second_parts(collected: Collected, rows: pd.DataFrame, axis: Axis) -> Iterator[tuple[str, Verdict]]:
    groups = list(along(peaks_in_grid(rows, axis.setting, rank=1), axis))
    for subject, runs in groups:
        place = f" ({subject.configuration})" if len(groups) > 1 else ""
        for quantity, word in QUANTITIES.items():
            yield f"{word} with a {axis.words}{place}", _ordering(collected, runs, axis, quantity)
    if not groups:
        yield axis.words, undecided(f"two eigenvalues in a grid {axis.setting}", measured="not measured")
