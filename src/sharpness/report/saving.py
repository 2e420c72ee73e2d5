"""A figure as files."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sharpness.report.provenance import made_by
from sharpness.runtime.files import replacing


def save(picture: Figure, outputs: Iterable[Path], frames: Iterable[pd.DataFrame]) -> None:
    """Write a figure in the format of each output's ending, with what computed the tables that it is drawn from.

    There is no date in the files: they change with their tables, or by the rounding of the layout's solver.
    """
    # Which glyphs of a font a PDF keeps, in pages.
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    source = made_by(frames)
    for output in outputs:
        metadata = {"CreationDate": None, "Subject": source} if output.suffix == ".pdf" else {"Source": source}
        with replacing(output) as beside:
            picture.savefig(beside, format=output.suffix[1:], metadata=metadata)
