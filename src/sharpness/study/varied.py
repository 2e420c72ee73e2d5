"""What the runs of a grid differ in: the axis along which figures, tables and claims show them.

Grids may have any name. Free of torch and pandas: the workflow imports it each time it plans.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sharpness.study import nested
from sharpness.study.optimizers import OPTIMIZERS, SCHEDULES, filled
from sharpness.study.runs import COLUMNS, FIELDS

Value = TypeVar("Value", bound=Hashable)

_PANELS = ("data", "model")  # runs that differ in these have panels of their own
_KNOWN = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
# What only a nudged run has, and what follows from the number of examples.
_OF_NUDGED = (
    "num_directions",
    "direction_examples",
    "direction_tolerance",
    "direction_products",
    "direction_precision",
)
_NUMBERS = ("learning_rate", "batch_size", "gamma")
_CHANGES = ("learning_rate_epochs", "learning_rate_factor")
_NAMES = {"gamma": "γ", "loss_function": "loss", "plateau_patience": "patience of the plateau"}


@dataclass(frozen=True)
class Axis:
    """A field of runs, or a key of one that is a mapping, which tells the runs of a grid apart."""

    field: str  # as tables name it: learning_rate, optimizer, optimizer.beta2, model_args.width

    @property
    def key(self) -> str:
        """As a study writes it: ``learning_rate``, ``beta2``."""
        return self.field.rpartition(".")[2]

    @property
    def words(self) -> str:
        """Its name for people: ``learning rate``, ``beta2``."""
        return _NAMES.get(self.field, self.key.replace("_", " "))

    @property
    def column(self) -> str:
        """The column of a table that has its values: the field's own, where these are numbers everywhere."""
        return self.field if self.field in _NUMBERS else f"shown {self.field}"

    def value(self, run: Mapping[str, Any]) -> Any:
        """A number or words.

        Args:
            run: its fields, as tables name them.
        """
        field, _, key = self.field.partition(".")
        if key:
            found = _mapping(field, run).get(key)
            return _plain(found) if not isinstance(found, list | dict) else json.dumps(found)
        if field in _WORDS:
            return _WORDS[field](run)
        return _plain(run[field])


def axis_of(grid: str, runs: Iterable[Mapping[str, Any]]) -> Axis:
    """Say along what the runs of a grid are shown: what they differ in; of several fields the one of the grid's name.

    Where they differ in nothing but their seeds, it is the field of the grid's name, else gamma for nudged runs, else
    the learning rate.

    Args:
        grid: its name.
        runs: the fields of each, as tables name them.
    """
    runs = list(runs)
    name, found = COLUMNS.get(grid, grid), axes_of(runs)
    for axis in found:
        if name in (axis.field, axis.field.rpartition(".")[2]):
            return axis
    if found:
        return next((axis for axis in found if axis.field == "learning_rate"), found[0])
    if name in FIELDS and name not in ("seed", *_PANELS, *nested.MAPPINGS):
        return Axis(name)
    return Axis("gamma" if any(_is_nudged(run) for run in runs) else "learning_rate")


