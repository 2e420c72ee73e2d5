"""How sharp runs are: the Frobenius norm from the tracked eigenvalues, at the end and at equal training loss."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sharpness.analysis.claims.collected import Collected
from sharpness.analysis.claims.subjects import with_fields
from sharpness.analysis.tables import RUN, frobenius


def norms_of(collected: Collected, *kinds: str) -> pd.DataFrame:
    """A row per run, settings of the measurement and step in experiments of some kinds, with column log_norm."""
    spectrum = collected.rows("spectrum", *kinds)
    measured = spectrum[(spectrum["which"] == "largest") & spectrum["checkpoint"].isin(["planned", "last", "best"])]
    if measured.empty:
        columns = [*RUN, "settings", "checkpoint", "step", "epoch", "log_norm", "num_eigenvalues"]
        return with_fields(pd.DataFrame(columns=columns), spectrum)
    norms = frobenius(measured).sort_values("step", kind="stable")
    positive = norms["frobenius"].where(norms["frobenius"] > 0)
    return with_fields(norms.assign(log_norm=np.log10(positive)), spectrum)


def last_norms(collected: Collected, *kinds: str) -> pd.DataFrame:
    """The last row of each run and settings."""
    norms = norms_of(collected, *kinds)
    return norms[norms["checkpoint"] != "best"].drop_duplicates(["run", "settings"], keep="last")


def of_one_settings(norms: pd.DataFrame) -> pd.DataFrame:
    """The rows that were measured alike: of several settings those of the most runs, then of the most eigenvalues."""
    if norms.empty:
        return norms
    sizes = norms.groupby("settings").agg(runs=("run", "nunique"), eigenvalues=("num_eigenvalues", "max"))
    return norms[norms["settings"] == sizes.sort_values(["runs", "eigenvalues"], kind="stable").index[-1]]


def with_losses(norms: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """The norms with log_loss, that of the training loss, linear in time between two epochs of the history."""
    losses = history[(history["training_loss"] > 0) & np.isfinite(history["training_loss"])]
    courses = {run: of_run.sort_values("epoch") for run, of_run in losses.groupby("run")}
    found = [
        float(np.interp(epoch, courses[run]["epoch"], np.log10(courses[run]["training_loss"]), right=np.nan))
        if run in courses
        else np.nan
        for run, epoch in zip(norms["run"], norms["epoch"], strict=True)
    ]
    return norms.assign(log_loss=pd.Series(found, norms.index, dtype=float))


def at_equal_loss(one: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float]:
    """Compare two runs at the lowest training loss that both reach.

    Args:
        one: columns log_loss and log_norm, in the order of time; two checkpoints at least.
        other: as ``one``.

    Returns:
        log_norm of the one less that of the other, linear in log_loss between checkpoints; and log10 of that loss. NaN
        where there is none.
    """
    known = [run[["log_loss", "log_norm"]].dropna().to_numpy(dtype=float) for run in (one, other)]
    if min(map(len, known)) < 2:
        return np.nan, np.nan
    level = max(course[:, 0].min() for course in known)
    ours, theirs = (at_loss(course, level) for course in known)
    return ours - theirs, float(level)


def at_loss(course: np.ndarray, level: float) -> float:
    """A quantity where the loss first falls to ``level``, linear in the logarithm of the loss.

    Args:
        course: [T, 2], logarithm of the loss and the quantity, in the order of time.
        level: logarithm of a loss that it reaches.

    Returns:
        NaN if the loss is below from the first checkpoint on.
    """
    index = int(np.flatnonzero(course[:, 0] <= level)[0])
    if index == 0:
        return float(course[0, 1]) if course[0, 0] == level else np.nan
    (before, high), (after, low) = course[index - 1 : index + 1]
    return float(high + (level - before) / (after - before) * (low - high))
