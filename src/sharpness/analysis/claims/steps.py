"""Claims on the length of SGD's step along the sharpest direction (g, h, t)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sharpness.analysis.claims.collected import Collected, num_lost
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.rules import ALPHAS
from sharpness.analysis.claims.subjects import Cells, compared, over_settings
from sharpness.analysis.claims.verdicts import Verdict, differs, undecided
from sharpness.analysis.claims.wording import number
from sharpness.analysis.parabola import LONGEST, parabola_through


def steps(collected: Collected) -> Iterator[Finding]:
    """The claims on scaled steps."""
    rows = collected.rows("steps", "steps")
    top = rows[(rows["direction"] == "top") & rows["alpha"].isin(ALPHAS)]
    top = top.drop_duplicates(["run", "settings", "step", "alpha", "batch"])
    for subject, runs in compared(top, "learning_rate", "batch_size"):
        if not set(ALPHAS) <= set(runs["alpha"]):
            continue  # no parabola, and nothing to compare
        cells = _changes(runs)
        for letter in ("g", "h", "t"):
            yield Finding(letter, subject, _verdict(letter, cells), num_lost(runs))


def _changes(rows: pd.DataFrame) -> Cells:
    """By seed and factor, the relative change of the loss in per cent: the mean over the checkpoints that have all."""
    finite = rows.loc[np.isfinite(rows["loss_after"]), "loss_after"]
    # A loss that overflows is at least as high as any that does not.
    after = rows["loss_after"].where(np.isfinite(rows["loss_after"]), finite.max() if len(finite) else np.nan)
    changes = rows.assign(percent=100 * (after / rows["loss_before"] - 1))
    place = ["seed", "run", "lost", "step"]
    means = changes.groupby([*place, "alpha"])["percent"].mean().unstack().reindex(columns=list(ALPHAS))
    complete = means[np.isfinite(means).all(axis="columns") | means.index.get_level_values("lost")]
    tall = complete.reset_index().melt(place, var_name="alpha", value_name="percent")
    return over_settings(tall, "alpha", "percent")


def _verdict(letter: str, cells: Cells) -> Verdict:
    measured = f"change in % at {cells.in_words('alpha', logs=False)}"
    if cells.values.empty:
        factors = " and ".join(f"{alpha:g}" for alpha in ALPHAS)
        return undecided(f"finite losses after steps with alpha {factors}", measured="")
    lost = cells.lost.any(axis="columns")
    if letter == "h":
        return differs(cells.values[ALPHAS[-1]].mask(lost, 0.0), above=True, measured=measured)
    # What speaks against a shorter step is the longest, against another step SGD's own.
    against = LONGEST if letter == "g" else 1.0
    best = {
        seed: against
        if lost[seed]
        else parabola_through(ALPHAS, changes).minimiser
        if np.isfinite(changes).all()
        else np.nan
        for seed, changes in zip(cells.values.index, cells.values.to_numpy(dtype=float), strict=True)
    }
    each = ", ".join(f"{number(factor)} (seed {seed})" for seed, factor in best.items())
    numbers = np.log10(pd.Series(best, dtype=float))
    return differs(numbers, above=False if letter == "g" else None, measured=f"minimiser {each}; {measured}")
