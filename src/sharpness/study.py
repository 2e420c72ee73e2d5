"""A study: one config file, checked as a whole and expanded into runs, checkpoints and measurements.

Free of torch and pandas: the workflow imports it each time it plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from sharpness import sources
from sharpness.grid import Run, Schedule, chunks_of, runs_of
from sharpness.schema import StudyError, check_schema, known_words

MEASUREMENTS = ("spectrum", "density", "slices", "steps", "variants", "gradients")
# The checkpoint of the best validation accuracy and that of the last step: a part of its own in every run.
ENDS = "ends"
# The figures that have an interactive version; each is drawn from the measurement of its name.
INTERACTIVE = ("spectrum", "slices")
# The table of verdicts, beside those of the experiments.
CLAIMS = "claims"


@dataclass(frozen=True)
class Kind:
    """What one kind of experiment needs and what is drawn from it."""

    measurements: tuple[str, ...]
    figures: tuple[str, ...]
    grids: tuple[str, ...] = ()  # what its panels show: an experiment has a grid of one of these names; none: of any
    result_table: str | None = None  # the caption of its table of results, if it has one


KINDS = {
    "spectrum": Kind(("spectrum",), ("spectrum",)),
    "eigenvalues": Kind(("spectrum",), ("eigenvalues", "peaks"), grids=("learning_rate", "batch_size")),
    "schedules": Kind(("spectrum",), ("schedules",)),
    "density": Kind(("density",), ("density",)),
    "slices": Kind(("slices",), ("slices", "schematic")),
    "widths": Kind(("slices",), ("widths",), grids=("learning_rate", "batch_size")),
    "steps": Kind(("steps",), ("steps",)),
    "variants": Kind(("variants",), ("variants",)),
    "gradients": Kind(("gradients",), ("gradients",)),
    "nudged": Kind(("spectrum", "history"), ("nudged",)),
    "agreement": Kind(("spectrum", "history"), ("agreement",), result_table="agreement_table"),
    "table": Kind(("spectrum", "history"), (), result_table="results_table"),
}


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

    @property
    def members(self) -> list[tuple[str, str]]:
        """Grid and name of every run, in order: a run of two grids stands here twice."""
        return [(grid, run.name) for grid, runs in self.grids.items() for run in runs]

    @property
    def figures(self) -> dict[str, str]:
        """Its figures by name, each with the function that draws it: the first has the experiment's own name."""
        functions = KINDS[self.kind].figures
        return {
            f"{self.name}_{function}" if function in functions[1:] else self.name: function for function in functions
        }

    @property
    def collected(self) -> dict[str, str]:
        """The names of its tidy tables, by measurement: each experiment has histories too."""
        return {measurement: f"{self.name}_{measurement}" for measurement in ("history", *self.measure)}


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
        # Sorted, so that the order of lines in the file changes nothing.
        return {key: value for key, value in sorted(section.items()) if key != "checkpoints"}

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

    def tables(self, experiment: str, run: str, measurement: str) -> list[str]:
        """The tables of one measurement of a run, for an experiment, from the folder that has all runs."""
        if measurement == "history":
            return [f"{run}/history.csv"]
        return [
            f"{run}/{measurement}/{settings}-{part}.csv"
            for settings in self.experiments[experiment].measure[measurement]
            for part in self.parts(run, measurement, settings)
        ]

    def part_before(self, run: str, measurement: str, settings: str, part: str) -> tuple[str, int] | None:
        """The part and the step of the measured checkpoint before a part's first one; None at the start of a run."""
        steps = {name: of_part for name, of_part in self.parts(run, measurement, settings).items() if name != ENDS}
        earlier = [name for name in steps if part != ENDS and int(name) < int(part)]
        return (earlier[-1], steps[earlier[-1]][-1]) if earlier else None

    @property
    def figures(self) -> dict[str, tuple[str, Experiment]]:
        """All figures by name, in order: the function that draws each, and the experiment that it is of."""
        return {
            name: (function, experiment)
            for experiment in self.experiments.values()
            for name, function in experiment.figures.items()
        }

    @property
    def interactive(self) -> dict[str, str]:
        """The figures that have an interactive version, each with the table that it is drawn from."""
        return {
            name: experiment.collected[function]
            for name, (function, experiment) in self.figures.items()
            if function in INTERACTIVE
        }

    @property
    def result_tables(self) -> dict[str, str]:
        """All tables of results, each with its caption."""
        captions = {name: KINDS[experiment.kind].result_table for name, experiment in self.experiments.items()}
        return {name: caption for name, caption in captions.items() if caption is not None}

    def caption(self, experiment: str) -> str:
        """What was measured on what, for captions."""
        chosen = self.experiments[experiment]
        runs = chosen.runs.values()
        trained = sorted({f"{run.model} on {run.data} ({run.num_training:,} training images)" for run in runs})
        seeds = len({run.seed for run in runs})
        parts = [", ".join(trained), f"{seeds} seed{'s' if seeds > 1 else ''}"]
        if "history" in KINDS[chosen.kind].measurements and (looks := self.config["evaluation_epochs"]):
            epochs = max(run.epochs for run in runs)
            parts.append(f"evaluated after {sum(epoch <= epochs for epoch in looks)} of {epochs} epochs")
        parts += [
            f"{measurement} {name}: {_in_words(self.config[measurement][name])}"
            for measurement, names in chosen.measure.items()
            for name in names
        ]
        if nudged := sorted({run.direction_examples for run in runs if run.is_nudged}):
            parts.append(f"directions of NSGD from {', '.join(map(str, nudged))} training images, once an epoch")
        return "; ".join(parts)


