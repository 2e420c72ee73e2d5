"""What else the machine is doing: times mean little beside other work."""

from __future__ import annotations

import os
import time
from pathlib import Path

# Share of one core that the rest of the machine may use, and the seconds it is watched for.
_QUIET, _WATCHED = 0.25, 0.5


def busy_seconds() -> float:
    """CPU time that all processes of the machine have used since it started."""
    user, nice, system = Path("/proc/stat").read_text(encoding="utf-8").split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def wait_for_quiet(*, at_most: float) -> None:
    """Return when the machine has been idle for a moment, or after ``at_most`` seconds."""
    end = time.monotonic() + at_most
    while time.monotonic() < end:
        before = busy_seconds()
        time.sleep(_WATCHED)
        if busy_seconds() - before < _QUIET * _WATCHED:
            return
