"""One tidy table of one measurement over all runs of an experiment."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml

from sharpness.files import write_text
from sharpness.stages import run_stage


def collect(
    experiment: str, grids: list[str], runs: list[str], records: list[Path], tables: list[Path], output: Path
) -> None:
    """Put the runs' tables below one another, with every field of the run in each row.

    Args:
        experiment: its name.
        grids: the name of a grid for each of ``runs``; a run of two grids is listed, and stands in the table, twice.
        runs: names of runs.
        records: the file of each distinct run that holds its fields.
        tables: the runs' tables, each with a column run.
        output: the table.
    """
    fields = pd.DataFrame([yaml.safe_load(path.read_text()) for path in records]).astype({"batch_size": str})
    members = pd.DataFrame({"experiment": experiment, "grid": grids, "run": runs})
    members = members.merge(fields, on="run", validate="m:1")
    measured = pd.concat([pd.read_csv(path) for path in tables if path.stat().st_size > 1], ignore_index=True)
    # A history has the learning rate of each epoch; the run's own is that of the first.
    members = members.drop(columns=[column for column in fields if column in measured and column != "run"])
    write_text(members.merge(measured, on="run").to_csv(index=False), output)


if __name__ == "__main__":
    run_stage(collect)
