"""Claims on the loss along the sharpest direction: it becomes a bowl (f), whose width adapts (q)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sharpness.analysis.claims.collected import Collected, num_lost
from sharpness.analysis.claims.findings import Finding
from sharpness.analysis.claims.rules import BOTTOM, WALL, WALLS
from sharpness.analysis.claims.subjects import AXES, Axis, Cells, along, compared, over_settings, subjects
from sharpness.analysis.claims.verdicts import Verdict, all_of, differs, not_asked, ordered, undecided
from sharpness.analysis.claims.wording import number, setting_text, spread
from sharpness.analysis.rise import distance_of_rise
from sharpness.study.kinds import FROM_EPOCH, kinds_for


def slices(collected: Collected) -> Iterator[Finding]:
    """The claims on slices."""
    rows = collected.rows("slices", "slices")
    for subject, runs in compared(rows.drop_duplicates(["run", "settings", "step", "k"])):
        yield Finding("f", subject, _bowls(runs), num_lost(runs))
    for subject, alike in subjects(_with_distances(collected.rows("slices", *kinds_for("q")))):
        parts = [part for axis in AXES for part in _width_parts(alike, axis)]
        yield Finding("q", subject, all_of(parts), num_lost(alike))


def bowl(ks: np.ndarray, losses: np.ndarray) -> tuple[float, float, float]:
    """How far the lowest loss of a slice is from its middle, and how high its lower wall is.

    Args:
        ks: ascending, 0 among them, in expected steps; as far as ``WALLS`` on both sides they count.
        losses: at these, finite at 0; one that overflows is at least as high as the highest that does not.

    Returns:
        The distance of the minimum in expected steps, half the distance from there to the farther neighbour on the
        grid, and the rise to the lower of the two ends in per cent of the loss at 0.
    """
    near = np.abs(ks) <= WALLS
    ks, losses = ks[near], losses[near]
    losses = np.where(np.isfinite(losses), losses, losses[np.isfinite(losses)].max())
    lowest = int(losses.argmin())
    half = float(np.diff(ks[max(lowest - 1, 0) : lowest + 2]).max(initial=0.0)) / 2
    here = float(losses[ks == 0][0])
    return float(abs(ks[lowest])), half, 100 * (min(float(losses[0]), float(losses[-1])) / here - 1)


def _bowls(rows: pd.DataFrame) -> Verdict:
    late = rows[(rows["epoch"] >= FROM_EPOCH) & ~rows["lost"]]
    is_here = (late["k"] == 0) & np.isfinite(late["loss"]) & (late["loss"] > 0)
    late = late.merge(late.loc[is_here, ["run", "step"]], on=["run", "step"]).sort_values("k")
    found = [
        (seed, *bowl(of_slice["k"].to_numpy(float), of_slice["loss"].to_numpy(float)))
        for (seed, _, _), of_slice in late.groupby(["seed", "run", "step"])
    ]
    # A run that diverged had no bowl to stay in.
    found += [(seed, WALLS, 0.0, 0.0) for seed in rows.loc[rows["lost"], "seed"].unique()]
    if not found:
        return not_asked()
    table = pd.DataFrame(found, columns=["seed", "distance", "half", "rise"])
    means = table.groupby("seed").mean()
    reach = late["k"].abs().where(late["k"].abs() <= WALLS).max()
    told = f"in {len(table)} slices, looked at out to k = ±{setting_text(reach)}"
    nearer = differs(
        means["distance"],
        above=False,
        threshold=BOTTOM,
        rounding=float(means["half"].mean()),
        measured=f"{spread(table['distance'])} expected steps from the weights {told}",
    )
    higher = differs(means["rise"], above=True, threshold=WALL, measured=f"{spread(table['rise'])} % {told}")
    return all_of([("nearer", nearer), ("higher", higher)])


def _with_distances(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the distance of each from the weights, which tables of an older version tell by its factors."""
    by_steps = rows["k"] * rows["scale"]
    return rows.assign(distance=rows["distance"].fillna(by_steps) if "distance" in rows else by_steps)


