"""What a study cannot be though each of its keys is right: found when planning, not after days of training.

Free of torch and pandas: the workflow imports it each time it plans.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from sharpness.data import arrays, catalogue
from sharpness.runtime import own
from sharpness.runtime.definitions import OwnError
from sharpness.study import nested, networks
from sharpness.study.kinds import BASE, CLAIMS, ENDS, KINDS
from sharpness.study.paths import StudyFolder
from sharpness.study.pooling import check_pooling
from sharpness.study.registry import MEASUREMENTS
from sharpness.study.run import Run
from sharpness.study.runs import RUNS
from sharpness.study.schedule import SCHEDULES
from sharpness.study.schema_words import known_words

if TYPE_CHECKING:
    from sharpness.study.plan import Experiment, Study

_LOOP = re.compile(r"(.+?)\1{19}")
# Folders of results that are no study's.
_TAKEN_STUDIES = ("data",)
# Rules that keep one log and one cost for the whole study.
_TAKEN_TABLES = ("report",)
# Kinds that scale SGD's step, which is along the gradient.
_OF_SGD = ("steps", "variants")
# Of a figure: more panels would be more pixels than an image may have.
_MOST_PANELS = 50
# Bytes of a command that the system takes (128 KiB), less what is not files and steps.
_LONGEST_COMMAND = 100_000


def check(study: Study) -> Iterator[str]:
    """Say why a study cannot be computed, or its products would say what was not measured.

    Args:
        study: one whose names all lead somewhere, as ``check_names`` and ``check_references`` say.

    Yields:
        sentences that name the key, the value and what would be right; of several runs, for the first.
    """
    for experiment in study.experiments.values():
        yield from _check_kind(experiment, study.config)
        yield from _check_panels(experiment)
        yield from check_pooling(experiment.name, experiment.kind, dict(experiment.grids))
        for run in experiment.runs.values():
            yield from _check_evaluation(run, study.config)
    for run_name in study.runs:
        yield from _check_command(study, run_name)
    for run_name, measurement, name in study.measured:
        run, place = study.runs[run_name], f"{measurement}.{name}"
        yield from (f"{place}.{problem}" for problem in study.measurement(measurement, name).problems(run))
        yield from _check_block(run, place, study.config[measurement][name])
        schedule = study.config[measurement][name]["checkpoints"]
        if schedule == ENDS and study.measurement(measurement, name).from_step:
            yield (
                f"{place}.checkpoints is {ENDS!r}, must be a schedule: at the best checkpoint, which may be the first, "
                "the optimizer has no preconditioner"
            )
        if not study.parts(run_name, measurement, name):
            yield (
                f"{measurement}.{name}.checkpoints is {study.config[measurement][name]['checkpoints']!r}, "
                f"which keeps no checkpoint within the {study.runs[run_name].epochs} epochs of {run_name}"
            )


def check_run(run: Run) -> Iterator[str]:
    """Say why no job could train a run: the data set, the network or the schedule cannot be as it says."""
    if (warmup := nested.as_mapping(run.schedule).get("warmup", 0)) > run.epochs:
        yield f"schedule.warmup must be at most epochs, got {warmup} epochs of warm-up with epochs {run.epochs}"
    try:
        arrays.check(run.data)
        available = None if arrays.is_function(run.data) else arrays.num_training(run.data)
    except ValueError as error:
        yield str(error)
        return
    if available is not None and run.num_training > available:
        yield f"num_training must be at most {available}, the training split of {run.data}, got {run.num_training}"
    if own.is_reference(run.loss):
        try:
            own.check(run.loss)
        except OwnError as error:
            yield f"loss: {error}"
    if own.is_reference(run.model):
        yield from _check_own_network(run)
        return
    if run.model_args != nested.EMPTY:
        yield f"model_args is for a network of your own, file.py:function, got {run.model_args} for {run.model}"
    # What the images of a user's data are like, the first job finds out.
    if not arrays.is_own(run.data):
        facts = catalogue.facts_of(run.data)
        try:
            networks.check(run.model, facts.input_shape, facts.num_classes, run.padding, run.init_scale)
        except ValueError as error:
            yield str(error)
    smallest = networks.smallest_batch(run.model)
    if run.examples_per_step < smallest:
        yield f"batch_size must be at least {smallest} for {run.model}, got {run.batch_size}"


def _check_own_network(run: Run) -> Iterator[str]:
    try:
        own.check(run.model)
    except OwnError as error:
        yield f"model: {error}"
    for field, neutral in (("padding", "alternating"), ("init_scale", None)):
        if (value := getattr(run, field)) != neutral:
            yield f"{field} is a setting of the networks here, not of {run.model}, got {value}"


def _check_command(study: Study, run: str) -> Iterator[str]:
    """Check the length of the training command, which lists the files and the steps of all checkpoints."""
    file = len(StudyFolder.of(study.name).run(run).checkpoints(study.num_chunks)) + 1
    length = file * study.num_chunks + sum(len(f"{step} ") for chunk in study.chunks[run] for step in chunk)
    if length > _LONGEST_COMMAND:
        num_steps = sum(map(len, study.chunks[run]))
        yield (
            f"chunks_per_run is {study.num_chunks}, with {num_steps} checkpoints of {run}: the command that trains it "
            f"would have {length:,} characters of files and steps, at most {_LONGEST_COMMAND:,} can be run"
        )


def _check_panels(experiment: Experiment) -> Iterator[str]:
    kind = KINDS[experiment.kind]
    if not kind.figures:
        return
    each = kind.shown is None
    panels = {replace(run, seed=0) if each else (run.data, run.model, grid) for grid, run in experiment.pairs}
    if len(panels) > _MOST_PANELS:
        what = "configurations" if each else "grids of networks"
        yield (
            f"experiments.{experiment.name} has {len(panels)} {what}, a figure of kind {experiment.kind} shows at most "
            f"{_MOST_PANELS}: give the others experiments of their own"
        )


def check_names(study: Study) -> Iterator[str]:
    """Say which names are taken, or could not be files."""
    if study.name in _TAKEN_STUDIES:
        yield f"study is {study.name!r}, the name of the folder that all studies share in results"
    for section in ("study", "checkpoints", *MEASUREMENTS, "experiments"):
        names = [study.name] if section == "study" else study.config.get(section, {})
        for name in filter(_LOOP.search, names):
            yield f"a name in {section} is {name!r}, must not repeat a part twenty times: Snakemake refuses such names"
    if ENDS in study.config["checkpoints"]:
        yield f"checkpoints.{ENDS}: the name is taken by the best and the last checkpoint"
    for name, table in ((CLAIMS, "the table of verdicts"), (RUNS, "the table of all runs")):
        if name in study.experiments:
            yield f"experiments.{name}: the name is taken by {table}"
    owners: dict[tuple[str, str], str] = {}
    for experiment in study.experiments.values():
        for product, name in _products(experiment):
            owner = owners.setdefault((product, name), experiment.name)
            if owner != experiment.name:
                yield (
                    f"experiments.{experiment.name}: its {product} {name} has the name of one of experiments.{owner}; "
                    f"rename one of the two"
                )
        if KINDS[experiment.kind].result_table and experiment.name in _TAKEN_TABLES:
            yield f"experiments.{experiment.name}: the name is taken, the study has its {experiment.name}"


def _products(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Yield product and name of each file that an experiment writes, or that a rule could write for it."""
    yield from (("figure", name) for name in experiment.figures)
    yield from (("table", f"{experiment.name}_{measurement}") for measurement in ("history", *MEASUREMENTS))
    if KINDS[experiment.kind].result_table:
        yield "table", experiment.name


