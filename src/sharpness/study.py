"""A study: one config file, checked as a whole and expanded into runs, checkpoints and measurements.

Free of torch and pandas: the workflow imports it each time it plans.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from sharpness import sources
from sharpness.grid import Run, Schedule, chunks_of, runs_of

MEASUREMENTS = ("spectrum", "slices", "steps", "variants")
# The checkpoint of the best validation accuracy and that of the last step: a part of its own in every run.
ENDS = "ends"


@dataclass(frozen=True)
class Kind:
    """What one kind of experiment needs and what is drawn from it."""

    measurements: tuple[str, ...]
    figures: tuple[str, ...]


KINDS = {
    "spectrum": Kind(("spectrum",), ("spectrum",)),
    "eigenvalues": Kind(("spectrum",), ("eigenvalues", "peaks")),
    "slices": Kind(("slices",), ("slices", "schematic")),
    "steps": Kind(("steps",), ("steps",)),
    "variants": Kind(("variants",), ("variants",)),
    "nudged": Kind(("spectrum", "history"), ("nudged",)),
    "table": Kind(("spectrum", "history"), ()),
}


class StudyError(ValueError):
    """The study's file is wrong; the message is one sentence for its author."""


@dataclass(frozen=True)
class Experiment:
    """Some runs, what is measured on them, and what is drawn from it."""

    name: str
    kind: str
    measure: Mapping[str, list[str]]  # measurement to names of settings
    grids: Mapping[str, list[Run]]

    @cached_property
    def runs(self) -> dict[str, Run]:
        """The distinct runs of all grids, by name."""
        return {run.name: run for runs in self.grids.values() for run in runs}


@dataclass(frozen=True)
class Study:
    """A checked study."""

    name: str
    config: Mapping[str, Any]
    experiments: Mapping[str, Experiment]

    @property
    def num_chunks(self) -> int:
        """Parts into which the planned checkpoints of every run are cut."""
        return int(self.config["chunks_per_run"])

    @cached_property
    def runs(self) -> dict[str, Run]:
        """The distinct runs of all experiments, by name: what two experiments share is trained once."""
        runs: dict[str, Run] = {}
        for experiment in self.experiments.values():
            for name, run in experiment.runs.items():
                if runs.setdefault(name, run) != run:
                    raise StudyError(f"two runs share the name {name}: {runs[name]} and {run}")
        return runs

    @cached_property
    def measured(self) -> dict[tuple[str, str, str], None]:
        """The distinct (run, measurement, settings) of all experiments, in order."""
        return {
            (run, measurement, settings): None
            for experiment in self.experiments.values()
            for measurement, names in experiment.measure.items()
            for settings in names
            for run in experiment.runs
        }

    def settings(self, measurement: str, name: str) -> dict[str, Any]:
        """The named settings of a measurement, without the schedule, which only plans."""
        section = self.config[measurement][name]
        return {key: value for key, value in section.items() if key != "checkpoints"}

    def schedule_steps(self, measurement: str, name: str, run: Run) -> list[int]:
        """The steps of ``run`` that a measurement is planned at; none where it looks at the ends."""
        schedule = self.config[measurement][name]["checkpoints"]
        return [] if schedule == ENDS else self._schedules[schedule].steps(run)

    @cached_property
    def _schedules(self) -> dict[str, Schedule]:
        schedules = {}
        for name, section in self.config["checkpoints"].items():
            at_epochs = tuple(section.get("at_epochs", ()))
            schedules[name] = Schedule(**{**section, "at_epochs": at_epochs})
        return schedules

    @cached_property
    def chunks(self) -> dict[str, list[list[int]]]:
        """The planned steps of every run, cut into its parts."""
        steps: dict[str, set[int]] = {run: set() for run in self.runs}
        for run, measurement, settings in self.measured:
            steps[run].update(self.schedule_steps(measurement, settings, self.runs[run]))
        return {run: chunks_of(sorted(planned), self.num_chunks) for run, planned in steps.items()}

    def parts(self, run: str, measurement: str, settings: str) -> dict[str, list[int]]:
        """The parts of a run that a measurement reads, each with the steps it measures there."""
        if self.config[measurement][settings]["checkpoints"] == ENDS:
            return {ENDS: []}
        wanted = set(self.schedule_steps(measurement, settings, self.runs[run]))
        chosen = [[step for step in chunk if step in wanted] for chunk in self.chunks[run]]
        return {str(index): steps for index, steps in enumerate(chosen) if steps}

    def is_the_posters(self, experiment: str) -> bool:
        """Whether a table of results is of the network and data of the poster's own."""
        runs = self.experiments[experiment].runs.values()
        return {(run.data, run.model) for run in runs} == {("cifar10", "resnet32")}

    def caption(self, experiment: str) -> str:
        """What was measured on what, for captions."""
        chosen = self.experiments[experiment]
        runs = chosen.runs.values()
        trained = sorted({f"{run.model} on {run.data} ({run.num_training:,} training images)" for run in runs})
        nudged = sorted({run.direction_examples for run in runs if run.is_nudged})
        measured = [
            f"{measurement} {name}: Hessian on {self.config[measurement][name]['num_examples']} training images"
            + (f", top {count}" if (count := self.config[measurement][name].get("num_eigenvalues")) else "")
            + f", residuals at most {self.config[measurement][name]['tolerance']:g}"
            for measurement, names in chosen.measure.items()
            for name in names
        ]
        directions = [f"directions of NSGD from {', '.join(map(str, nudged))} training images, once an epoch"]
        seeds = len({run.seed for run in runs})
        return "; ".join(
            [", ".join(trained), f"{seeds} seed{'s' if seeds > 1 else ''}", *measured, *(directions if nudged else ())]
        )


