"""One tidy table of one measurement over all runs of an experiment."""

from __future__ import annotations

from pathlib import Path

from sharpness.runtime.files import write_table
from sharpness.runtime.stage import run_stage
from sharpness.study.identity import NOTHING, SIZE, sized
from sharpness.study.records import Origins, Wanted, check, read_rows


def collect(
    experiment: str,
    measurement: str,
    grids: list[str],
    runs: list[str],
    tables: list[Path],
    wanted: list[str],
    output: Path,
) -> None:
    """Put the runs' tables below one another, with the experiment and the grid of each.

    Args:
        experiment: its name.
        measurement: what the tables hold.
        grids: the name of a grid for each of ``runs``; a run of two grids is listed, and stands in the table, twice.
        runs: names of runs.
        tables: the runs' tables.
        wanted: of each table, what the study asks for; ``Wanted`` in words.
        output: the table.
    """
    measured: dict[str, list[dict[str, str]]] = {run: [] for run in runs}
    origins = Origins()
    columns: dict[str, str] = {}
    for path, words in zip(tables, wanted, strict=True):
        asked = Wanted.of(words, runs, measurement)
        rows = read_rows(path, measurement)
        check(rows, asked, path)
        origins.add(rows, path, measurement=measurement, data=asked.data, training=asked.training)
        columns |= rows[0]
        measured[asked.run] += [row for row in rows if row.pop("stopped", "") != "True"]
    members = zip(grids, runs, strict=True)
    collected = [{"experiment": experiment, "grid": grid, **row} for grid, run in members for row in measured[run]]
    # Where every run stopped before the first planned checkpoint, there is no row.
    names = [name for name in columns if name not in ("stopped", SIZE)]
    write_table(sized(collected), output, otherwise=["experiment", "grid", *names, NOTHING])


if __name__ == "__main__":
    run_stage(collect)
