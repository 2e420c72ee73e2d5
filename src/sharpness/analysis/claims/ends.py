"""Claims on where runs end: the largest learning rate is the flattest (o), and flatness goes with accuracy (s)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sharpness.analysis.claims.collected import Collected
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.norms import last_norms, of_one_settings
from sharpness.analysis.claims.peaks import peaks_in_grid
from sharpness.analysis.claims.subjects import AXES, Subject, along, compared, over_settings
from sharpness.analysis.claims.verdicts import Verdict, correlated, log_ratio, paired, undecided
from sharpness.analysis.claims.wording import number, per_setting, setting_text
from sharpness.analysis.tables import CONFIGURATION
from sharpness.study.kinds import kinds_for


def ends(collected: Collected) -> Iterator[Finding]:
    """The claims on where runs end."""
    yield from _flattest_of_rates(collected)
    yield from _flattest_of_table(collected)
    yield from _flat_runs_generalise(collected)


def _flattest_of_rates(collected: Collected) -> Iterator[Finding]:
    spectrum = collected.rows("spectrum", "eigenvalues")
    axis = AXES[0]
    for subject, runs in along(peaks_in_grid(spectrum, axis.setting, rank=0), axis):
        table = over_settings(collected.converged(runs), axis.setting, "final_eigenvalue")
        yield Finding("o", subject, _last_is_flattest(table, axis.setting), collected.num_diverged(runs))


def _flattest_of_table(collected: Collected) -> Iterator[Finding]:
    spectrum = collected.rows("spectrum", "table")
    plain = set(spectrum.loc[spectrum["grid"] == "sgd", "run"])
    varied = ["gamma", "learning_rate", "settings"]
    for subject, runs in compared(last_norms(collected, "table"), varied=varied, measured=()):
        kept = of_one_settings(collected.converged(runs))
        rates = kept.loc[kept["run"].isin(plain), "learning_rate"]
        if rates.empty:
            continue
        names = {run["run"]: _row_name(run) for run in kept.to_dict("records")}
        table = over_settings(kept.assign(row=kept["run"].map(names)), "row", "frobenius")
        largest = f"SGD({setting_text(rates.max())})"
        ordered = [*(name for name in table if name != largest), *(name for name in table if name == largest)]
        yield Finding("o", subject, _last_is_flattest(table[ordered], ""), collected.num_diverged(runs))


def _row_name(run: dict[str, object]) -> str:
    nudged = run["gamma"] != 1
    return f"gamma {setting_text(run['gamma'])}" if nudged else f"SGD({setting_text(run['learning_rate'])})"


def _last_is_flattest(table: pd.DataFrame, setting: str) -> Verdict:
    measured = per_setting(table, setting)
    if len(table.columns) < 2:
        return undecided("a second learning rate that does not diverge", measured=measured)
    numbers = log_ratio(table.iloc[:, -1], table.iloc[:, :-1].min(axis="columns"))
    return paired(numbers, above=False, scale=np.exp, measured=measured)


def _flat_runs_generalise(collected: Collected) -> Iterator[Finding]:
    spectrum = collected.rows("spectrum", *kinds_for("s"))
    largest = spectrum[(spectrum["which"] == "largest") & (spectrum["rank"] == 0) & (spectrum["checkpoint"] != "best")]
    last = largest.sort_values("step", kind="stable").drop_duplicates(["run", "alike"], keep="last")
    history = collected.rows("history", *kinds_for("s")).sort_values("epoch", kind="stable")
    accuracy = history.drop_duplicates("run", keep="last").set_index("run")["test_accuracy"]
    ends = last.assign(accuracy=last["run"].map(accuracy).astype(float))
    for (data, model, alike), runs in ends.groupby(["data", "model", "alike"], sort=False):
        known = collected.converged(runs)
        known = known[(known["eigenvalue"] > 0) & np.isfinite(known["eigenvalue"]) & np.isfinite(known["accuracy"])]
        others = ends.loc[(ends["data"] == data) & (ends["model"] == model), "alike"]
        words = f"settings {alike}" if others.nunique() > 1 else ""
        yield Finding("s", Subject(model, data, words), _correlation(known), collected.num_diverged(runs))


def _correlation(runs: pd.DataFrame) -> Verdict:
    ranges = [
        f"{name} {number(values.min())} to {number(values.max())}{unit}"
        for name, values, unit in (
            ("largest eigenvalue", runs["eigenvalue"], ""),
            ("test accuracy", 100 * runs["accuracy"], " %"),
        )
    ]
    measured = f"{len(runs)} runs, {', '.join(ranges)}" if len(runs) else "no runs with both"
    logs = np.log10(runs["eigenvalue"].astype(float))
    settings = [field for field in CONFIGURATION if field in runs]
    configurations = runs[settings].apply(tuple, axis="columns")
    return correlated(
        logs,
        runs["accuracy"],
        rises=False,
        configurations=configurations,
        seeds=runs["seed"],
        measured=measured,
    )
