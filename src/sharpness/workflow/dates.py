"""Files dated in the future: Snakemake takes what is computed from one for older, hence corrupted, and removes it.

One that is a last product stays for ever, whatever changes before it.

Standard library only: the workflow asks before it starts anything expensive.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

# Seconds by which the clock of a file server may be ahead; no job ends sooner than that.
_AHEAD = 2.0


class DateError(ValueError):
    """A file is dated in the future; the message is one sentence for the user."""


def check_dates(paths: Iterable[Path | str]) -> None:
    """Check that no file, and no file below a folder, was changed later than now; what is not there passes.

    Raises:
        DateError: about the latest one.
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
