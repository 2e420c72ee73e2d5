"""What a study will cost: the work of each of its jobs, counted from its plan, before any of it is done. No torch.

Steps and images are counted exactly, up to runs that stop early or diverge; of products see ``study.work``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sharpness.data import arrays, catalogue
from sharpness.runtime.precision import Precision
from sharpness.study.measurement import OfHessian
from sharpness.study.plan import ENDS, Study
from sharpness.study.registry import MEASUREMENTS
from sharpness.study.run import Run
from sharpness.study.sharing import num_shared
from sharpness.study.work import Products, Work


@dataclass(frozen=True, kw_only=True)
class Job(Work):
    """What one job computes."""

    part: str  # train, or the name of a measurement
    run: Run


@dataclass(frozen=True)
class Rates:
    """Seconds on one device for one of each."""

    start: float  # of a job, until it computes
    gradient: float  # one update of the run's batch size
    evaluated: float  # an image
    product: Callable[[Products], float]  # one such product

    def seconds(self, job: Job, *, at_most: bool = False) -> float:
        """Of a job."""
        products = sum(self.product(some) * (some.at_most if at_most else some.expected) for some in job.products)
        return self.start + job.gradients * self.gradient + job.evaluated * self.evaluated + products


@dataclass(frozen=True)
class Sum:
    """All jobs of one part of a study."""

    part: str
    num_jobs: int
    gradients: int
    expected_products: float
    most_products: int
    hours: float
    most_hours: float


def work_of(study: Study, *, auto: Precision = "float32") -> list[Job]:
    """Every job of a study that computes on the device: training runs, then measurements.

    Args:
        study: the study.
        auto: what the precision "auto" of a search for eigenvectors is on the device.
    """
    trained = [_training(run, study.config) for run in study.runs.values()]
    measured = []
    for run, measurement, name in study.measured:
        settings = study.settings(measurement, name)
        if settings.get("precision") == "auto":
            settings["precision"] = auto
        for part, steps in study.parts(run, measurement, name).items():
            num_kept = num_shared(study, run, measurement, name, part)
            measured.append(_measurement(measurement, settings, study.runs[run], _num_states(part, steps), num_kept))
    return trained + measured


def summed(work: Iterable[Job], rates: Mapping[Run, Rates]) -> list[Sum]:
    """Sum the jobs of each part, in the order of their first jobs; ``rates`` has the rates of every run."""
    parts: dict[str, list[Job]] = {}
    for job in work:
        parts.setdefault(job.part, []).append(job)
    return [
        Sum(
            part=part,
            num_jobs=len(jobs),
            gradients=sum(job.gradients for job in jobs),
            expected_products=sum(some.expected for job in jobs for some in job.products),
            most_products=sum(some.at_most for job in jobs for some in job.products),
            hours=sum(rates[job.run].seconds(job) for job in jobs) / 3600,
            most_hours=sum(rates[job.run].seconds(job, at_most=True) for job in jobs) / 3600,
        )
        for part, jobs in parts.items()
    ]


def _num_states(part: str, steps: list[int]) -> int:
    return 2 if part == ENDS else len(steps)


def _held_out(run: Run) -> tuple[int, int]:
    """How many examples validate and test a run."""
    if arrays.is_own(run.data):
        # An estimate: how many examples a user's function returns, planning does not know.
        return arrays.split_sizes(run.num_training, 0)[1:]
    facts = catalogue.facts_of(run.data)
    return facts.num_validation, facts.num_test


def _training(run: Run, config: Mapping[str, Any]) -> Job:
    num_validation, num_test = _held_out(run)
    evaluations = 1 + sum(epoch <= run.epochs for epoch in config["evaluation_epochs"] or range(1, run.epochs + 1))
    found = Products.of_eigenpairs(
        run.num_directions, run.direction_products, run.direction_examples, run.direction_precision
    )
    # As stages.train_nudged: a quarter as many other examples.
    outside = Products.exactly(run.num_directions, max(1, run.direction_examples // 4))
    return Job(
        part="train",
        run=run,
        gradients=run.epochs * run.steps_per_epoch,
        evaluated=evaluations * (config["evaluation_examples"] + num_validation) + 2 * num_test,
        products=(found * run.epochs, outside * run.epochs) if run.is_nudged else (),
    )


def _measurement(name: str, settings: Mapping[str, Any], run: Run, num_states: int, num_kept: int) -> Job:
    """Count one job; of ``num_kept`` of its checkpoints the eigenpairs are kept by another, and not looked for."""
    measurement = MEASUREMENTS[name](**settings)
    work = measurement.work(run) * num_states
    spared = (measurement.products() * -num_kept,) if isinstance(measurement, OfHessian) and num_kept else ()
    products = (*work.products, *spared)
    return Job(part=name, run=run, gradients=work.gradients, evaluated=work.evaluated, products=products)
