"""Claims on where runs end: the largest learning rate is the flattest (o), and flatness goes with accuracy (s)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats  # type: ignore[import-untyped]

from sharpness.analysis.claims.collected import Collected, num_lost
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.norms import at_loss, last_norms, of_one_settings, with_losses
from sharpness.analysis.claims.peaks import courses
from sharpness.analysis.claims.subjects import AXES, Subject, along, over_settings, plain
from sharpness.analysis.claims.verdicts import Verdict, differs, not_asked, ordered
from sharpness.analysis.claims.wording import number
from sharpness.study.kinds import kinds_for


def ends(collected: Collected) -> Iterator[Finding]:
    """The claims on where runs end."""
    rate, told = AXES[0], set[Subject]()
    spectrum = collected.rows("spectrum", "eigenvalues")
    largest = courses(spectrum[spectrum["axis"] == rate.setting], rank=0)
    for rows, quantity in ((largest, "end"), (last_norms(collected, "table"), "log_norm")):
        for subject, runs in along(plain(rows), rate):
            cells = over_settings(of_one_settings(runs) if quantity == "log_norm" else runs, rate.setting, quantity)
            words = cells.in_words(rate.setting)
            verdict = ordered(cells, rises=False, setting=rate.setting, measured=words)
            if subject in told:  # by its eigenvalues
                words = ", ".join(filter(None, [subject.configuration, "table of results"]))
                subject = replace(subject, configuration=words)
            told.add(subject)
            yield Finding("o", subject, verdict, num_lost(runs))
    yield from _flat_runs_generalise(collected)


def _flat_runs_generalise(collected: Collected) -> Iterator[Finding]:
    spectrum = collected.rows("spectrum", *kinds_for("s"))
    largest = spectrum[(spectrum["which"] == "largest") & (spectrum["rank"] == 0) & (spectrum["checkpoint"] != "best")]
    last = largest.sort_values("step", kind="stable").drop_duplicates(["run", "alike"], keep="last")
    history = collected.rows("history", *kinds_for("s")).sort_values("epoch", kind="stable")
    of_run = history.drop_duplicates("run", keep="last").set_index("run")
    found = last.assign(**{name: last["run"].map(of_run[name]).astype(float) for name in _AT_END})
    keys = ["data", "model", "model_args", "alike"]
    for (data, model, arguments, alike), runs in found.groupby(keys, sort=False, dropna=False):
        others = found[(found["data"] == data) & (found["model"] == model)]
        told = [f"model args {arguments}"] if others["model_args"].nunique() > 1 else []
        told += [f"settings {alike}"] if others["alike"].nunique() > 1 else []
        words = ", ".join(told)
        verdict = _correlation(runs)
        if beside := _matched(largest[largest["alike"] == alike], history, runs[~runs["lost"]]):
            verdict = replace(verdict, measured=f"{verdict.measured}; {beside}")
        yield Finding("s", Subject(model, data, words), verdict, num_lost(runs))


def _matched(largest: pd.DataFrame, history: pd.DataFrame, runs: pd.DataFrame) -> str:
    """In words, how sharp and how good the runs of each seed are at the lowest training loss that all reach."""
    positive = largest.assign(log_eigenvalue=np.log10(largest["eigenvalue"].where(largest["eigenvalue"] > 0)))
    sharp = with_losses(positive.sort_values("step", kind="stable"), history)
    good = with_losses(history, history)
    parts = []
    for seed, of_seed in runs.groupby("seed"):
        courses = [
            [table.loc[table["run"] == run, ["log_loss", name]].to_numpy(dtype=float) for run in of_seed["run"]]
            for table, name in ((sharp, "log_eigenvalue"), (good, "validation_accuracy"))
        ]
        level, there = at_matched_loss(courses)
        if len(there) > 2:
            logs, accuracies = there.T
            eigenvalues = f"eigenvalue {number(10 ** logs.min())} to {number(10 ** logs.max())}"
            accuracy = f"validation accuracy {number(accuracies.min())} to {number(accuracies.max())}"
            rho = float(pd.DataFrame(there).rank().corr().iloc[0, 1])
            parts.append(
                f"{number(10**level)} (seed {seed}): {eigenvalues}, {accuracy}, rank correlation {number(rho)}"
            )
    return f"at the lowest training loss that all runs reach, {'; '.join(parts)}" if parts else ""


def at_matched_loss(courses: Sequence[Sequence[np.ndarray]]) -> tuple[float, np.ndarray]:
    """Follow each run to the lowest training loss that all reach.

    Args:
        courses: of several quantities, of each run: [T, 2], logarithm of the training loss and the quantity, in the
            order of time.

    Returns:
        The logarithm of that loss, and the quantities there, [runs, quantities], of the runs that have all of them.
    """
    known = [[course[np.isfinite(course).all(axis=1)] for course in of_quantity] for of_quantity in courses]
    lowest = [course[:, 0].min(initial=np.inf) for of_quantity in known for course in of_quantity]
    level = max(lowest, default=np.inf)
    if not np.isfinite(level):
        return np.nan, np.empty((0, len(courses)))
    there = np.array([[at_loss(course, level) for course in of_run] for of_run in zip(*known, strict=True)])
    return float(level), there[np.isfinite(there).all(axis=1)]


# Runs of a seed, of which there is a partial rank correlation.
FEWEST = 4
_AT_END = ("training_loss", "test_accuracy")
# A run that diverged has the highest loss and the lowest accuracy; that it were the flattest speaks against the claim.
_OF_LOST = {"eigenvalue": -np.inf, "training_loss": np.inf, "test_accuracy": -np.inf}


def _correlation(runs: pd.DataFrame) -> Verdict:
    quantities = list(_OF_LOST)
    finite = runs[runs["lost"] | np.isfinite(runs[quantities].astype(float)).all(axis="columns")]
    if finite.groupby("seed").size().max() < FEWEST or finite.empty:
        return not_asked()
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
    if num < FEWEST or (ranks.nunique() < 2).any():
        return np.nan, np.nan
    rho = ranks.corr().to_numpy()
    sharp, loss, accuracy = range(3)
    spread = (1 - rho[sharp, loss] ** 2) * (1 - rho[accuracy, loss] ** 2)
    if spread < 1e-12:
        return np.nan, np.nan
    partial = (rho[sharp, accuracy] - rho[sharp, loss] * rho[accuracy, loss]) / np.sqrt(spread)
    bound = 1 - 6 / (num * (num**2 - 1))
    return float(np.clip(partial, -1, 1)), float(np.arctanh(np.clip(partial, -bound, bound)))
