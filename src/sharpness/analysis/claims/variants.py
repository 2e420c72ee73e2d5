"""Claims on SGD without, or with nothing but, its step along the top eigenvector (i, j)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sharpness.analysis.claims.collected import Collected
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.subjects import compared
from sharpness.analysis.claims.verdicts import Verdict, all_of, log_ratio, paired, undecided, within
from sharpness.analysis.claims.wording import spread

LAST = 0.75  # what is averaged begins at this part of the steps
SIMILAR = 1.25  # at most, between two losses


def variants(collected: Collected) -> Iterator[Finding]:
    """The claims on variants. Whatever became later of the run that a variant began from has no part in them."""
    rows = collected.rows("variants", "variants").drop_duplicates(["run", "settings", "start_step", "step"])
    for subject, runs in compared(rows, "learning_rate", "batch_size", varied=["settings"], measured=()):
        for letter, name in (("i", "top_only"), ("j", "top_removed")):
            pair = runs[runs["settings"].isin([name, "sgd"])]
            lost = set(pair.loc[pair["diverged"].eq(True), "run"])
            kept = _ends(pair[~pair["run"].isin(lost)])
            yield Finding(letter, subject, _verdict(name, kept), len(lost))


def _ends(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over the last quarter, by run and variant, of eigenvalue and loss where both were measured anew."""
    measured = rows[np.isfinite(rows["loss"]) & np.isfinite(rows["eigenvalue"])]
    end = measured.groupby(["run", "start_step"])["step"].transform("max")
    last = measured[measured["step"] >= LAST * end]
    means = last.groupby(["seed", "run", "start_step", "settings"])[["eigenvalue", "loss"]].mean()
    return means.unstack("settings")


def _verdict(name: str, ends: pd.DataFrame) -> Verdict:
    known = set(ends["eigenvalue"]) if len(ends) else set()
    if not {name, "sgd"} <= known:
        missing = " and ".join(sorted({name, "sgd"} - known))
        return undecided(f"runs of the variant {missing} that do not diverge")
    measured, ratios = {}, {}
    for quantity in ("eigenvalue", "loss"):
        values = ends[quantity]
        ratios[quantity] = log_ratio(values[name], values["sgd"]).groupby("seed").mean()
        measured[quantity] = ", ".join(f"{variant} {spread(values[variant])}" for variant in (name, "sgd"))
    if name == "top_only":
        described = f"largest eigenvalue {measured['eigenvalue']}; loss {measured['loss']}"
        return paired(ratios["eigenvalue"], above=False, scale=np.exp, measured=described)
    sharper = paired(ratios["eigenvalue"], above=True, scale=np.exp, measured=measured["eigenvalue"])
    similar = within(ratios["loss"], float(np.log(SIMILAR)), scale=np.exp, measured=measured["loss"])
    return all_of([("sharper", sharper), ("loss within 25 %", similar)])
