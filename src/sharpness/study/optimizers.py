"""The optimizers and learning-rate schedules that a study may name, with their settings. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sharpness.study.schema_words import known_words
from sharpness.study.settings import unmet

_FACTOR = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
_EPSILON = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
_MOMENTS = {"beta1": (0.9, _FACTOR), "beta2": (0.999, _FACTOR), "epsilon": (1e-8, _EPSILON)}

OPTIMIZERS: dict[str, dict[str, tuple[float, dict[str, Any]]]] = {
    "sgd": {"momentum": (0.0, _FACTOR)},
    "heavy_ball": {"momentum": (0.9, _FACTOR)},
    "nesterov": {"momentum": (0.9, _FACTOR)},
    "adam": _MOMENTS,
    "adamw": _MOMENTS | {"weight_decay": (0.01, {"type": "number", "minimum": 0, "maximum": 1000})},
    "rmsprop": {"decay": (0.99, _FACTOR), "epsilon": (1e-8, _EPSILON), "momentum": (0.0, _FACTOR)},
}
"""Each optimizer's settings with their defaults, which are torch's, and their ranges."""

PRECONDITIONED = ("adam", "adamw", "rmsprop")
"""Those that divide each weight's step by the root of its squared gradients' running mean."""

_EPOCHS = {"type": "number", "minimum": 0, "maximum": 100_000}
_WARMUP = {"warmup": (0.0, _EPOCHS)}
_END = _WARMUP | {"end": (0.0, {"type": "number", "minimum": 0, "maximum": 1})}
SCHEDULES: dict[str, dict[str, tuple[Any, dict[str, Any]]]] = {
    "constant": _WARMUP,
    "cosine": _END,
    "linear": _END,
    "steps": _WARMUP
    | {
        "epochs": ((), {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 100_000}}),
        "factor": (0.1, {"type": "number", "exclusiveMinimum": 0, "maximum": 1000}),
    },
    "plateau": _WARMUP | {"patience": (5, {"type": "integer", "minimum": 1, "maximum": 100_000})},
}
"""Each schedule's settings: warm-up in epochs, the rate at the end as a fraction of the learning rate, ..."""


def checked(given: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Check a mapping with the name of an optimizer or a schedule, and return it without what is as by default.

    Raises:
        ValueError: the name or a setting is unknown, or a value is out of its range.
    """
    if not given:
        return {}
    if "name" not in given:
        raise ValueError(f"lacks the key 'name', known are {', '.join(known)}")
    name = given["name"]
    if name not in known:
        raise ValueError(f"has the name {name!r}, {known_words(str(name), known)}")
    told = {"name": name}
    for key, value in given.items():
        if key == "name":
            continue
        if key not in known[name]:
            others = ["learning_rate is a field of the run beside it"] if key in ("learning_rate", "lr") else []
            raise ValueError(f"{name} has no {key!r}, {'; '.join([known_words(key, known[name]), *others])}")
        default, schema = known[name][key]
        if demand := unmet(value, schema):
            hint = "; in a grid, write a list of lists" if schema["type"] == "array" and value != [] else ""
            raise ValueError(f"{key} {demand}, got {value}{hint}")
        if value != default:
            told[key] = value
    return told


def filled(told: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of what ``checked`` returned, by name."""
    return {key: told.get(key, default) for key, (default, _) in known[told["name"]].items()}


@dataclass(frozen=True)
class RateSchedule:
    """The factor on the learning rate at each update: linear warm-up, then constant, cosine or linear to its end."""

    name: str
    num_warmup: int  # updates
    num_updates: int  # of the whole run
    end: float

    @classmethod
    def of(cls, told: Mapping[str, Any], *, steps_per_epoch: int, epochs: int) -> RateSchedule:
        """The schedule of a run."""
        if not told:
            return cls("constant", 0, steps_per_epoch * epochs, 0.0)
        settings = filled(told, SCHEDULES)
        warmup = round(settings["warmup"] * steps_per_epoch)
        return cls(told["name"], warmup, steps_per_epoch * epochs, settings.get("end", 1.0))

    def factor(self, step: int) -> float:
        """The factor at update number ``step``, from 0 on."""
        if step < self.num_warmup:
            return (step + 1) / self.num_warmup
        if self.name == "constant":
            return 1.0
        passed = min(1.0, (step - self.num_warmup) / max(1, self.num_updates - self.num_warmup))
        left = (1 + math.cos(math.pi * passed)) / 2 if self.name == "cosine" else 1 - passed
        return self.end + (1 - self.end) * left
