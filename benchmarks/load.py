"""When to measure, and until when: times mean little beside other work, and a part has its minutes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
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


class _TimeOver(BaseException):
    """No error: nothing that catches those may keep it."""


@contextmanager
def until(end: float) -> Iterator[None]:
    """Leave the block at a time of the monotonic clock, whatever it is waiting for; for the main thread."""

    def leave(*_: object) -> None:
        raise _TimeOver

    before = signal.signal(signal.SIGALRM, leave)
    signal.setitimer(signal.ITIMER_REAL, max(end - time.monotonic(), 1e-3))
    try:
        yield
    except _TimeOver:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
