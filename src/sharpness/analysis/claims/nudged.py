"""Claims on Nudged SGD: where gamma steers it, at what accuracy, and how fast (k to n)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sharpness.analysis.claims.collected import Collected, num_lost
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.norms import at_equal_loss, norms_of, of_one_settings, with_losses
from sharpness.analysis.claims.rules import ABOUT_TEN, FIRST_FIFTH, POINT
from sharpness.analysis.claims.subjects import Cells, compared, over_settings
from sharpness.analysis.claims.verdicts import Verdict, alike, all_of, differs, not_asked
from sharpness.analysis.claims.wording import setting_text, spread
from sharpness.study.kinds import kinds_for


def nudged(collected: Collected) -> Iterator[Finding]:
    """The claims on Nudged SGD."""
    history = collected.rows("history", *kinds_for("k"))
    norms = with_losses(norms_of(collected, *kinds_for("k")), history)
    fixed = ("learning_rate", "batch_size")
    for subject, rows in compared(norms, *fixed, varied=["gamma", "settings"], measured=()):
        if rows["gamma"].nunique() > 1:
            for letter, is_larger in (("k", False), ("l", True)):
                beside = rows[rows["gamma"] >= 1 if is_larger else rows["gamma"] <= 1]
                yield Finding(letter, subject, _steered(of_one_settings(rows), is_larger=is_larger), num_lost(beside))
    for subject, runs in compared(_accuracies(history), *fixed, varied=["gamma"]):
        if runs["gamma"].nunique() > 1:
            for letter, verdict in (("m", _as_accurate(runs)), ("n", _faster(runs))):
                yield Finding(letter, subject, verdict, num_lost(runs[runs["gamma"] <= 1]))


def _steered(rows: pd.DataFrame, *, is_larger: bool) -> Verdict:
    """Whether the smallest gamma ends sharper, or the largest flatter, than SGD; the others stand beside."""
    last = rows[rows["checkpoint"] != "best"].drop_duplicates("run", keep="last")
    cells = over_settings(last, "gamma", "log_norm")
    measured = cells.in_words("gamma")
    gammas = _beside(cells, is_larger=is_larger)
    if not gammas:
        return not_asked()
    gamma, *others = gammas
    equal, levels = _at_equal_loss(rows, gamma)
    words = f"gamma {setting_text(gamma)} less 1: {spread(equal)} decades at a loss of {spread(10**levels)}"
    for other in others:
        ends, at_loss = (spread(numbers) for numbers in (cells.less(other, 1.0), _at_equal_loss(rows, other)[0]))
        words += f"; beside it, gamma {setting_text(other)}: {at_loss}, {ends} at the end"
    parts = (("at the end", cells.less(gamma, 1.0), measured), ("at equal training loss", equal, words))
    threshold = -ABOUT_TEN if is_larger else ABOUT_TEN
    return all_of(
        [
            (name, differs(numbers, above=not is_larger, threshold=threshold, measured=told))
            for name, numbers, told in parts
        ]
    )


def _beside(cells: Cells, *, is_larger: bool) -> list[float]:
    """The gammas on one side of SGD's, the farthest first; none where SGD has no value."""
    found = [gamma for gamma in cells.values if (gamma > 1 if is_larger else gamma < 1)]
    return sorted(found, reverse=is_larger) if 1.0 in cells.values else []


def _at_equal_loss(rows: pd.DataFrame, gamma: float) -> tuple[pd.Series, pd.Series]:
    """By seed: the norm of a gamma less that of SGD in decades, 0 where one diverged; and log10 of the loss."""
    differences, levels = {}, {}
    for seed, of_seed in rows.groupby("seed"):
        pair = [of_seed[of_seed["gamma"] == value] for value in (gamma, 1.0)]
        if all(len(run) for run in pair):
            differences[seed], levels[seed] = at_equal_loss(*pair)
            if any(run["lost"].any() for run in pair):
                differences[seed], levels[seed] = 0.0, np.nan
    return pd.Series(differences, dtype=float), pd.Series(levels, dtype=float)


def _as_accurate(runs: pd.DataFrame) -> Verdict:
    parts = []
    for name, quantity in (("at the best epoch", "best_percent"), ("at the last epoch", "last_percent")):
        cells = over_settings(runs, "gamma", quantity)
        measured = f"% at {cells.in_words('gamma', logs=False)}"
        gammas = _beside(cells, is_larger=False)
        if not gammas:
            return not_asked()
        # However far off the accuracy of a run that diverged may be, it is not the same.
        numbers = cells.less(gammas[0], 1.0, when_lost=np.inf)
        parts.append((name, alike(numbers, POINT, rounding=_rounding(runs[quantity]), measured=measured)))
    return all_of(parts)


def _faster(runs: pd.DataFrame) -> Verdict:
    cells = over_settings(runs, "gamma", "early_percent")
    measured = f"% in the first fifth of training, {cells.in_words('gamma', logs=False)}"
    gammas = _beside(cells, is_larger=False)
    if not gammas:
        return not_asked()
    return differs(cells.less(gammas[0], 1.0), above=True, rounding=_rounding(runs["early_percent"]), measured=measured)


def _rounding(percents: pd.Series) -> float:
    """Half the smallest difference between two accuracies, which are counts of images."""
    gaps = np.diff(np.sort(percents[np.isfinite(percents)].to_numpy(float)))
    # In float32, equal counts differ in the last digit.
    return float(gaps[gaps > 1e-4].min(initial=np.inf)) / 2 if (gaps > 1e-4).any() else 0.0


def _accuracies(history: pd.DataFrame) -> pd.DataFrame:
    """One row per run, in per cent: test accuracy at the best and the last epoch, early validation accuracy."""
    ordered = history.sort_values("epoch", kind="stable").drop_duplicates(["run", "epoch"])
    # The first of equals, as the checkpoint "best".
    best = ordered.sort_values("validation_accuracy", ascending=False, kind="stable").drop_duplicates("run")
    last = ordered.drop_duplicates("run", keep="last").set_index("run")["test_accuracy"]
    # At initialisation, all are equal.
    is_early = (ordered["epoch"] > 0) & (ordered["epoch"] <= FIRST_FIFTH * ordered["epochs"].astype(float))
    early = ordered[is_early].groupby("run")["validation_accuracy"].mean()
    return best.assign(
        best_percent=100 * best["test_accuracy"],
        last_percent=100 * best["run"].map(last),
        early_percent=100 * best["run"].map(early),
    )