_FOUND_IN = {
    "tf32": "found in tf32",
    "bfloat16": "found in bfloat16",
    "auto": "found in bfloat16 where the device has instructions for it",
}


def _in_words(settings: Mapping[str, Any]) -> str:
    """On what a Hessian was measured, and how exactly."""
    block = settings.get("parameters", "*")
    parts = [
        "Hessian" + (f" of {block}" if block != "*" else "") + f" on {settings['num_examples']} training images",
        f"top {settings['num_eigenvalues']}" if "num_eigenvalues" in settings else "",
        _FOUND_IN.get(settings.get("precision", "float32"), ""),
        f"residuals at most {settings['tolerance']:g}",
    ]
    return ", ".join(part for part in parts if part)


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
        check_schema(config, yaml.safe_load(schema_path.read_text()))
        experiments = {name: _experiment(name, config) for name in config["experiments"]}
        study = Study(name=config["study"], config=config, experiments=experiments)
        if ENDS in config["checkpoints"]:
            raise StudyError(f"checkpoints.{ENDS}: the name is taken by the best and the last checkpoint")
        if CLAIMS in experiments:
            raise StudyError(f"experiments.{CLAIMS}: the name is taken by the table of verdicts")
        for experiment in experiments.values():
            _check_references(experiment, config)
            for trained in experiment.runs.values():
                _check_evaluation(trained, config)
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
    place, kind = f"experiments.{experiment.name}", KINDS[experiment.kind]
    if kind.grids and not set(kind.grids) & set(experiment.grids):
        raise StudyError(
            f"{place}.grids is of {', '.join(experiment.grids)}, must have {' or '.join(kind.grids)}: "
            f"what the panels of kind {experiment.kind} show"
        )
    for measurement in kind.measurements:
        if measurement != "history" and measurement not in experiment.measure:
            raise StudyError(
                f"{place}.measure lacks {measurement}, which an experiment of kind {experiment.kind} needs"
            )
    shortest = min(experiment.runs.values(), key=lambda run: run.epochs)
    if experiment.kind == "table" and shortest.epochs < config["validation_epoch"]:
        raise StudyError(
            f"validation_epoch must be at most {shortest.epochs}, the epochs of {shortest.name} in {place}, "
            f"got {config['validation_epoch']}"
        )
    for measurement, names in experiment.measure.items():
        for name in names:
            known = config.get(measurement, {})
            if name not in known:
                raise StudyError(f"{place}.measure.{measurement} names {name!r}, {known_words(name, known)}")
            schedule = config[measurement][name]["checkpoints"]
            schedules = [*config["checkpoints"], ENDS]
            if schedule not in schedules:
                raise StudyError(
                    f"{measurement}.{name}.checkpoints is {schedule!r}, {known_words(schedule, schedules)}"
                )


def _check_evaluation(run: Run, config: Mapping[str, Any]) -> None:
    epochs = config["evaluation_epochs"]
    if not epochs:
        return
    if run.epochs not in epochs:
        raise StudyError(f"evaluation_epochs must have {run.epochs}, the last epoch of {run.name}, got {epochs}")
    if run.plateau_patience is not None or run.stop_patience is not None:
        raise StudyError(f"evaluation_epochs must be [], every one: {run.name} has a patience in epochs; got {epochs}")
    if (early := config["validation_epoch"]) not in epochs:
        raise StudyError(f"evaluation_epochs must have {early}, the validation_epoch, got {epochs}")


def _check_sizes(run: Run, measurement: str, name: str, config: Mapping[str, Any]) -> None:
    settings = config[measurement][name]
    for key in ("num_examples", "loss_examples"):
        if settings.get(key, 0) > run.num_training:
            raise StudyError(
                f"{measurement}.{name}.{key} must be at most {run.num_training}, the num_training of {run.name}, "
                f"got {settings[key]}"
            )
    if settings.get("frobenius_products") == 1:
        raise StudyError(
            f"{measurement}.{name}.frobenius_products must be 0, for no estimate, or at least 2, which have a standard "
            "error, got 1"
        )
    for key in ("num_eigenvalues", "num_directions"):
        if settings.get(key, 0) > settings["max_products"]:
            raise StudyError(
                f"{measurement}.{name}.{key} must be at most {settings['max_products']}, its max_products, "
                f"got {settings[key]}"
            )