def _width_parts(rows: pd.DataFrame, axis: Axis) -> Iterator[tuple[str, Verdict]]:
    name = f"wider with a {axis.words}"
    groups = list(along(rows.drop_duplicates("run"), axis))
    for subject, runs in groups:
        late = rows[rows["run"].isin(runs["run"]) & (rows["epoch"] >= FROM_EPOCH)]
        found = at_shared_times(_widths(late[~late["lost"]]))
        place = f" ({subject.configuration})" if len(groups) > 1 else ""
        if found.empty:
            wanted = f"slices from epoch {FROM_EPOCH} on at the same epochs of all runs that do not diverge"
            yield f"{name}{place}", undecided(wanted, measured=f"{len(runs)} runs have none")
            continue
        lost = runs[runs["lost"]].assign(width=np.nan)
        ranks, sizes = _ranks(found, lost, axis.setting)
        words = f"{axis.setting.replace('_', ' ')} {_in_words(found, axis.setting)}"
        verdict = ordered(ranks, rises=not axis.is_batch, setting=axis.setting, sizes=sizes, measured=words)
        yield f"{name}{place}", verdict
    if not groups:
        yield name, not_asked()


def _widths(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per run and step, with column width: where the loss has risen so far; infinite where it has not."""
    ordered_rows = rows.sort_values("distance").drop_duplicates(["run", "step", "distance"])
    found = [
        {**of_slice.iloc[0].to_dict(), "width": distance_of_rise(of_slice["distance"], of_slice["loss"])}
        for _, of_slice in ordered_rows.groupby(["run", "step"])
    ]
    table = pd.DataFrame(found, columns=[*rows, "width"])
    return table.dropna(subset="width")


def _ranks(found: pd.DataFrame, lost: pd.DataFrame, setting: str) -> tuple[Cells, Cells]:
    """By seed and setting: the mean over time of the rank among the settings, and the mean logarithm of the width.

    An open slice ranks last; the widths are those of the times at which no slice is open.
    """
    by_time = found.pivot_table(index=["seed", "time"], columns=setting, values="width", aggfunc="mean")
    for seed, value in zip(lost["seed"], lost[setting], strict=True):
        if value in by_time and seed in by_time.index:
            by_time.loc[[seed], value] = np.inf  # only the others are ranked
    by_time = by_time.dropna()
    ranks = by_time.rank(axis="columns").groupby("seed").mean().stack().rename("width").reset_index()
    cells = over_settings(
        pd.concat([ranks.assign(lost=False), lost[["seed", setting, "lost", "width"]]]), setting, "width"
    )
    logs = np.log10(by_time[np.isfinite(by_time).all(axis="columns")]).groupby("seed").mean()
    return cells, Cells(logs.reindex(index=cells.values.index, columns=cells.values.columns), cells.lost)


def _in_words(found: pd.DataFrame, setting: str) -> str:
    """At each setting the median width of all slices, and how many are open."""
    cells = []
    for value, of_setting in found.groupby(setting, sort=True):
        width, is_open = of_setting["width"].median(), np.isinf(of_setting["width"])
        told = f" ({is_open.sum()} of {len(is_open)} slices open)" if is_open.any() else ""
        cells.append(f"{setting_text(value)}: {'open' if np.isinf(width) else number(width)}{told}")
    return ", ".join(cells)


def at_shared_times(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of those checkpoints that all runs have, with column time, the epoch that is one for all of them.

    A time in epochs falls on the step next to it, so that two runs have it to half a step of each.
    """
    rows = rows[np.isfinite(rows["epoch"].astype(float))]
    times = {run: of_run.drop_duplicates("step").set_index("step")["epoch"] for run, of_run in rows.groupby("run")}
    if not times:
        return rows.assign(time=np.nan)
    half_steps = {run: (epochs / epochs.index.where(epochs > 0)).max() / 2 for run, epochs in times.items()}
    reference = min(times, key=lambda run: len(times[run]))
    kept: dict[tuple[str, int], float] = {}
    for epoch in times[reference]:
        nearest = {run: int((epochs - epoch).abs().idxmin()) for run, epochs in times.items()}
        if all(
            abs(times[run][step] - epoch) <= (half_steps[run] + half_steps[reference]) * (1 + 1e-9)
            for run, step in nearest.items()
        ):
            for place in nearest.items():
                kept.setdefault(place, epoch)
    steps = pd.DataFrame([(*place, time) for place, time in kept.items()], columns=["run", "step", "time"])
    return rows.merge(steps, on=["run", "step"]) if len(steps) else rows.iloc[:0].assign(time=np.nan)
