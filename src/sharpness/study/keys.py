"""Every key of a study, with its type, range, description and default; the JSON schema of a study follows from them.

``python -m sharpness.study.keys`` prints the schema, for editors that check YAML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sharpness.study.kinds import ENDS, KINDS
from sharpness.study.registry import MEASUREMENTS
from sharpness.study.run import Run
from sharpness.study.schedule import Schedule
from sharpness.study.settings import AT_MOST_1000, Derived, Setting, schema_of, setting, settings_in

_NAME = {"pattern": "^[a-z][a-z0-9_]*$", "maxLength": 100}


def _early(epochs: int, evaluation_epochs: list[int]) -> int:
    """Return a quarter of the epochs, or the last evaluated epoch until then."""
    quarter = max(1, epochs // 4)
    return max((epoch for epoch in evaluation_epochs if epoch <= quarter), default=min([quarter, *evaluation_epochs]))


@dataclass(frozen=True)
class Whole:
    """What holds for all runs of a study."""

    chunks_per_run: int = setting(
        1,
        "a run's checkpoints are stored and measured in so many parts, each a job of its own",
        minimum=1,
        maximum=1000,
    )
    evaluation_examples: int = setting(
        AT_MOST_1000,
        "training examples, never augmented, on which the training loss of the history is evaluated",
        minimum=1,
        maximum=100_000,
    )
    evaluation_epochs: tuple[int, ...] = setting(
        [],
        "epochs after which a run's losses and validation accuracy are evaluated, its last one among them; [] for "
        "every epoch",
        uniqueItems=True,
        items={"type": "integer", "minimum": 1, "maximum": 100_000},
    )
    validation_epoch: int = setting(
        Derived(
            "a quarter of the study's fewest epochs, or the last evaluated one until then",
            _early,
            "epochs",
            "evaluation_epochs",
        ),
        "the early epoch whose validation accuracy the table of results shows",
        minimum=1,
        maximum=100_000,
    )
    state_seconds: int = setting(
        60,
        "seconds after which a training run saves the state from which it goes on when it was killed; it does so at "
        "every checkpoint too",
        minimum=1,
        maximum=1_000_000,
    )
    tensorboard: bool = setting(
        False, "write TensorBoard's events of every training run to results/<study>/runs/<run>/tensorboard"
    )


def measurement_settings(measurement: str) -> dict[str, Setting]:
    """Return the settings of a measurement, with the schedule of its checkpoints."""
    schedule = Setting(
        MEASUREMENTS[measurement].checkpoints,
        f"the named schedule of checkpoints to measure, or {ENDS} for the best and the last",
        {"minLength": 1},
    )
    return {"checkpoints": schedule, **settings_in(MEASUREMENTS[measurement])}


def default_grids(kind: str) -> dict[str, list[dict[str, Any]]]:
    """Return the grid of one run with the study's defaults."""
    return {KINDS[kind].grid: [{}]}


@cache
def study_schema() -> dict[str, Any]:
    """Build the JSON schema of a study's file."""
    whole, runs = schema_of(Whole)["properties"], schema_of(Run)
    schedule = schema_of(Schedule) | {"minProperties": 1, "dependentRequired": {"dense_images": ["dense_epochs"]}}
    study = {"type": "string", **_NAME, "description": "name of the study: its results go to results/<study>/"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study",
        "type": "object",
        "additionalProperties": False,
        "required": ["study", "experiments"],
        "properties": {
            "study": study,
            **whole,
            "defaults": runs | {"description": "a value for every field of a run"},
            "checkpoints": _named(schedule, "named schedules of the training steps at which checkpoints are kept"),
            **{name: _section_schema(name) for name in MEASUREMENTS},
            "experiments": _named(
                _experiment_schema(), "named experiments; each becomes tables and figures", minProperties=1
            ),
        },
    }


def _named(schema: Mapping[str, Any], description: str, **rules: Any) -> dict[str, Any]:
    names = {"propertyNames": {"type": "string", **_NAME}, "additionalProperties": schema}
    return {"type": "object", "description": description, **rules, **names}


def settings_schema(measurement: str) -> dict[str, Any]:
    """Build the JSON schema of one of a measurement's settings."""
    schedule = measurement_settings(measurement)["checkpoints"]
    first = {"type": "string", **schedule.rules, "default": schedule.default, "description": schedule.description}
    properties = schema_of(MEASUREMENTS[measurement])["properties"]
    return {"type": "object", "additionalProperties": False, "properties": {"checkpoints": first, **properties}}


def _section_schema(measurement: str) -> dict[str, Any]:
    return _named(settings_schema(measurement), f"named settings: {MEASUREMENTS[measurement].title}")


def _experiment_schema() -> dict[str, Any]:
    names = {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"type": "string"}}
    fields = schema_of(Run)["properties"]
    axis = {"type": "array", "minItems": 1, "uniqueItems": True}
    blocks = {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "additionalProperties": False,
            "description": "field of a run to its value or its list of values; the defaults give the others",
            "properties": {name: {"anyOf": [field, {**axis, "items": field}]} for name, field in fields.items()},
        },
    }
    measure = {
        "type": "object",
        "additionalProperties": False,
        "description": "measurement to the names of its settings",
        "properties": {
            name: {**names, "description": f"names of settings in the section {name}"} for name in MEASUREMENTS
        },
    }
    own = {"type": ["string", "array"], "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}
    grids = "named sets of runs, each a list of axes whose values are combined with one another"
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["kind"],
        "properties": {
            "kind": {"enum": list(KINDS), "description": "what is drawn from it"},
            "measure": measure,
            "measurements": {**own, "description": "your own: file.py:name of a function or class, or a list of them"},
            "figures": {**own, "description": "your own: file.py:function, or a list of them"},
            "grids": _named(blocks, grids, minProperties=1),
        },
    }


if __name__ == "__main__":
    print(json.dumps(study_schema(), indent=2))
