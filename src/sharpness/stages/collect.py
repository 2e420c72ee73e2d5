"""One tidy table of one measurement over all runs of an experiment."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sharpness.files import write_text
from sharpness.stages import run_stage


def collect(experiment: str, grids: list[str], runs: list[str], tables: list[Path], output: Path) -> None:
    """Put the runs' tables below one another, with the experiment and the grid of each.

    Args:
        experiment: its name.
        grids: the name of a grid for each of ``runs``; a run of two grids is listed, and stands in the table, twice.
        runs: names of runs.
        tables: the runs' tables, each with the run and its fields in every row.
        output: the table.
    """
    members = pd.DataFrame({"experiment": experiment, "grid": grids, "run": runs})
    # A batch size is a number or "full".
    measured = [pd.read_csv(path, dtype={"batch_size": str}) for path in tables if path.stat().st_size > 1]
    # Where every run stopped before the first planned checkpoint there is no row, and the names of the columns alone.
    rows = members.merge(pd.concat(measured, ignore_index=True), on="run") if measured else members.iloc[:0]
    write_text(rows.to_csv(index=False), output)


if __name__ == "__main__":
    run_stage(collect)
