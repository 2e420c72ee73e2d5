"""The claim that sharp regions are left at the beginning: there, a change of the learning rate does more (r)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from sharpness.analysis.claims.collected import Collected
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.subjects import compared, over_settings
from sharpness.analysis.claims.verdicts import Verdict, log_ratio, paired, undecided
from sharpness.analysis.claims.wording import per_setting, setting_text
from sharpness.analysis.tables import first_change

VARIED = ("change", "learning_rate_epochs", "learning_rate_factor")


def schedules(collected: Collected) -> Iterator[Finding]:
    """The claim on changes of the rate, raised and lowered."""
    spectrum = collected.rows("spectrum", "schedules")
    is_planned = (spectrum["which"] == "largest") & (spectrum["checkpoint"] == "planned") & (spectrum["rank"] == 0)
    largest = spectrum[is_planned].drop_duplicates(["run", "settings", "step"])
    largest = largest.assign(change=largest["learning_rate_epochs"].map(first_change))
    for subject, runs in compared(largest, "learning_rate", "batch_size", varied=VARIED):
        steady = runs[runs["change"].isna()]
        for factor, changed in runs[runs["change"].notna()].groupby("learning_rate_factor"):
            words = "raised" if factor > 1 else "lowered"
            configuration = f"{subject.configuration}, the rate {words} by a factor {setting_text(factor)}"
            place = replace(subject, configuration=configuration)
            window = _length(changed)
            table = _deviations(collected.converged(steady), collected.converged(changed), window)
            num_diverged = collected.num_diverged(pd.concat([steady, changed]))
            yield Finding("r", place, _verdict(table, window), num_diverged)


def _length(changed: pd.DataFrame) -> float:
    """Of the windows, in epochs: from the latest change to the end, of every run."""
    end = changed["epochs"].min() if changed["epochs"].notna().all() else changed["epoch"].max()
    return float(end - changed["change"].max())


def _deviations(steady: pd.DataFrame, changed: pd.DataFrame, window: float) -> pd.DataFrame:
    """How far the eigenvalue of a run is from that of the run without a change, in decades, [seeds, changes]."""
    both = changed.merge(steady[["seed", "step", "eigenvalue"]], on=["seed", "step"], suffixes=("", "_steady"))
    since = both["epoch"] - both["change"]
    inside = (since > 0) & (since <= window * (1 + 1e-9))
    both, since = both[inside], since[inside]
    away = log_ratio(both["eigenvalue"], both["eigenvalue_steady"]).abs() / np.log(10)
    both = both.assign(since=since, away=away).dropna(subset="away").sort_values("since")
    means = [
        {"seed": seed, "change": change, "away": _mean_over_time(rows["since"], rows["away"])}
        for (seed, change), rows in both.groupby(["seed", "change"])
    ]
    return over_settings(pd.DataFrame(means, columns=["seed", "change", "away"]), "change", "away")


def _mean_over_time(times: pd.Series, values: pd.Series) -> float:
    """Of a curve through the values: checkpoints are closer to one another at the beginning of a run."""
    if len(times) == 1:
        return float(values.iloc[0])
    return float(np.trapezoid(values, times) / (times.iloc[-1] - times.iloc[0]))


def _verdict(table: pd.DataFrame, window: float) -> Verdict:
    measured = f"decades in {setting_text(window)} epochs after the {per_setting(table, 'change after epoch')}"
    if len(table.columns) < 2:
        return undecided("runs whose rate changes early, late and never, of equal seed", measured=measured)
    return paired(table.iloc[:, 0] - table.iloc[:, -1], above=True, measured=measured)
