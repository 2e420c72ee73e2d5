"""The kinds of experiments, one entry each: what it needs, what is drawn from it, and which claims it feeds.

Free of torch and pandas: the workflow imports it each time it plans.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sharpness.study.run import Run
from sharpness.study.runs import as_record
from sharpness.study.schedule import Schedule
from sharpness.study.varied import Axis

if TYPE_CHECKING:
    from sharpness.study.plan import Experiment

# The settings of a measurement from which all of its others take what they do not say.
BASE = "default"
# The checkpoint of the best validation accuracy and that of the last step: a part of its own in every run.
ENDS = "ends"
# The table of verdicts, beside those of the experiments.
CLAIMS = "claims"
# The epoch from which on the width of a bowl is measured: "after a couple of epochs".
FROM_EPOCH = 2
# How far out a figure of slices shows k.
_SHOWN_SCALES = 8
# More curves would be more pixels than an image may have.
_MOST_DENSITIES = 200
# Settings of a run that may be cheaper without being another experiment: the ways that agreement compares.
WAYS = (
    "gamma",
    "precision",
    "direction_examples",
    "direction_tolerance",
    "direction_products",
    "direction_precision",
    "num_directions",
)

# What a product of an experiment shows apart, of a run on its grid's axis: runs that are equal in it are averaged.
Shown = Callable[[Axis, Run], dict[str, Hashable]]
# What an experiment of one kind cannot be, with the whole study's values: sentences for its author.
Demands = Callable[["Experiment", Mapping[str, Any]], Iterator[str]]


@dataclass(frozen=True)
class Kind:
    """What one kind of experiment needs and what is drawn from it."""

    measurements: tuple[str, ...]
    figures: tuple[str, ...]
    shown: Shown | None  # None: each configuration by itself
    claims: str = ""  # the letters of the poster's claims that its experiments are evidence on
    interactive: tuple[str, ...] = ()  # its figures with an interactive version, each from the measurement of its name
    grid: str = "run"  # the name of the grid of an experiment that has none
    grids_together: bool = False  # whether its figures show all grids together
    at_ends: bool | None = None  # whether it shows the best and the last checkpoint, or the planned ones; None: any
    result_table: str | None = None  # the caption of its table of results, if it has one
    compares_settings: bool = False  # several settings of a measurement, and not one
    settings: tuple[str, ...] = (BASE,)  # of its measurements, where an experiment names none
    demands: Demands | None = None  # of its experiments, beyond what these fields say

    @property
    def default_measure(self) -> dict[str, list[str]]:
        """The measurements, with settings, of an experiment that names none."""
        return {name: list(self.settings) for name in self.measurements if name != "history"}


def first_change(run: Run) -> int | None:
    """Return the epoch after which the learning rate first changes; None if it never does."""
    return run.learning_rate_epochs[0] if run.learning_rate_epochs else None


def _by_axis(axis: Axis, run: Run) -> dict[str, Hashable]:
    return {axis.key: axis.value(as_record(run))}


def _by_row(axis: Axis, run: Run) -> dict[str, Hashable]:
    value = axis.value(as_record(run))
    # As the table writes it: two numbers of one text are one row.
    return {axis.key: value if isinstance(value, str) else f"{value:g}"}


def _by_change(axis: Axis, run: Run) -> dict[str, Hashable]:
    if axis.field in ("learning_rate", "learning_rate_epochs"):
        return {"first rate change": first_change(run)}
    return _by_axis(axis, run)


def _by_way(_: Axis, run: Run) -> dict[str, Hashable]:
    # Plain SGD is one way, whatever else: it has no directions.
    return {field: getattr(run, field) for field in (WAYS if run.gamma != 1 else ("gamma", "precision"))}


def _few_densities(experiment: Experiment, config: Mapping[str, Any]) -> Iterator[str]:
    for name in experiment.measure["density"]:
        schedule = config["density"][name]["checkpoints"]
        number = max(len(_steps(schedule, run, config)) for run in experiment.runs.values())
        if number > _MOST_DENSITIES:
            yield (
                f"density.{name}.checkpoints is {schedule!r}, which keeps {number} checkpoints, a figure shows at "
                f"most {_MOST_DENSITIES}"
            )


def _both_sides(experiment: Experiment, config: Mapping[str, Any]) -> Iterator[str]:
    name = experiment.measure["slices"][0]
    scales = config["slices"][name]["scales"]
    near = [k for k in scales if abs(k) <= _SHOWN_SCALES]
    if not min(near, default=0) < 0 < max(near, default=0):
        yield (
            f"slices.{name}.scales is {scales}, must have values on both sides of 0 within ±{_SHOWN_SCALES}: "
            f"what experiments.{experiment.name} shows"
        )


def _late_checkpoints(experiment: Experiment, config: Mapping[str, Any]) -> Iterator[str]:
    """The width of a bowl is a mean over the later epochs, so each run needs a checkpoint there."""
    name = experiment.measure["slices"][0]
    schedule = config["slices"][name]["checkpoints"]
    for run in experiment.runs.values():
        steps = _steps(schedule, run, config)
        if (steps[-1] / run.steps_per_epoch if steps else run.epochs) < FROM_EPOCH:
            yield (
                f"slices.{name}.checkpoints is {schedule!r}, must keep one of {run.name} from epoch {FROM_EPOCH} on: "
                f"there experiments.{experiment.name} measures widths"
            )


def _steps(schedule: str, run: Run, config: Mapping[str, Any]) -> list[int]:
    """List the steps that a schedule plans for a run; empty for the ends."""
    return [] if schedule == ENDS else Schedule.of(config["checkpoints"][schedule]).steps(run)


def _rows_of_results(experiment: Experiment, config: Mapping[str, Any]) -> Iterator[str]:
    place, shortest = f"experiments.{experiment.name}", min(experiment.runs.values(), key=lambda run: run.epochs)
    if shortest.epochs < config["validation_epoch"]:
        yield (
            f"validation_epoch must be at most {shortest.epochs}, the epochs of {shortest.name} in {place}, "
            f"got {config['validation_epoch']}"
        )


KINDS = {
    "spectrum": Kind(("spectrum",), ("spectrum",), None, interactive=("spectrum",), at_ends=False, settings=("top30",)),
    "eigenvalues": Kind(
        ("spectrum",), ("eigenvalues", "peaks"), _by_axis, claims="abcdeops", grid="learning_rate", at_ends=False
    ),
    "nudged": Kind(
        ("spectrum", "history"),
        ("nudged",),
        _by_axis,
        claims="klmns",
        grid="gamma",
        at_ends=False,
    ),
    "schedules": Kind(
        ("spectrum",),
        ("schedules",),
        _by_change,
        claims="rs",
        at_ends=False,
    ),
    "density": Kind(("density",), ("density",), None, demands=_few_densities),
    "slices": Kind(
        ("slices",), ("slices", "schematic"), None, claims="fq", interactive=("slices",), demands=_both_sides
    ),
    "widths": Kind(("slices",), ("widths",), _by_axis, claims="q", grid="learning_rate", demands=_late_checkpoints),
    "steps": Kind(("steps",), ("steps",), lambda _, __: {}, claims="ght", grids_together=True),
    "variants": Kind(
        ("variants",),
        ("variants",),
        lambda _, __: {},
        claims="ij",
        grids_together=True,
        compares_settings=True,
        settings=("sgd", "top_only", "constant_top", "top_removed"),
    ),
    "gradients": Kind(("gradients",), ("gradients",), _by_axis),
    "gradient_step": Kind(("gradient_step",), ("gradient_step",), _by_axis),
    "agreement": Kind(("spectrum", "history"), ("agreement",), _by_way, at_ends=False, result_table="agreement_table"),
    "table": Kind(
        ("spectrum", "history"),
        (),
        _by_row,
        claims="klmnos",
        grid="gamma",
        at_ends=True,
        result_table="results_table",
        settings=(ENDS,),
        demands=_rows_of_results,
    ),
}


def kinds_for(claim: str) -> tuple[str, ...]:
    """List the kinds whose experiments are evidence on a claim of the poster, by its letter."""
    return tuple(name for name, kind in KINDS.items() if claim in kind.claims)
