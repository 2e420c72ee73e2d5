"""Tables that are read: whole, with the columns that they are to have, and of one origin."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from sharpness.study.identity import SIZE
from sharpness.study.records import NOTHING, Origins, RecordError, read_rows

# Hexadecimal digits that may look like a number, and what may be empty everywhere.
_TEXTS = ("code", "trained_by", "settings_digest", "data_digest", "torch", "kernels")
_OF_ORIGIN = ("gamma", "gamma_outside", "data", "code", "torch", "data_digest", "trained_by")


def read_table(path: Path, measurement: str | None = None) -> pd.DataFrame:
    """A table with the columns of its file.

    Args:
        path: the file.
        measurement: what was collected in it; None for one of another kind.

    Raises:
        RecordError: it is empty, cut short or lacks a column.
    """
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(_TEXTS, str))
    except ValueError as error:  # pandas' own errors, and text that is none
        raise RecordError(f"{path} is damaged or empty ({' '.join(str(error).split())})") from None
    # Published by an older version, a table has none of these.
    if measurement is not None and {SIZE, NOTHING, "kernels", "data_digest", "settings_digest"} & set(table):
        read_rows(path, measurement)
    return table


def check_origins(tables: Iterable[tuple[str, Path, pd.DataFrame]]) -> None:
    """Check that the tables of a study were computed by one code of each stage, one torch, and of one data set.

    Args:
        tables: measurement, file and content of each; those of an older version do not say enough and pass.

    Raises:
        RecordError: two were not.
    """
    origins = Origins()
    for measurement, path, table in tables:
        if SIZE in table:
            columns = [column for column in _OF_ORIGIN if column in table]
            origins.add(table[columns].drop_duplicates().astype(str).to_dict("records"), measurement, path)
