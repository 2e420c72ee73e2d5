"""Claims on where runs end: the largest learning rate is the flattest (o), and flatness goes with accuracy (s)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats  # type: ignore[import-untyped]

from sharpness.analysis.claims.collected import Collected, num_lost
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.norms import last_norms, of_one_settings
from sharpness.analysis.claims.peaks import courses
from sharpness.analysis.claims.subjects import AXES, Subject, along, over_settings, plain
from sharpness.analysis.claims.verdicts import Verdict, differs, ordered, undecided
from sharpness.analysis.claims.wording import number
from sharpness.study.kinds import kinds_for


def ends(collected: Collected) -> Iterator[Finding]:
    """The claims on where runs end."""
    rate = AXES[0]
    spectrum = collected.rows("spectrum", "eigenvalues")
    largest = courses(spectrum[spectrum["grid"] == rate.setting], rank=0)
    for rows, quantity in ((largest, "end"), (last_norms(collected, "table"), "log_norm")):
        for subject, runs in along(plain(rows), rate):
            cells = over_settings(of_one_settings(runs) if quantity == "log_norm" else runs, rate.setting, quantity)
            words = cells.in_words(rate.setting)
            verdict = ordered(cells, rises=False, setting=rate.setting, measured=words)
            yield Finding("o", subject, verdict, num_lost(runs))
    yield from _flat_runs_generalise(collected)


def _flat_runs_generalise(collected: Collected) -> Iterator[Finding]:
    spectrum = collected.rows("spectrum", *kinds_for("s"))
    largest = spectrum[(spectrum["which"] == "largest") & (spectrum["rank"] == 0) & (spectrum["checkpoint"] != "best")]
    last = largest.sort_values("step", kind="stable").drop_duplicates(["run", "alike"], keep="last")
    history = collected.rows("history", *kinds_for("s")).sort_values("epoch", kind="stable")
    of_run = history.drop_duplicates("run", keep="last").set_index("run")
    found = last.assign(**{name: last["run"].map(of_run[name]).astype(float) for name in _AT_END})
    for (data, model, alike), runs in found.groupby(["data", "model", "alike"], sort=False):
        others = found.loc[(found["data"] == data) & (found["model"] == model), "alike"]
        words = f"settings {alike}" if others.nunique() > 1 else ""
        yield Finding("s", Subject(model, data, words), _correlation(runs), num_lost(runs))


_AT_END = ("training_loss", "test_accuracy")
# A run that diverged has the highest loss and the lowest accuracy; that it were the flattest speaks against the claim.
_OF_LOST = {"eigenvalue": -np.inf, "training_loss": np.inf, "test_accuracy": -np.inf}


def _correlation(runs: pd.DataFrame) -> Verdict:
    quantities = list(_OF_LOST)
    finite = runs[runs["lost"] | np.isfinite(runs[quantities].astype(float)).all(axis="columns")]
    if finite.empty:
        return undecided("runs with an eigenvalue, a training loss and a test accuracy at the end")
    entered = finite.assign(**{name: finite[name].mask(finite["lost"], value) for name, value in _OF_LOST.items()})
    found = {seed: partial_rank_correlation(of_seed[quantities]) for seed, of_seed in entered.groupby("seed")}
    known = finite[~finite["lost"]]
    ranges = [
        f"{name.replace('_', ' ')} {number(known[name].min())} to {number(known[name].max())}" for name in quantities
    ]
    each = ", ".join(f"{number(rho)} (seed {seed})" for seed, (rho, _) in found.items())
    measured = f"{len(finite)} runs, {', '.join(ranges)}; partial rank correlation {each}"
    return differs([z for _, z in found.values()], above=False, measured=measured)


def partial_rank_correlation(runs: pd.DataFrame) -> tuple[float, float]:
    """Of the eigenvalue and the test accuracy given the training loss, and its Fisher z; NaN where there is none.

    A perfect correlation, whose z is infinite, counts as half a step of Spearman's below it.
    """
    ranks = runs.apply(stats.rankdata)
    num = len(ranks)
    if num < 4 or (ranks.nunique() < 2).any():
        return np.nan, np.nan
    rho = ranks.corr().to_numpy()
    sharp, loss, accuracy = range(3)
    spread = (1 - rho[sharp, loss] ** 2) * (1 - rho[accuracy, loss] ** 2)
    if spread < 1e-12:
        return np.nan, np.nan
    partial = (rho[sharp, accuracy] - rho[sharp, loss] * rho[accuracy, loss]) / np.sqrt(spread)
    bound = 1 - 6 / (num * (num**2 - 1))
    return float(np.clip(partial, -1, 1)), float(np.arctanh(np.clip(partial, -bound, bound)))
