"""Files that are whole or not there: written beside their place and moved into it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, in the folder of ``path``; it takes the place of ``path`` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_table(rows: Sequence[Mapping[str, Any]], path: Path, *, otherwise: Iterable[str] = ()) -> None:
    """Write rows as CSV; numbers keep every digit.

    A column that a row lacks is empty in it. No rows at all make a file with the names of the columns ``otherwise``.
    """
    columns = dict.fromkeys(column for row in rows for column in row) or dict.fromkeys(otherwise)
    with replacing(path) as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_text(text: str, path: Path) -> None:
    """Write a text file."""
    with replacing(path) as beside:
        beside.write_text(text)
