"""From each cell of a table of results to its runs, by its row, and to what was measured on them, by its column."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sharpness.analysis.agreement import label_ways
from sharpness.study.naming import subject

if TYPE_CHECKING:
    import pandas as pd

# What stands in a column, by how its header begins: measurement, column of its table, checkpoint, and how it is taken.
_MEAN = "mean and standard deviation over the row's runs"
_COLUMNS = {
    "‖H‖_F": (
        "spectrum",
        "eigenvalue",
        "best and last checkpoint",
        f"root of the sum of squares over ranks, then {_MEAN}",
    ),
    "stochastic": ("spectrum", "frobenius_norm", "best and last checkpoint", _MEAN),
    "Test acc.": ("history", "test_accuracy", "best checkpoint", _MEAN),
    "Val. acc.": ("history", "validation_accuracy", "the epoch that the header names", _MEAN),
    "Loss": ("history", "training_loss", "last epoch", _MEAN),
    "Dist.": ("history", "distance", "best checkpoint", _MEAN),
}
_FIELDS = {"gamma": "gamma", "sgd": "learning_rate"}  # by which a grid's runs are told apart
# The same for the quantities by which a cheaper setting is compared with its reference.
_BESIDE = "the row's way less its reference, of one seed each, then mean and spread"
_QUANTITIES = {
    "largest eigenvalue": ("spectrum", "eigenvalue", "every checkpoint after the first", f"log10 of rank 0; {_BESIDE}"),
    "frobenius norm": (
        "spectrum",
        "eigenvalue",
        "last checkpoint",
        f"log10 of the root of the sum of squares; {_BESIDE}",
    ),
    "test accuracy": ("history", "test_accuracy", "last epoch", _BESIDE),
    "training loss": ("history", "training_loss", "last epoch", f"log10; {_BESIDE}"),
}
_ROW = re.compile(r"<tr>\n<td([^>]*)>(.*?)</td>\n(.*?)</tr>", re.DOTALL)
_CELL = re.compile(r"<td([^>]*)>(.*?)</td>", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """The runs behind one row."""

    label: str
    runs: Sequence[str]
    diverged: Sequence[str]  # those of them that are in no mean


@dataclass(frozen=True)
class Column:
    """What is read from each of these runs for one column."""

    title: str
    table: str  # CSV, by name
    column: str
    where: str  # at which checkpoint or epoch
    how: str


@dataclass(frozen=True)
class Cells:
    """Where the cells of a table of results come from."""

    rows: Sequence[Row]  # in the table's order
    columns: Sequence[Column]


def cells_of(experiment: str, text: str, results: pd.DataFrame, history: pd.DataFrame) -> Cells:
    """Where the cells of a table of results come from.

    Args:
        experiment: that the table is of.
        text: the table as Markdown.
        results: the same as ``analysis.tables.results_table`` or ``analysis.agreement.compare`` returns it.
        history: the collected history of the experiment.
    """
    if "way" in results:
        return Cells(_of_ways(results, history), _columns(experiment, _QUANTITIES.items()))
    # In Markdown rows stand together by network and data set, in the order in which these come first.
    blocks = [rows for _, rows in results.groupby(["data", "model"], sort=False)]
    header = next((line for line in text.splitlines() if line.startswith("| γ |")), "")
    titles = [title.strip() for title in header.strip("|").split("|")][1:]
    columns = [(title, source) for title in titles for begin, source in _COLUMNS.items() if title.startswith(begin)]
    return Cells(
        [_row(row, history) for rows in blocks for row in rows.to_dict("records")],
        _columns(experiment, columns),
    )


def linked(html: str, cells: Cells, target: str) -> str:
    """Link every cell of the rows that are of this study to what its row is made of.

    Args:
        html: the table, or several, one behind the other; the poster's own rows come last.
        cells: where they come from.
        target: prefix of the places that cells lead to: ``<target>-1`` for the first row.
    """
    numbers = iter(range(1, len(cells.rows) + 1))

    def of_row(found: re.Match[str]) -> str:
        if (number := next(numbers, None)) is None:
            return found[0]
        others = _CELL.sub(rf'<td\1><a href="#{target}-{number}" tabindex="-1">\2</a></td>', found[3])
        # With the keyboard one link a row is enough: all of them lead to the same place.
        return f'<tr>\n<td{found[1]}><a href="#{target}-{number}">{found[2]}</a></td>\n{others}</tr>'

    return _ROW.sub(of_row, html)


def _columns(experiment: str, columns: Iterable[tuple[str, tuple[str, str, str, str]]]) -> list[Column]:
    return [Column(title, f"{experiment}_{name}", *taken) for title, (name, *taken) in columns]


def _of_ways(results: pd.DataFrame, history: pd.DataFrame) -> list[Row]:
    ways, names = label_ways(history), ["data", "model", "grid"]
    lost = set(history.loc[history["diverged"].astype(bool), "run"])
    rows = []
    for row in results.to_dict("records"):
        is_here = (ways[names] == [row[name] for name in names]).all(axis=1)
        runs = list(dict.fromkeys(ways.loc[is_here & ways["way"].isin([row["way"], row["reference"]]), "run"]))
        label = f"{row['grid']}: {row['way']} beside {row['reference']}, {row['quantity']}"
        rows.append(Row(label, runs, [run for run in runs if run in lost]))
    return rows


def _row(row: dict[str, object], history: pd.DataFrame) -> Row:
    field = _FIELDS[str(row["grid"])]
    of_row = (history["data"] == row["data"]) & (history["model"] == row["model"]) & (history["grid"] == row["grid"])
    found = history[of_row & (history[field] == row["setting"])]
    runs = list(dict.fromkeys(found["run"]))
    diverged = set(found.loc[found["diverged"].astype(bool), "run"])
    label = f"{subject(str(row['model']), str(row['data']))}, {'γ = ' * (field == 'gamma')}{row['label']}"
    return Row(label, runs, [run for run in runs if run in diverged])
