"""Handle requests to stop: SIGTERM, which Slurm sends some seconds before it kills, and SIGINT."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """The process received a signal to stop; ``signal`` is its number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


class Interruption:
    """Context in which a signal is deferred until it is safe to stop."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._at_once = False
        self._earlier: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        self._earlier = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def check(self) -> None:
        """Stop here if a signal was received.

        Raises:
            Interrupted: it was.
        """
        if self._received is not None:
            raise Interrupted(self._received)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Context of work without side effects, which a signal may interrupt at any point."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def _receive(self, number: int, _: FrameType | None) -> None:
        self._received = number
        if self._at_once:
            self._at_once = False
            raise Interrupted(number)