def study_of(config: Mapping[str, Any], schema_path: Path, *, source: str) -> Study:
    """Check ``config`` and expand it.

    Args:
        config: the parsed study.
        schema_path: the JSON schema of a study.
        source: the study's file, named in messages.

    Raises:
        StudyError: something is wrong; the message names the key, the value and what would be right.
        sharpness.sources.SourceError: the files of a data set are missing or damaged.
    """
    try:
        _check_schema(config, yaml.safe_load(schema_path.read_text()))
        experiments = {name: _experiment(name, config) for name in config["experiments"]}
        study = Study(name=config["study"], config=config, experiments=experiments)
        if ENDS in config["checkpoints"]:
            raise StudyError(f"checkpoints.{ENDS}: the name is taken by the best and the last checkpoint")
        for experiment in experiments.values():
            _check_references(experiment, config)
        for run, measurement, settings in study.measured:
            _check_sizes(study.runs[run], measurement, settings, config)
            if not study.parts(run, measurement, settings):
                raise StudyError(
                    f"{measurement}.{settings}.checkpoints is {config[measurement][settings]['checkpoints']!r}, "
                    f"which keeps no checkpoint within the {study.runs[run].epochs} epochs of {run}"
                )
    except StudyError as error:
        raise StudyError(f"{source}: {error}") from None
    return study


def _experiment(name: str, config: Mapping[str, Any]) -> Experiment:
    section = config["experiments"][name]
    grids: dict[str, list[Run]] = {}
    for grid, blocks in section["grids"].items():
        try:
            runs = [run for axes in blocks for run in runs_of(config["defaults"], axes)]
        except ValueError as error:
            raise StudyError(f"experiments.{name}.grids.{grid}: {error}") from None
        grids[grid] = list(dict.fromkeys(runs))
        for run in grids[grid]:
            available = sources.num_training(run.data)
            if run.num_training > available:
                raise StudyError(
                    f"experiments.{name}.grids.{grid}: num_training must be at most {available}, "
                    f"the training split of {run.data}, got {run.num_training}"
                )
    return Experiment(name=name, kind=section["kind"], measure=section["measure"], grids=grids)


def _check_references(experiment: Experiment, config: Mapping[str, Any]) -> None:
    place = f"experiments.{experiment.name}"
    for measurement in KINDS[experiment.kind].measurements:
        if measurement != "history" and measurement not in experiment.measure:
            raise StudyError(
                f"{place}.measure lacks {measurement}, which an experiment of kind {experiment.kind} needs"
            )
    for measurement, names in experiment.measure.items():
        for name in names:
            known = config.get(measurement, {})
            if name not in known:
                raise StudyError(f"{place}.measure.{measurement} names {name!r}, {_known(name, known)}")
            schedule = config[measurement][name]["checkpoints"]
            schedules = [*config["checkpoints"], ENDS]
            if schedule not in schedules:
                raise StudyError(f"{measurement}.{name}.checkpoints is {schedule!r}, {_known(schedule, schedules)}")


