"""Try a user's own figure on made-up tables, before anything is measured for it: what it returns is known then."""

from __future__ import annotations

from pathlib import Path

import yaml

from sharpness.analysis.figures.style import style
from sharpness.analysis.own import check_figure, drawn, made_up
from sharpness.analysis.reading import planned_runs, with_runs
from sharpness.runtime.definitions import OwnError
from sharpness.runtime.files import write_text
from sharpness.runtime.stage import run_stage


def try_figure(
    code: str,
    names: list[str],
    measurements: list[str],
    trials: list[Path],
    grids: list[str],
    members: list[str],
    runs: str,
    output: Path,
) -> None:
    """Draw a figure by the user's function from made-up tables, and write down what came of it.

    That it fails on them decides nothing, unless by a name that is not defined: it may ask for more than they have.

    Args:
        code: the function, file.py:name.
        names: of the tables, as arguments.
        measurements: what each holds.
        trials: of the user's own measurements among these, in their order.
        grids: the name of a grid for each of ``members``.
        members: names of runs.
        runs: the experiment's, as ``sharpness.study.runs`` makes a table of them.
        output: whether it was drawn, as YAML.

    Raises:
        OwnError: it cannot be imported, or returns something that is no figure.
    """
    of_study, columns = planned_runs(runs), map(_columns, trials)
    frames = {
        name: with_runs(
            made_up(
                measurement,
                zip(grids, members, strict=True),
                of_study,
                next(columns) if measurement == "own" else None,
            ),
            of_study,
            Path(name),
        )
        for name, measurement in zip(names, measurements, strict=True)
    }
    told = {"figure": code, "tables": names, "drawn": True}
    try:
        with style():
            picture = drawn(code, frames)
    except OwnError as error:
        if error.__cause__ is None or type(error.__cause__) is NameError or isinstance(error.__cause__, ImportError):
            raise
        told |= {"drawn": False, "on made-up numbers": str(error)}
    else:
        # Nothing may be what it returns where there is too little to draw.
        if picture is not None:
            check_figure(code, picture)
    write_text(yaml.safe_dump(told, sort_keys=False), output)


def _columns(trial: Path) -> dict[str, str]:
    """The columns that a user's own measurement had when it was tried, each with its type."""
    found: dict[str, str] = yaml.safe_load(trial.read_text(encoding="utf-8"))["columns"]
    return found


if __name__ == "__main__":
    run_stage(try_figure)
