"""Try a user's own measurement before anything trains for it: what it must not return is told at once."""

from __future__ import annotations

from pathlib import Path

import yaml

from sharpness.measurements.landscape import landscape_of
from sharpness.measurements.own import Own
from sharpness.runtime.device import choose_device
from sharpness.runtime.files import write_text
from sharpness.runtime.stage import run_stage
from sharpness.study.run import Run
from sharpness.training.checkpoints import Snapshot


def try_probe(run: Run, data: Path, code: str, output: Path) -> None:
    """Measure a run's weights before training by the user's code, and write down which columns there are.

    Args:
        run: one of those that are measured.
        data: the prepared data set.
        code: the function or class, file.py:name.
        output: the columns and what each holds, as YAML.

    Raises:
        OwnError: the code fails, or returns something else than rows.
    """
    landscape = landscape_of(run, data, choose_device(threads=1))
    assert landscape.start is not None
    first = Snapshot(0, *landscape.start, run.learning_rate * run.rates.factor(0))
    rows = list(Own(code=code).rows(landscape, first, None))
    columns = {column: type(value).__name__ for row in rows for column, value in row.items()}
    write_text(yaml.safe_dump({"measurement": code, "run": run.name, "columns": columns}, sort_keys=False), output)


if __name__ == "__main__":
    run_stage(try_probe)
