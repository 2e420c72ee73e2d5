"""One tidy table of what a user's own code measured of all runs of an experiment."""

from __future__ import annotations

from pathlib import Path

from sharpness.runtime.files import write_table
from sharpness.runtime.stage import run_stage
from sharpness.study.identity import NOTHING, SIZE, sized
from sharpness.study.records import read_rows


def collect_own(experiment: str, grids: list[str], runs: list[str], tables: list[Path], output: Path) -> None:
    """Put the runs' tables below one another, with the experiment and the grid of each.

    Args:
        experiment: its name.
        grids: the name of a grid for each of ``runs``.
        runs: names of runs; one of two grids is listed twice.
        tables: a run's table for each of ``runs``.
        output: the table.
    """
    rows = [
        {"experiment": experiment, "grid": grid, **{key: row[key] for key in row if key not in ("stopped", SIZE)}}
        for grid, _, path in zip(grids, runs, tables, strict=True)
        for row in read_rows(path, "own")
        if row.get("stopped") != "True"
    ]
    write_table(sized(rows), output, otherwise=["experiment", "grid", "run", "diverged", NOTHING])


if __name__ == "__main__":
    run_stage(collect_own)
