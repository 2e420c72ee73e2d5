"""Draw a figure of the user's own from the tables of an experiment."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sharpness.analysis.figures.style import style
from sharpness.analysis.reading import planned_runs, read_measured
from sharpness.report.provenance import made_by
from sharpness.runtime import own
from sharpness.runtime.files import replacing
from sharpness.runtime.own import OwnError
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
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    of_study = planned_runs(runs)
    frames = {
        name: read_measured(table, measurement, of_study)
        for name, measurement, table in zip(names, measurements, tables, strict=True)
    }
    with style():
        picture = _drawn(code, frames)
        for output in outputs:
            with replacing(output) as beside:
                source = made_by(frames.values())
                metadata = {"CreationDate": None, "Subject": source} if output.suffix == ".pdf" else {"Source": source}
                picture.savefig(beside, format=output.suffix[1:], metadata=metadata)


def _drawn(code: str, frames: dict[str, pd.DataFrame]) -> Figure:
    draw, place = own.load(code), own.place_of_definition(code)
    if not callable(draw):
        raise OwnError(f"{place}: must be a function that returns a matplotlib figure, is a {type(draw).__name__}")
    parameters = inspect.signature(draw).parameters.values()
    takes_all = any(each.kind == each.VAR_KEYWORD for each in parameters)
    wanted = {each.name: each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    for name, each in wanted.items():
        if name not in frames and each.default is each.empty:
            raise OwnError(f"{place}: there is no table {name!r}, the tables are {', '.join(frames)}")
    chosen = {name: frame.copy() for name, frame in frames.items() if takes_all or name in wanted}
    picture = own.call(code, draw, **chosen)
    if not isinstance(picture, Figure):
        raise OwnError(f"{place}: must return a matplotlib figure, got {type(picture).__name__}")
    return picture


if __name__ == "__main__":
    run_stage(figure_own)