def _check_kind(experiment: Experiment, config: Mapping[str, Any]) -> Iterator[str]:
    place, kind = f"experiments.{experiment.name}", KINDS[experiment.kind]
    of_sgd = next((run for run in experiment.runs.values() if run.update and experiment.kind in _OF_SGD), None)
    if of_sgd is not None:
        yield f"{place}: kind {experiment.kind} is about SGD's step, got the optimizer {of_sgd.update['name']}"
    for measurement in kind.measurements:
        if measurement != "history":
            yield from _check_settings(experiment, measurement, config)
    if kind.demands:
        yield from kind.demands(experiment, config)


_MUST_RETURN = {"measurements": "a row, {'norm': 1.5}, or rows", "figures": "a matplotlib figure"}


def check_own(experiment: Experiment) -> Iterator[str]:
    """Say which measurements and figures of the user's own are not there, or could not be told apart."""
    kinds = {"measurements": experiment.own_measurements, "figures": experiment.own_figures}
    for key, references in kinds.items():
        place, names = f"experiments.{experiment.name}.{key}", dict[str, str]()
        for reference in references:
            try:
                own.check(reference)
            except OwnError as error:
                yield f"{place}: {error}"
                continue
            found = own.definition(reference)
            if found is not None and found.returns_nothing:
                yield f"{place}: {found.place}: must return {_MUST_RETURN[key]}, and returns nothing"
            if found is not None and key == "figures":
                tables = ["history", *experiment.measure, *map(own.name_of, experiment.own_measurements)]
                yield from (
                    f"{place}: {found.place}: there is no table {argument!r}, the tables are {', '.join(tables)}"
                    for argument in found.needed
                    if argument not in tables
                )
            name = own.name_of(reference)
            if names.setdefault(name, reference) != reference or name in (*MEASUREMENTS, "history"):
                yield f"{place} has {reference}, whose name {name} is taken; give the function another"


