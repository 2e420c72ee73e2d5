"""Claims on the length of SGD's step along the sharpest direction (g, h, t)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sharpness.analysis.claims.collected import Collected
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.subjects import compared, over_settings
from sharpness.analysis.claims.verdicts import Verdict, any_of, paired, undecided
from sharpness.analysis.claims.wording import per_setting

HALF, WHOLE, TWICE = 0.5, 1.0, 2.0


def steps(collected: Collected) -> Iterator[Finding]:
    """The claims on scaled steps."""
    rows = collected.rows("steps", "steps")
    top = rows[(rows["direction"] == "top") & rows["alpha"].isin([HALF, WHOLE, TWICE])]
    top = top.drop_duplicates(["run", "settings", "step", "alpha", "batch"])
    for subject, runs in compared(top, "learning_rate", "batch_size"):
        table = _changes(collected.converged(runs))
        measured = f"change in % at {per_setting(table, 'alpha')}"
        for letter in ("g", "h", "t"):
            yield Finding(letter, subject, _verdict(letter, table, measured), collected.num_diverged(runs))


def _changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Relative change of the loss in per cent, mean over checkpoints and batches, [seeds, alphas]."""
    # Where the loss overflows the mean has no bound either.
    after = rows["loss_after"].where(np.isfinite(rows["loss_after"]), np.inf)
    changes = rows.assign(change=100 * (after / rows["loss_before"] - 1))
    means = changes.groupby(["run", "seed", "alpha"], as_index=False)["change"].mean()
    return over_settings(means, "alpha", "change")


def _verdict(letter: str, table: pd.DataFrame, measured: str) -> Verdict:
    missing = [f"{alpha:g}" for alpha in (HALF, WHOLE, TWICE) if alpha not in table]
    if missing:
        return undecided(f"finite losses after steps with alpha {' and '.join(missing)}", measured=measured)
    if letter == "g":
        return paired(table[HALF] - table[WHOLE], above=False, measured=measured)
    if letter == "h":
        return paired(table[TWICE], above=True, measured=measured)
    others = {"less half the step": HALF, "less twice the step": TWICE}
    return any_of(
        [
            (name, paired(table[WHOLE] - table[alpha], above=True, measured=measured, alternatives=len(others)))
            for name, alpha in others.items()
        ]
    )
