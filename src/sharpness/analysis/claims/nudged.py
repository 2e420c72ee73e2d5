"""Claims on Nudged SGD: where gamma steers it, at what accuracy, and how fast (k to n)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sharpness.analysis.claims.collected import Collected
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.norms import last_norms, of_one_settings
from sharpness.analysis.claims.subjects import compared, over_settings
from sharpness.analysis.claims.verdicts import Verdict, log_ratio, paired, undecided, within
from sharpness.analysis.claims.wording import per_setting, setting_text
from sharpness.study.kinds import kinds_for

# Nearer to a factor of ten than to none, on a logarithmic scale.
ABOUT_TEN = float(np.log(10) / 2)
POINT = 1.0  # of accuracy, in per cent


def nudged(collected: Collected, *, validation_epoch: float) -> Iterator[Finding]:
    """The claims on Nudged SGD."""
    for subject, runs in compared(
        last_norms(collected, *kinds_for("k")), "learning_rate", "batch_size", varied=["gamma", "settings"], measured=()
    ):
        if runs["gamma"].nunique() > 1:
            table = over_settings(of_one_settings(collected.converged(runs)), "gamma", "frobenius")
            for letter, verdict in (("k", _sharper(table)), ("l", _flatter(table))):
                yield Finding(letter, subject, verdict, collected.num_diverged(runs))
    accuracies = _accuracies(collected.rows("history", *kinds_for("k")), validation_epoch)
    for subject, runs in compared(accuracies, "learning_rate", "batch_size", varied=["gamma"]):
        if runs["gamma"].nunique() > 1:
            kept = collected.converged(runs)
            for letter, verdict in (("m", _as_accurate(kept)), ("n", _faster(kept, validation_epoch))):
                yield Finding(letter, subject, verdict, collected.num_diverged(runs))


def _sharper(table: pd.DataFrame) -> Verdict:
    gamma = _smallest(table)
    if gamma is None:
        return undecided("runs with gamma 1 and with a gamma below it", measured=per_setting(table, "gamma"))
    ratios = log_ratio(table[gamma], table[1.0])
    at_all = paired(ratios, above=True, measured="").answer
    measured = f"{per_setting(table, 'gamma')}; gamma {setting_text(gamma)} sharper at all: {at_all}"
    return paired(ratios, above=True, threshold=ABOUT_TEN, scale=np.exp, measured=measured)


def _flatter(table: pd.DataFrame) -> Verdict:
    larger = [gamma for gamma in table if gamma > 1]
    if not larger or 1.0 not in table:
        return undecided("runs with gamma 1 and with a gamma above it", measured=per_setting(table, "gamma"))
    ratios = log_ratio(table[max(larger)], table[1.0])
    at_all = paired(ratios, above=False, measured="").answer
    measured = f"{per_setting(table, 'gamma')}; gamma {setting_text(max(larger))} flatter at all: {at_all}"
    return paired(ratios, above=False, threshold=-ABOUT_TEN, scale=np.exp, measured=measured)


def _as_accurate(runs: pd.DataFrame) -> Verdict:
    table = over_settings(runs, "gamma", "test_percent")
    gamma, measured = _smallest(table), f"% at {per_setting(table, 'gamma')}"
    if gamma is None:
        return undecided("runs with gamma 1 and with a gamma below it", measured=measured)
    return within(table[gamma] - table[1.0], POINT, measured=measured)


def _faster(runs: pd.DataFrame, validation_epoch: float) -> Verdict:
    table = over_settings(runs, "gamma", "early_percent")
    gamma, measured = _smallest(table), f"% at epoch {validation_epoch:g}, {per_setting(table, 'gamma')}"
    if gamma is None:
        return undecided(f"runs of {validation_epoch:g} epochs with gamma 1 and with one below it", measured=measured)
    return paired(table[gamma] - table[1.0], above=True, measured=measured)


def _smallest(table: pd.DataFrame) -> float | None:
    """The smallest gamma below 1, where there is something to compare it with."""
    smaller = [gamma for gamma in table if gamma < 1]
    return min(smaller) if smaller and 1.0 in table else None


def _accuracies(history: pd.DataFrame, validation_epoch: float) -> pd.DataFrame:
    """One row per run, in per cent: test accuracy at the best validation accuracy, and early validation accuracy."""
    ordered = history.sort_values("epoch", kind="stable").drop_duplicates(["run", "epoch"])
    # The first of equals, as the checkpoint "best".
    best = ordered.sort_values("validation_accuracy", ascending=False, kind="stable").drop_duplicates("run")
    is_early = np.isclose(ordered["epoch"].astype(float), validation_epoch)
    early = ordered[is_early].set_index("run")["validation_accuracy"]
    return best.assign(test_percent=100 * best["test_accuracy"], early_percent=100 * best["run"].map(early))
