"""Claims on the loss along the sharpest direction: it becomes a bowl (f), whose width adapts (q)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sharpness.claims.collected import Collected
from sharpness.claims.findings import Finding
from sharpness.claims.subjects import AXES, Axis, along, over_settings, subjects, with_fields
from sharpness.claims.verdicts import Verdict, all_of, ordered, paired, undecided
from sharpness.claims.wording import setting_text, spread
from sharpness.kinds import FROM_EPOCH
from sharpness.tables import bowl_widths

BOTTOM = 2  # the minimum lies within so many expected steps,
WALLS = 8  # and the loss rises out to so many


def slices(collected: Collected) -> Iterator[Finding]:
    """The claims on slices."""
    rows = collected.rows("slices", "slices")
    for subject, runs in subjects(rows.drop_duplicates(["run", "step", "k"])):
        yield Finding("f", subject, _bowls(collected.converged(runs)), collected.num_diverged(runs))
    yield from _widths(collected, collected.rows("slices", "slices", "widths"))


def is_bowl(ks: np.ndarray, losses: np.ndarray) -> bool:
    """Whether a slice has its minimum near k = 0 and rises from there on both sides.

    Args:
        ks: ascending, in expected steps.
        losses: at these; one that is not finite is above any other.
    """
    near = np.abs(ks) <= WALLS
    ks, losses = ks[near], np.where(np.isfinite(losses[near]), losses[near], np.inf)
    lowest = np.flatnonzero((losses == losses.min(initial=np.inf)) & (np.abs(ks) <= BOTTOM))
    if not len(lowest):
        return False
    left, right = losses[: lowest[0] + 1][::-1], losses[lowest[0] :]
    return all(bool((side[1:] >= side[:-1]).all() and side[-1] > side[0]) for side in (left, right))


def _bowls(rows: pd.DataFrame) -> Verdict:
    here = rows.loc[(rows["k"] == 0) & np.isfinite(rows["loss"].astype(float)), ["run", "step"]]
    late = rows[rows["epoch"] >= FROM_EPOCH].merge(here, on=["run", "step"]).sort_values("k")
    found = [
        {"seed": seed, "run": run, "bowl": is_bowl(of_slice["k"].to_numpy(), of_slice["loss"].to_numpy())}
        for (seed, run, _), of_slice in late.groupby(["seed", "run", "step"])
    ]
    if not found:
        return undecided(f"slices from epoch {FROM_EPOCH} on, of runs that do not diverge")
    fractions = pd.DataFrame(found).groupby(["seed", "run"])["bowl"].mean()
    reach = late["k"].abs().where(late["k"].abs() <= WALLS).max()
    measured = f"{spread(100 * fractions)} % of {len(found)} slices in all, looked at out to k = ±{setting_text(reach)}"
    return paired(fractions.groupby("seed").mean(), above=True, threshold=0.5, measured=measured)


def _widths(collected: Collected, rows: pd.DataFrame) -> Iterator[Finding]:
    here = rows.loc[rows["k"] == 0, ["run", "step"]].drop_duplicates()
    rows = rows.merge(here, on=["run", "step"])
    if rows.empty:
        return
    widths = with_fields(bowl_widths(rows).drop_duplicates("run"), rows)
    for subject, runs in subjects(widths):
        parts = [part for axis in AXES for part in _width_parts(collected, runs, axis)]
        # A study without any such comparison has nothing to say of this network.
        if any(verdict.measured for _, verdict in parts):
            yield Finding("q", subject, all_of(parts), collected.num_diverged(runs))


def _width_parts(collected: Collected, runs: pd.DataFrame, axis: Axis) -> Iterator[tuple[str, Verdict]]:
    name = f"wider with a {axis.words}"
    groups = list(along(runs, axis))
    for subject, group in groups:
        kept = collected.converged(group)
        table = over_settings(kept, axis.setting, "width", ascending=axis.ascending)
        verdict = ordered(table, rises=True, setting=axis.setting)
        place = f" ({subject.configuration})" if len(groups) > 1 else ""
        open_slices = f", {kept['num_open'].sum()} of {kept['num_slices'].sum()} slices open"
        yield f"{name}{place}{open_slices}", verdict
    if not groups:
        yield name, undecided(f"slices at several values of {axis.setting}")