def check_references(experiment: Experiment, config: Mapping[str, Any]) -> Iterator[str]:
    """Say which names of settings and schedules lead nowhere, and what an experiment does not measure but needs."""
    place = f"experiments.{experiment.name}.measure"
    for measurement in KINDS[experiment.kind].measurements:
        if measurement != "history" and measurement not in experiment.measure:
            yield f"{place} lacks {measurement}, which an experiment of kind {experiment.kind} needs"
    for measurement, names in experiment.measure.items():
        known = config.get(measurement, {})
        for name in names:
            if name not in known:
                always = [name for name in (*MEASUREMENTS[measurement].named, BASE) if name not in known]
                yield f"{place}.{measurement} names {name!r}, {known_words(name, [*known, *always])}"
                continue
            schedule = config[measurement][name]["checkpoints"]
            schedules = list(dict.fromkeys([*config["checkpoints"], *SCHEDULES, ENDS]))
            if schedule != ENDS and schedule not in config["checkpoints"]:
                yield f"{measurement}.{name}.checkpoints is {schedule!r}, {known_words(schedule, schedules)}"


def _check_settings(experiment: Experiment, measurement: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Check the settings of a measurement against what the experiment's figures and tables need."""
    place, kind = f"experiments.{experiment.name}.measure.{measurement}", KINDS[experiment.kind]
    names = experiment.measure[measurement]
    if len(names) > 1 and not kind.compares_settings:
        yield (
            f"{place} names {', '.join(names)}, kind {experiment.kind} shows one: give each an experiment of its own"
        )
        return
    settings = {name: config[measurement][name] for name in names}
    first = settings[names[0]]
    for name, section in settings.items():
        for key in MEASUREMENTS[measurement].shared:
            if section[key] != first[key]:
                yield (
                    f"{measurement}.{name}.{key} must be that of {names[0]}, {first[key]}, with which {place} compares "
                    f"it, got {section[key]}"
                )
        if kind.at_ends is not None and kind.at_ends != (section["checkpoints"] == ENDS):
            wanted = "ends, the best and the last" if kind.at_ends else "a schedule of planned ones"
            yield (
                f"{measurement}.{name}.checkpoints is {section['checkpoints']!r}, must be {wanted}: what kind "
                f"{experiment.kind} of experiments.{experiment.name} shows"
            )


def _check_evaluation(run: Run, config: Mapping[str, Any]) -> Iterator[str]:
    epochs = config["evaluation_epochs"]
    if not epochs:
        return
    if run.epochs not in epochs:
        yield f"evaluation_epochs must have {run.epochs}, the last epoch of {run.name}, got {epochs}"
    if run.plateau_patience is not None or run.stop_patience is not None:
        yield f"evaluation_epochs must be [], every one: {run.name} has a patience in epochs; got {epochs}"
    if (early := config["validation_epoch"]) not in epochs:
        yield f"evaluation_epochs must have {early}, the validation_epoch, got {epochs}"


def _check_block(run: Run, place: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Check the measured block of the Hessian, chosen by a pattern over parameter names."""
    if arrays.is_own(run.data) or own.is_reference(run.model):
        return  # the names and sizes are known to jobs only
    facts, pattern = catalogue.facts_of(run.data), settings.get("parameters", "*")
    sizes = networks.parameter_sizes(run.model, facts.input_shape, facts.num_classes, padding=run.padding)
    size = sum(number for parameter, number in sizes.items() if fnmatchcase(parameter, pattern))
    if not size:
        yield (
            f"{place}.parameters is {pattern!r}, which is the name of no parameter of {run.model}; "
            f"known are {', '.join(sizes)}"
        )
    elif settings.get("num_eigenvalues", 0) > size:
        yield (
            f"{place}.num_eigenvalues must be at most {size}, the weights of {run.model} that {pattern!r} names, "
            f"got {settings['num_eigenvalues']}"
        )
