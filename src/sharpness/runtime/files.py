"""Files that are whole or not there: written beside their place and moved into it."""

from __future__ import annotations

import csv
import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(OSError):
    """A disk or a quota is full; says so in one sentence, with the file and what is free."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, in the folder of ``path``; it takes the place of ``path`` when the block ends well.

    Raises:
        DiskFullError: there is no space for it.
    """
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield beside
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except Exception as error:
        if is_of_full_disk(error) and not isinstance(error, DiskFullError):
            raise DiskFullError(_full(path)) from error
        raise


def require_space(folder: Path, num_bytes: int) -> None:
    """Try whether so much can be written in a folder: a quota tells by refusing only.

    Raises:
        DiskFullError: it cannot.
    """
    path = folder / f".{os.getpid()}.space"
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
    except OSError as error:
        if is_of_full_disk(error):
            raise DiskFullError(_full(path.with_name("anything"))) from error
    finally:
        with suppress(OSError):
            path.unlink()


def is_of_full_disk(error: Exception) -> bool:
    """Whether an error says that a disk or quota is full; that of a library is known by the system's words in it."""
    if isinstance(error, DiskFullError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(os.strerror(number) in str(error) for number in _FULL)


def _full(path: Path) -> str:
    """The sentence about a disk on which there is no space for a file."""
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    usage = shutil.disk_usage(folder)
    return (
        f"the disk is full, or your quota of it: no space for {path}; "
        f"{usage.free / 2**20:,.0f} of {usage.total / 2**20:,.0f} MiB are free in {folder}"
    )


def write_table(rows: Sequence[Mapping[str, Any]], path: Path, *, otherwise: Iterable[str] = ()) -> None:
    """Write rows as CSV; numbers keep every digit.

    A column that a row lacks is empty in it. No rows at all make a file with the names of the columns ``otherwise``.
    """
    columns = dict.fromkeys(column for row in rows for column in row) or dict.fromkeys(otherwise)
    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_text(text: str, path: Path) -> None:
    """Write a text file."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
