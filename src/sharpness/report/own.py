"""What the report shows of a user's own code: its figures, and what it measured at the end of each run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from sharpness.analysis.axes import differing_in_words
from sharpness.analysis.reading import read_measured
from sharpness.report.cells import Cells, Column, Row
from sharpness.report.page import Caption, Picture, Table
from sharpness.runtime import own
from sharpness.study.identity import MADE_BY, PLACE
from sharpness.study.paths import StudyFolder
from sharpness.study.plan import Study
from sharpness.study.records import RecordError
from sharpness.study.runs import FIELDS

# Of a table on the page; the file has all.
_MOST_ROWS = 40
_MOST_COLUMNS = 8


def image_in(path: Path) -> bytes:
    """Read a figure.

    Raises:
        RecordError: it is damaged or cut short.
    """
    content = path.read_bytes()
    # It ends with a chunk of that name and its check sum.
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or content[-8:-4] != b"IEND":
        raise RecordError(f"{path} is damaged or cut short: remove it, and it is drawn anew")
    return content


def own_pictures(study: Study, folder: StudyFolder) -> Iterator[Picture]:
    """The figures of the user's own, each with what its function says of itself as its caption."""
    for experiment in study.experiments.values():
        for name, code in experiment.own_drawings.items():
            path = Path(folder.figure(name, "png"))
            if path.exists():  # of what was published before, it may be none
                yield Picture(
                    name=name,
                    image=image_in(path),
                    alt=_caption(code).title,
                    caption=_caption(code),
                    measured=study.caption_for_people(experiment.name),
                    interactive=None,
                )


def own_tables(study: Study, folder: StudyFolder, runs: pd.DataFrame) -> Iterator[Table]:
    """What the user's own code measured: the last checkpoint of each run, as far as there is room.

    Args:
        study: whose experiments have measurements of the user's own.
        folder: of its results.
        runs: the study's.
    """
    for experiment in study.experiments.values():
        for name, code in experiment.own_tables.items():
            path = Path(folder.table(name))
            if path.exists():
                caption = _caption(code, "The last checkpoint that was measured of each run.")
                table = read_measured(path, "own", runs)
                yield Table(name, _at_the_end(table), caption, _cells(name, table))


def _caption(code: str, otherwise: str = "") -> Caption:
    """The first line of a docstring as the title, and the rest below it, with the code that it is of."""
    found = own.definition(code)
    title, _, rest = (found.docstring if found else "").strip().partition("\n")
    body = [rest.strip(), otherwise, f"By `{code}`."]
    return Caption(title.rstrip(".") or own.name_of(code).replace("_", " "), "\n\n".join(filter(None, body)))


def _ends(table: pd.DataFrame) -> pd.DataFrame:
    """The last checkpoint of each run."""
    ends = table.sort_values("step", kind="stable") if len(table) else table
    return ends.drop_duplicates(["grid", "run"], keep="last").sort_index()


def _columns(table: pd.DataFrame) -> list[str]:
    beside = {*PLACE, *MADE_BY, *FIELDS, "experiment", "grid", "own_code", "table_size"}
    return [column for column in table if column not in beside][:_MOST_COLUMNS]


def _cells(name: str, table: pd.DataFrame) -> Cells:
    """Where the cells come from: each row is of one run."""
    rows = [Row(f"{run} at epoch {epoch:g}", [run], []) for run, epoch in _ends(table)[["run", "epoch"]].to_numpy()]
    columns = [Column(column, name, column, "the epoch of the row", "as it is") for column in _columns(table)]
    return Cells(rows[:_MOST_ROWS], columns)


def _at_the_end(table: pd.DataFrame) -> str:
    """A row for each run, its name and what was measured, in Markdown."""
    ends, columns = _ends(table), _columns(table)
    rows = [["Run", "Epoch", *columns], ["---"] * 2 + ["---:"] * len(columns)]
    for run, last in zip(ends["run"].head(_MOST_ROWS), ends.head(_MOST_ROWS).to_dict("records"), strict=True):
        words = differing_in_words(table[table["run"] == run], table, beside=()) or str(run)
        seeds = f", seed {last['seed']}" if table["seed"].nunique() > 1 else ""
        rows.append([f"{words}{seeds}", f"{last['epoch']:g}", *(_cell(last[column]) for column in columns)])
    left = len(ends) - _MOST_ROWS
    beyond = f"\n\n{left} more runs stand in the file." if left > 0 else ""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + beyond


def _cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", r"\|")