def _check_sizes(run: Run, measurement: str, name: str, config: Mapping[str, Any]) -> None:
    settings = config[measurement][name]
    for key in ("num_examples", "loss_examples"):
        if settings.get(key, 0) > run.num_training:
            raise StudyError(
                f"{measurement}.{name}.{key} must be at most {run.num_training}, the num_training of {run.name}, "
                f"got {settings[key]}"
            )
    for key in ("num_eigenvalues", "num_directions"):
        if settings.get(key, 0) > settings["max_products"]:
            raise StudyError(
                f"{measurement}.{name}.{key} must be at most {settings['max_products']}, its max_products, "
                f"got {settings[key]}"
            )


def _whole_match(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    # jsonschema searches, and Python's $ lets a line break pass.
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


# Stricter than JSON Schema, for what YAML can say: 15.0 is not an integer, .nan not a number, and 1 not a key.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"pattern": _whole_match},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
            "number": lambda _, value: (
                isinstance(value, int | float) and not isinstance(value, bool) and value == value
            ),
            "object": lambda _, value: isinstance(value, dict) and all(isinstance(key, str) for key in value),
        }
    ),
)


def _check_schema(config: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    errors = _Validator(schema).iter_errors(config)
    first = min(errors, key=lambda error: (len(error.absolute_path), list(map(str, error.absolute_path))), default=None)
    if first is not None:
        raise StudyError(_sentence(first, schema))


def _sentence(error: jsonschema.ValidationError, schema: Mapping[str, Any]) -> str:
    """One sentence for one schema error: the key, its value, and what would be right."""
    if error.validator == "anyOf":  # an axis: one value, or a list of them
        branch = 1 if isinstance(error.instance, list) else 0
        causes = [cause for cause in error.context or () if cause.schema_path[0] == branch]
        return _sentence(causes[0], schema)
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in error.absolute_path).lstrip(".")
    place = place or "the study"
    value = error.instance
    if "propertyNames" in error.schema_path:
        return f"a name in {place} is {value!r}, {_demand(error)}"
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = next(key for key in value if key not in known)
        return f"unknown key {unknown!r} in {place}, {_known(unknown, known)}"
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in value)
        return f"{place} lacks the key {missing!r}"
    if error.validator in ("minItems", "minProperties"):
        return f"{place} is empty, give at least one value"
    return f"{place} is {value!r}, {_demand(error)}"


def _demand(error: jsonschema.ValidationError) -> str:
    rule, value = error.validator, error.validator_value
    listed = value if isinstance(value, list) else [value]
    demands = {
        "type": f"must be of type {' or '.join(map(str, listed))}",
        "minimum": f"must be at least {value}",
        "maximum": f"must be at most {value}",
        "exclusiveMinimum": f"must be greater than {value}",
        "exclusiveMaximum": f"must be less than {value}",
        "enum": _known(str(error.instance), map(str, listed)),
        "uniqueItems": "must not repeat a value",
        "pattern": f"must match {value}",
    }
    demand = demands.get(str(rule), error.message)
    if rule == "type" and isinstance(error.instance, str) and _is_number(error.instance):
        demand += f" (YAML reads it as text; write {_as_yaml(float(error.instance))})"
    if rule == "type" and isinstance(error.instance, dict):
        demand += "".join(f" (its key {key!r} is not text)" for key in error.instance if not isinstance(key, str))
    description = error.schema.get("description") if isinstance(error.schema, Mapping) else None
    return f"{demand}: {description}" if description else demand


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _as_yaml(number: float) -> str:
    # Not repr: YAML takes 1e-06 for text, 1.0e-06 for a number.
    return yaml.safe_dump(int(number) if number.is_integer() else number).split()[0]


def _known(word: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"known are {', '.join(known)}" + (f" (did you mean {near[0]}?)" if near else "")
