"""Write files atomically: beside the target, then moved onto it."""

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
    """A disk or a quota is full; the message names the file and the free space."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, which replaces ``path`` if the block succeeds.

    Raises:
        DiskFullError: there is no space for the file.
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
    """Check that ``num_bytes`` can be written to a folder, by allocating them: a quota cannot be queried.

    Raises:
        DiskFullError: they cannot.
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
    """Whether an error means that a disk or quota is full; a library's error contains the system's message."""
    if isinstance(error, DiskFullError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(os.strerror(number) in str(error) for number in _FULL)


def _full(path: Path) -> str:
    """Error message for a file that does not fit."""
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    usage = shutil.disk_usage(folder)
    return (
        f"the disk is full, or your quota of it: no space for {path}; "
        f"{usage.free / 2**20:,.0f} of {usage.total / 2**20:,.0f} MiB are free in {folder}"
    )


def write_table(rows: Sequence[Mapping[str, Any]], path: Path, *, otherwise: Iterable[str] = ()) -> None:
    """Write rows as CSV, with all digits of numbers.

    Missing values are left empty. Without rows, the file has a header with the columns ``otherwise``.
    """
    columns = dict.fromkeys(column for row in rows for column in row) or dict.fromkeys(otherwise)
    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_text(text: str, path: Path) -> None:
    """Write a text file atomically."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
