"""What a user's own function or class measures at each checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Number
from typing import TYPE_CHECKING, Any, ClassVar

from sharpness.runtime import own
from sharpness.runtime.definitions import OwnError
from sharpness.study.identity import MADE_BY, PLACE, SIZE
from sharpness.study.measurement import Measurement
from sharpness.study.runs import FIELDS
from sharpness.study.settings import setting
from sharpness.study.work import Work

if TYPE_CHECKING:
    from sharpness.measurements.landscape import Landscape
    from sharpness.study.run import Run
    from sharpness.training.checkpoints import Snapshot

_TAKEN = {*PLACE, *MADE_BY, SIZE, *FIELDS, "own_code", "experiment", "grid"}


@dataclass(frozen=True)
class Own(Measurement):
    """The rows that ``function(landscape, checkpoint)`` returns, or the method ``rows`` of a class."""

    title: ClassVar = "what a user's own function or class measures"
    columns: ClassVar = {}

    code: str = setting("", "the function or class, file.py:name", minLength=1)

    @property
    def own_code(self) -> tuple[str, ...]:
        return (self.code,)

    def work(self, run: Run) -> Work:
        return Work()

    def when_diverged(self) -> dict[str, object]:
        return {}

    def in_words(self) -> str:
        return self.code

    def rows(self, landscape: Landscape, checkpoint: Snapshot, before: Snapshot | None) -> Iterator[dict[str, object]]:
        place = own.place_of_definition(self.code)
        for row in self._returned(landscape, checkpoint, before, place):
            if not isinstance(row, Mapping) or not row:
                raise OwnError(f"{place}: must return rows by column, as {{'norm': 1.5}}, got {row!r}")
            if taken := [key for key in row if key in _TAKEN]:
                raise OwnError(f"{place}: the column {taken[0]!r} has a meaning in every table; give it another name")
            yield {str(key): _plain(value, key, place) for key, value in row.items()}

    def _returned(
        self, landscape: Landscape, checkpoint: Snapshot, before: Snapshot | None, place: str
    ) -> Iterable[Any]:
        probe = _probe(self.code)
        function = getattr(probe, "rows", probe)
        if not callable(function):
            raise OwnError(f"{place}: must be a function, or a class with a method rows, is {type(function).__name__}")
        words = (landscape, checkpoint, before) if _takes_three(function) else (landscape, checkpoint)
        # The rows of a generator are computed here, so that its errors have the user's line.
        returned = own.call(self.code, lambda: _listed(function(*words)))
        if not isinstance(returned, list):
            raise OwnError(f"{place}: must return a row, {{'norm': 1.5}}, or rows, got {type(returned).__name__}")
        return returned


def _listed(returned: Any) -> Any:
    if isinstance(returned, Mapping):
        return [returned]
    return list(returned) if isinstance(returned, Iterable) and not isinstance(returned, str) else returned


@cache
def _probe(code: str) -> Any:
    """The function, or an object of the class, which all checkpoints of a job share."""
    found = own.load(code)
    return own.call(code, found) if inspect.isclass(found) else found


def _takes_three(function: Any) -> bool:
    parameters = inspect.signature(function).parameters.values()
    placed = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return len(placed) > 2 or any(each.kind == each.VAR_POSITIONAL for each in parameters)


def _plain(value: Any, key: object, place: str) -> object:
    # A tensor of torch has numel, one of numpy a size that is a number.
    size = value.numel() if hasattr(value, "numel") else getattr(value, "size", 0)
    if hasattr(value, "item") and size == 1:
        value = value.item()
    if isinstance(value, str) and "\r" in value:
        raise OwnError(f"{place}: the column {key!r} must hold no carriage return, got {value!r}")
    if value is None or isinstance(value, str | bool | Number):
        return value
    raise OwnError(f"{place}: the column {key!r} must hold numbers or words, got {type(value).__name__}")


MEASUREMENT = Own
