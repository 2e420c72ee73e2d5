"""Refuse files with modification times in the future.

Snakemake considers outputs computed from such a file older than their input, hence corrupted, and removes them; a final
product with such a time is never updated. Standard library only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

# Seconds by which the clock of a file server may be ahead; no job is shorter than that.
_AHEAD = 2.0


class DateError(ValueError):
    """A file is dated in the future; the message is one sentence for the user."""


def check_dates(paths: Iterable[Path | str]) -> None:
    """Check that no file, in folders at any depth, was modified later than now; missing paths are skipped.

    Raises:
        DateError: one was; the message names the latest.
    """
    now = time.time()
    dated = ((_changed(path), path) for top in paths for path in _files(Path(top)))
    latest, path = max(dated, default=(now, Path()))
    if latest > now + _AHEAD:
        later, today = (f"{datetime.fromtimestamp(when):%Y-%m-%d %H:%M:%S}" for when in (latest, now))
        raise DateError(
            f"{path} is dated {later}, in the future (it is {today}), and Snakemake would remove what is computed from "
            "it as corrupted; correct the clock, or date the file now with touch"
        )


def _files(top: Path) -> Iterator[Path]:
    if top.is_dir():
        yield from (Path(folder, name) for folder, _, names in os.walk(top) for name in names)
    else:
        yield top


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
