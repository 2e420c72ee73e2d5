"""Claims on where runs end: the largest learning rate is the flattest (o), and flatness goes with accuracy (s)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

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
        verdict = _correlation(runs)
        if beside := _matched(largest[largest["alike"] == alike], history, runs[~runs["lost"]]):
            verdict = replace(verdict, measured=f"{verdict.measured}; {beside}")
        yield Finding("s", Subject(model, data, words), verdict, num_lost(runs))


def _matched(largest: pd.DataFrame, history: pd.DataFrame, runs: pd.DataFrame) -> str:
    """In words, how sharp and how good the runs of each seed are where their training losses are equal."""
    parts = []
    for seed, of_seed in runs.groupby("seed"):
        there = at_matched_loss(
            [largest[largest["run"] == run] for run in of_seed["run"]],
            [history[history["run"] == run] for run in of_seed["run"]],
        )
        if len(there) > 2:
            ends = [(number(there[name].min()), number(there[name].max())) for name in ("eigenvalue", "accuracy")]
            rho = float(there[["eigenvalue", "accuracy"]].rank().corr().iloc[0, 1])
            sharp, good = (" to ".join(pair) for pair in ends)
            loss = number(there["loss"].iloc[0])
            parts.append(
                f"{loss} (seed {seed}): eigenvalue {sharp}, validation accuracy {good}, rank correlation {number(rho)}"
            )
    return f"at the lowest training loss that all runs reach, {'; '.join(parts)}" if parts else ""


def at_matched_loss(spectra: Sequence[pd.DataFrame], histories: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Follow each run to the lowest training loss that all reach.

    Args:
        spectra: of each run, columns epoch and eigenvalue.
        histories: of each, columns epoch, training_loss and validation_accuracy.

    Returns:
        A row for each run, columns loss, eigenvalue and accuracy (of validation): at the time at which the loss is
        first reached, linear in the logarithm of the loss, between checkpoints linear in time (the eigenvalue in its
        logarithm). Empty if a run has no loss above 0.
    """
    courses = [
        history[(history["training_loss"] > 0) & np.isfinite(history[["training_loss", "epoch"]]).all(axis="columns")]
        for history in histories
    ]
    courses = [course.sort_values("epoch") for course in courses]
    if not courses or any(len(course) < 2 for course in courses):
        return pd.DataFrame(columns=["loss", "eigenvalue", "accuracy"])
    level = max(float(course["training_loss"].min()) for course in courses)
    rows = []
    for spectrum, course in zip(spectra, courses, strict=True):
        known = (spectrum["eigenvalue"] > 0) & np.isfinite(spectrum[["eigenvalue", "epoch"]]).all(axis="columns")
        measured = spectrum[known].sort_values("epoch")
        losses, epochs = np.log(course["training_loss"].to_numpy()), course["epoch"].to_numpy()
        after = int(np.flatnonzero(losses <= np.log(level))[0])
        pair = [max(after - 1, 0), after]
        time = float(np.interp(-np.log(level), -losses[pair], epochs[pair]))
        log = np.interp(time, measured["epoch"], np.log(measured["eigenvalue"])) if len(measured) else np.nan
        accuracy = float(np.interp(time, epochs, course["validation_accuracy"]))
        rows.append({"loss": level, "eigenvalue": float(np.exp(log)), "accuracy": accuracy})
    return pd.DataFrame(rows).dropna()


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
