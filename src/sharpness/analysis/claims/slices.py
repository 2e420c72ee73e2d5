"""Claims on the loss along the sharpest direction: it becomes a bowl (f), whose width adapts (q)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sharpness.analysis.claims.collected import Collected
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.subjects import AXES, Axis, along, compared, over_settings, subjects, with_fields
from sharpness.analysis.claims.verdicts import Verdict, all_of, ordered, paired, undecided
from sharpness.analysis.claims.wording import setting_text, spread
from sharpness.analysis.tables import bowl_widths
from sharpness.study.kinds import FROM_EPOCH, kinds_for

BOTTOM = 2  # the minimum lies within so many expected steps,
WALLS = 8  # and the loss rises out to so many


def slices(collected: Collected) -> Iterator[Finding]:
    """The claims on slices."""
    rows = collected.rows("slices", "slices")
    for subject, runs in compared(rows.drop_duplicates(["run", "settings", "step", "k"])):
        yield Finding("f", subject, _bowls(collected.converged(runs)), collected.num_diverged(runs))
    yield from _widths(collected, collected.rows("slices", *kinds_for("q")))


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
    here = rows.loc[rows["k"] == 0, ["run", "step"]]
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
    here = rows.loc[rows["k"] == 0, ["run", "settings", "step"]].drop_duplicates()
    rows = rows.merge(here, on=["run", "settings", "step"])
    for subject, alike in subjects(rows):
        parts = [part for axis in AXES for part in _width_parts(collected, alike, axis)]
        # A study without any such comparison has nothing to say of this network.
        if any(verdict.measured for _, verdict in parts):
            yield Finding("q", subject, all_of(parts), collected.num_diverged(alike))


def _width_parts(collected: Collected, rows: pd.DataFrame, axis: Axis) -> Iterator[tuple[str, Verdict]]:
    name = f"wider with a {axis.words}"
    groups = list(along(rows.drop_duplicates("run"), axis))
    for subject, runs in groups:
        late = rows[rows["run"].isin(runs["run"]) & (rows["epoch"] >= FROM_EPOCH)]
        slices = at_shared_times(collected.converged(late))
        place = f" ({subject.configuration})" if len(groups) > 1 else ""
        if slices.empty:
            wanted = f"slices from epoch {FROM_EPOCH} on at the same epochs of all runs that do not diverge"
            yield f"{name}{place}", undecided(wanted, measured=f"{len(runs)} runs have none")
            continue
        kept = with_fields(bowl_widths(slices).drop_duplicates("run"), slices)
        table = over_settings(kept, axis.setting, "width", ascending=axis.ascending)
        verdict = ordered(table, rises=True, setting=axis.setting)
        open_slices = f", {kept['num_open'].sum()} of {kept['num_slices'].sum()} slices open"
        yield f"{name}{place}{open_slices}", verdict
    if not groups:
        yield name, undecided(f"slices at several values of {axis.setting}")


def at_shared_times(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of those checkpoints that all runs have: means over time are compared over the same times.

    A time in epochs falls on the step next to it, so that two runs have it to half a step of each.
    """
    times = {run: of_run.drop_duplicates("step").set_index("step")["epoch"] for run, of_run in rows.groupby("run")}
    if not times:
        return rows
    half_steps = {run: (epochs / epochs.index.where(epochs > 0)).max() / 2 for run, epochs in times.items()}
    reference = min(times, key=lambda run: len(times[run]))
    kept: dict[str, list[int]] = {run: [] for run in times}
    for epoch in times[reference]:
        nearest = {run: int((epochs - epoch).abs().idxmin()) for run, epochs in times.items()}
        if all(
            abs(times[run][step] - epoch) <= (half_steps[run] + half_steps[reference]) * (1 + 1e-9)
            for run, step in nearest.items()
        ):
            for run, step in nearest.items():
                kept[run].append(step)
    steps = pd.DataFrame([{"run": run, "step": step} for run, found in kept.items() for step in set(found)])
    return rows.merge(steps, on=["run", "step"]) if len(steps) else rows.iloc[:0]