def axes_of(runs: Sequence[Mapping[str, Any]]) -> list[Axis]:
    """List everything in which runs of one network on its data differ beside their seeds, in the order of the fields.

    Args:
        runs: the fields of each, as tables name them.
    """
    groups: dict[Hashable, list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault(tuple(run.get(field) for field in _PANELS), []).append(run)
    return list(dict.fromkeys(axis for group in groups.values() for axis in _axes_within(group)))


def in_order(values: Iterable[Value]) -> list[Value]:
    """Sort what an axis takes: numbers ascending and the full batch last; words stay as they are met."""
    found = list(dict.fromkeys(values))
    if all(value == "full" or not isinstance(value, str) for value in found):
        return sorted(found, key=lambda value: float("inf") if value == "full" else float(value))  # type: ignore[arg-type]
    return found


def _axes_within(runs: Sequence[Mapping[str, Any]]) -> Iterator[Axis]:
    differing = [field for field in FIELDS if field not in ("seed", *_PANELS) and _differs(field, runs)]
    if "optimizer" in differing:
        yield from _within_mapping("optimizer", runs, absorbed=["momentum"] if "momentum" in differing else [])
    # Among runs that wait for no plateau, a patience is a schedule of its own.
    is_schedule = "learning_rate_epochs" in differing or any(
        _plain(run.get("plateau_patience")) == "null" for run in runs
    )
    if "schedule" in differing or ("plateau_patience" in differing and is_schedule):
        yield from _within_mapping(
            "schedule", runs, absorbed=[each for each in (*_CHANGES, "plateau_patience") if each in differing]
        )
        differing = [field for field in differing if field not in (*_CHANGES, "plateau_patience")]
    if "model_args" in differing:
        yield from _within_mapping("model_args", runs, absorbed=[])
    for field in differing:
        if field in nested.MAPPINGS or (field == "momentum" and "optimizer" in differing):
            continue
        if field == "learning_rate_factor" and "learning_rate_epochs" in differing and not _differs_where_used(runs):
            continue  # of a rate that never changes there is no factor
        yield Axis(field)


def _within_mapping(field: str, runs: Sequence[Mapping[str, Any]], *, absorbed: Sequence[str]) -> Iterator[Axis]:
    """The one key in which mappings differ, or the field as a whole."""
    mappings = [_mapping(field, run) for run in runs]
    keys = dict.fromkeys(key for mapping in mappings for key in mapping)
    differing = [key for key in keys if len({json.dumps(mapping.get(key)) for mapping in mappings}) > 1]
    is_one = len(differing) == 1 and differing != ["name"] and not absorbed
    yield Axis(f"{field}.{differing[0]}" if is_one else field)


def _differs(field: str, runs: Sequence[Mapping[str, Any]]) -> bool:
    if field in _OF_NUDGED:
        runs = [run for run in runs if _is_nudged(run)]
    values = {_plain(run.get(field)) for run in runs}
    if field == "batch_size" and len(values) > 1:
        # Of fewer examples the same batch may be all of them.
        values = {run["num_training"] if run[field] == "full" else run[field] for run in runs}
    return len(values) > 1


def _differs_where_used(runs: Sequence[Mapping[str, Any]]) -> bool:
    return len({run["learning_rate_factor"] for run in runs if _plain(run["learning_rate_epochs"]) != "null"}) > 1


def _is_nudged(run: Mapping[str, Any]) -> bool:
    return (run["gamma"], run["gamma_outside"]) != (1, 1)


def _mapping(field: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping of a run with all its settings; of SGD and of the constant schedule none."""
    told = nested.as_mapping(run[field])
    return {"name": told["name"], **filled(told, _KNOWN[field])} if told and field in _KNOWN else told


def _plain(value: Any) -> Any:
    """A value of a run or of a table's cell; null and an empty list are words too."""
    if value is None or value != value or value == "":
        return "null"
    if isinstance(value, bool) or type(value).__name__ == "bool_":  # numpy's, too
        return str(bool(value)).lower()
    return value


def mapping_in_words(text: str) -> str:
    """``adamw (beta2 0.95)``; of arguments without a name, ``depth 2, width 64``."""
    told = nested.as_mapping(text)
    name = str(told.pop("name", ""))
    settings = ", ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in told.items()
    )
    return f"{name} ({settings})" if name and settings else name or settings


def _optimizer_in_words(run: Mapping[str, Any]) -> str:
    if run["optimizer"] != nested.EMPTY:
        return mapping_in_words(run["optimizer"])
    return f"heavy ball (momentum {run['momentum']:g})" if run["momentum"] else "sgd"


def _schedule_in_words(run: Mapping[str, Any]) -> str:
    parts = [] if run["schedule"] == nested.EMPTY else [mapping_in_words(run["schedule"])]
    if (epochs := _plain(run["learning_rate_epochs"])) != "null":
        parts.append(f"times {run['learning_rate_factor']:g} after epoch {', '.join(str(epochs).split())}")
    if (patience := _plain(run["plateau_patience"])) != "null":
        parts.append(f"plateau (patience {patience:g})")
    return ", ".join(parts) or "constant"


_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "optimizer": _optimizer_in_words,
    "schedule": _schedule_in_words,
    "model_args": lambda run: mapping_in_words(run["model_args"]) or "none",
}
