"""How sharp runs end: the Frobenius norm from the tracked eigenvalues at the last checkpoint."""

from __future__ import annotations

import pandas as pd

from sharpness.analysis.claims.collected import Collected
from sharpness.analysis.claims.subjects import with_fields
from sharpness.analysis.tables import RUN, frobenius


def last_norms(collected: Collected, *kinds: str) -> pd.DataFrame:
    """One row per run and settings of the measurement in experiments of some kinds, with column frobenius."""
    spectrum = collected.rows("spectrum", *kinds)
    ends = spectrum[(spectrum["which"] == "largest") & spectrum["checkpoint"].isin(["planned", "last"])]
    if ends.empty:
        return pd.DataFrame(columns=[*RUN, "settings", "frobenius", "num_eigenvalues"])
    norms = frobenius(ends).sort_values("step", kind="stable")
    return with_fields(norms.drop_duplicates(["run", "settings"], keep="last"), spectrum)


def of_one_settings(norms: pd.DataFrame) -> pd.DataFrame:
    """The rows that were measured alike: of several settings those of the most runs, then of the most eigenvalues."""
    if norms.empty:
        return norms
    sizes = norms.groupby("settings").agg(runs=("run", "nunique"), eigenvalues=("num_eigenvalues", "max"))
    return norms[norms["settings"] == sizes.sort_values(["runs", "eigenvalues"], kind="stable").index[-1]]
