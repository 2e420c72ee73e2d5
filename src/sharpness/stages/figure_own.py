"""Draw a figure of the user's own from the tables of an experiment."""

from __future__ import annotations

from pathlib import Path

from sharpness.analysis.figures.style import style
from sharpness.analysis.own import check_figure, drawn
from sharpness.analysis.reading import planned_runs, read_measured
from sharpness.report.saving import save
from sharpness.runtime.stage import run_stage


def figure_own(
    code: str, names: list[str], measurements: list[str], tables: list[Path], runs: str, outputs: list[Path]
) -> None:
    """Draw a figure by the user's function, which gets the tables that its arguments name.

    Args:
        code: the function, file.py:name.
        names: of the tables, as arguments.
        measurements: what each holds.
        tables: collected ones.
        runs: the experiment's, as ``sharpness.study.runs`` makes a table of them.
        outputs: the files.
    """
    of_study = planned_runs(runs)
    frames = {
        name: read_measured(table, measurement, of_study)
        for name, measurement, table in zip(names, measurements, tables, strict=True)
    }
    with style():
        save(check_figure(code, drawn(code, frames)), outputs, frames.values())


if __name__ == "__main__":
    run_stage(figure_own)
