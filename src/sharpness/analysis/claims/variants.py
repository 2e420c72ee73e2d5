"""Claims on SGD without, or with nothing but, its step along the top eigenvector (i, j)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sharpness.analysis.claims.collected import Collected
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.rules import LAST_QUARTER, SAME
from sharpness.analysis.claims.subjects import compared, over_settings
from sharpness.analysis.claims.verdicts import Verdict, alike, all_of, differs, not_asked


def variants(collected: Collected) -> Iterator[Finding]:
    """The claims on variants. Whatever became later of the run that a variant began from has no part in them."""
    rows = collected.rows("variants", "variants").drop_duplicates(["run", "settings", "start_step", "step"])
    for subject, runs in compared(rows, "learning_rate", "batch_size", varied=["settings"], measured=()):
        for letter, name in (("i", "top_only"), ("j", "top_removed")):
            pair = _ends(runs[runs["settings"].isin([name, "sgd"])])
            yield Finding(letter, subject, _verdict(name, pair), int(pair["lost"].sum()))


def _ends(rows: pd.DataFrame) -> pd.DataFrame:
    """By seed, run, start and variant: logarithms of the means over the last quarter, and whether it diverged."""
    place = ["seed", "run", "start_step", "settings"]
    measured = rows[np.isfinite(rows["loss"]) & np.isfinite(rows["eigenvalue"])]
    end = measured.groupby(["run", "start_step"])["step"].transform("max")
    last = measured[measured["step"] >= LAST_QUARTER * end]
    means = last.groupby(place)[["eigenvalue", "loss"]].mean()
    logs = np.log10(means.where(means > 0))
    lost = rows.assign(lost=rows["diverged"].eq(True)).groupby(place)["lost"].any()
    return logs.join(lost, how="outer").reset_index()


def _verdict(name: str, ends: pd.DataFrame) -> Verdict:
    cells = {quantity: over_settings(ends, "settings", quantity) for quantity in ("eigenvalue", "loss")}
    missing = [
        variant for variant in sorted({name, "sgd"}) if any(variant not in cell.values for cell in cells.values())
    ]
    if missing:
        return not_asked()
    words = {quantity: cell.in_words("") for quantity, cell in cells.items()}
    sharpness = cells["eigenvalue"].less(name, "sgd")
    if name == "top_only":
        described = f"largest eigenvalue {words['eigenvalue']}; loss {words['loss']}"
        return differs(sharpness, above=False, measured=described)
    # However far off the loss of a variant that diverged may be, it is not the same.
    losses = cells["loss"].less(name, "sgd", when_lost=np.inf)
    sharper = differs(sharpness, above=True, measured=words["eigenvalue"])
    return all_of([("sharper", sharper), ("the same loss", alike(losses, SAME, measured=words["loss"]))])
