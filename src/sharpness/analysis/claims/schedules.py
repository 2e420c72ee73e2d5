"""The claim that sharp regions are left at the beginning: there, a change of the learning rate does more (r)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from sharpness.analysis.claims.collected import Collected, num_lost
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.rules import SAME
from sharpness.analysis.claims.subjects import Cells, compared, over_settings
from sharpness.analysis.claims.verdicts import Verdict, differs, not_asked
from sharpness.analysis.claims.wording import setting_text
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
            window = _length(changed)
            verdict = _verdict(_deviations(steady, changed, window), window)
            place = replace(subject, configuration=configuration)
            yield Finding("r", place, verdict, num_lost(pd.concat([steady, changed])))


def _length(changed: pd.DataFrame) -> float:
    """Of the windows, in epochs: from the latest change to the end, of every run."""
    end = changed["epochs"].min() if changed["epochs"].notna().all() else changed["epoch"].max()
    return float(end - changed["change"].max())


def _deviations(steady: pd.DataFrame, changed: pd.DataFrame, window: float) -> Cells:
    """How far the eigenvalue of a run is from that of the run without a change, in decades, by seed and change."""
    beside = dict(iter(steady.groupby("seed")))
    means = [
        {"seed": seed, "change": change, "lost": (rows["lost"].any() or beside[seed]["lost"].any())}
        | {"away": _mean_away(rows, beside[seed], change, window)}
        for (seed, change), rows in changed.groupby(["seed", "change"])
        if seed in beside
    ]
    return over_settings(pd.DataFrame(means, columns=["seed", "change", "lost", "away"]), "change", "away")


def _mean_away(rows: pd.DataFrame, steady: pd.DataFrame, change: float, window: float) -> float:
    both = rows.merge(steady[["step", "eigenvalue"]], on="step", suffixes=("", "_steady"))
    since = both["epoch"] - change
    ratios = both["eigenvalue"] / both["eigenvalue_steady"]
    is_known = (both["eigenvalue_steady"] > 0) & (ratios > 0) & np.isfinite(ratios)
    kept = both.assign(since=since)[(since > 0) & (since <= window * (1 + 1e-9)) & is_known].sort_values("since")
    return _mean_over_time(kept["since"], np.log10(ratios[kept.index]).abs())


def _mean_over_time(times: pd.Series, values: pd.Series) -> float:
    """Of a curve through the values: checkpoints are closer to one another at the beginning of a run."""
    if len(times) < 2:
        return float(values.mean())
    return float(np.trapezoid(values, times) / (times.iloc[-1] - times.iloc[0]))


def _verdict(cells: Cells, window: float) -> Verdict:
    told = cells.in_words("change after epoch", logs=False)
    measured = f"decades in {setting_text(window)} epochs after the {told}"
    changes = list(cells.values)
    if len(changes) < 2:
        return not_asked()
    return differs(cells.less(changes[0], changes[-1]), above=True, same=SAME, measured=measured)
