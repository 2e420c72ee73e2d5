"""Which runs a product would average as seeds of one another, though they differ in more than the seed."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import fields

from sharpness.study.kinds import KINDS
from sharpness.study.run import Run
from sharpness.study.runs import as_record
from sharpness.study.varied import axis_of

_CONFIGURATION = [field.name for field in fields(Run) if field.name != "seed"]
# What follows from other settings: named only where nothing else differs.
_FOLLOWING = ("num_directions", "direction_examples", "direction_tolerance", "direction_products")


def check_pooling(name: str, kind: str, grids: dict[str, list[Run]]) -> Iterator[str]:
    """Say which axes an experiment's products do not tell apart.

    Args:
        name: of the experiment.
        kind: its own.
        grids: its runs, by grid.

    Yields:
        sentences about two runs that are not seeds of one configuration and would be averaged.
    """
    shown = KINDS[kind].shown
    if shown is None:
        return
    first: dict[Hashable, tuple[str, Run]] = {}
    axes = {grid: axis_of(grid, map(as_record, runs)) for grid, runs in grids.items()}
    for grid, run in _members(grids):
        values = shown(axes[grid], run)
        place = (None if KINDS[kind].grids_together else grid, run.data, run.model, *values.values())
        earlier, other = first.setdefault(place, (grid, run))
        differing = [field for field in _CONFIGURATION if getattr(other, field) != getattr(run, field)]
        if differing:
            field = min(differing, key=lambda each: each in _FOLLOWING)
            where = f"grids.{grid}" if earlier == grid else f"grids {earlier} and {grid}"
            at = "".join(f" at {words.replace('_', ' ')} {_text(value)}" for words, value in values.items())
            yield (
                f"experiments.{name}.{where}: {field} is {_text(getattr(other, field))} and "
                f"{_text(getattr(run, field))}{at}, which kind {kind} would average as if they were seeds; "
                f"give each {field} an experiment of its own"
            )


def _members(grids: dict[str, list[Run]]) -> Iterator[tuple[str, Run]]:
    for grid, runs in grids.items():
        yield from ((grid, run) for run in runs)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return str(list(value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else "null" if value is None else str(value)
