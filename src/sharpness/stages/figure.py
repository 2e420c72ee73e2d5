"""Draw one figure from its tables."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path

from sharpness.analysis.figures.style import style
from sharpness.analysis.reading import planned_runs, read_measured
from sharpness.report.provenance import made_by
from sharpness.runtime.files import replacing
from sharpness.runtime.stage import run_stage


def figure(name: str, measurements: list[str], tables: list[Path], runs: str, outputs: list[Path]) -> None:
    """Draw the figure ``name`` from a table for each of its measurements, in the format of each output's ending.

    Args:
        name: of its function.
        measurements: in the order of the tables.
        tables: collected ones.
        runs: the experiment's, as ``sharpness.study.runs`` makes a table of them.
        outputs: the files.
    """
    # Which glyphs of a font a PDF keeps, in pages.
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    draw = getattr(import_module(f"sharpness.analysis.figures.{name}"), name)
    of_study = planned_runs(runs)
    frames = {
        measurement: read_measured(table, measurement, of_study)
        for measurement, table in zip(measurements, tables, strict=True)
    }
    with style():
        picture = draw(**frames)
        for output in outputs:
            with replacing(output) as beside:
                # No date in the file: it changes with its table, or by the rounding of the layout's solver.
                source = made_by(frames.values())
                metadata = {"CreationDate": None, "Subject": source} if output.suffix == ".pdf" else {"Source": source}
                picture.savefig(beside, format=output.suffix[1:], metadata=metadata)


if __name__ == "__main__":
    run_stage(figure)
