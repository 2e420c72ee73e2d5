"""What a study will cost: the work of each of its jobs, counted from its plan, before any of it is done. No torch.

Steps and images are counted exactly, up to runs that stop early or diverge. Products are not known before: an
eigensolver takes as many as it takes. Expected are 8 + 2 k for k eigenvalues, which is what the demo's spectra took in
the median to a residual of 1e-2 (k = 2, 5, 10 and 30: 10, 17, 22 and 70); at most is what the study allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sharpness.data import catalogue
from sharpness.runtime.precision import Precision
from sharpness.study.plan import ENDS, Study
from sharpness.study.run import Run


@dataclass(frozen=True)
class Products:
    """Hessian-vector products on so many examples."""

    expected: float
    at_most: int
    num_examples: int
    precision: Precision


@dataclass(frozen=True)
class Work:
    """What one job computes."""

    part: str  # train, or the name of a measurement
    run: Run
    gradients: int  # of mini-batches of the run's size
    evaluated: int  # images on which the loss is evaluated, without a gradient
    products: tuple[Products, ...]


@dataclass(frozen=True)
class Rates:
    """Seconds on one device for one of each."""

    start: float  # of a job, until it computes
    gradient: float  # one update of the run's batch size
    evaluated: float  # an image
    product: Callable[[Products], float]  # one such product

    def seconds(self, work: Work, *, at_most: bool = False) -> float:
        """Of a job."""
        products = sum(self.product(some) * (some.at_most if at_most else some.expected) for some in work.products)
        return self.start + work.gradients * self.gradient + work.evaluated * self.evaluated + products


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


def work_of(study: Study, *, auto: Precision = "float32") -> list[Work]:
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
        parts = study.parts(run, measurement, name).items()
        measured += [_measurement(measurement, settings, study.runs[run], _num_states(*part)) for part in parts]
    return trained + measured


def summed(work: Iterable[Work], rates: Mapping[Run, Rates]) -> list[Sum]:
    """The jobs of each part together, in the order of their first; ``rates`` has those of every run."""
    parts: dict[str, list[Work]] = {}
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


def _training(run: Run, config: Mapping[str, Any]) -> Work:
    facts = catalogue.source(run.data)
    evaluations = 1 + sum(epoch <= run.epochs for epoch in config["evaluation_epochs"] or range(1, run.epochs + 1))
    products: tuple[Products, ...] = ()
    if run.is_nudged:
        found = _eigenpairs(run.num_directions, run.direction_products, run.direction_examples, run.direction_precision)
        products = (_times(run.epochs, found),)
    return Work(
        part="train",
        run=run,
        gradients=run.epochs * run.steps_per_epoch,
        evaluated=evaluations * (config["evaluation_examples"] + facts.num_validation) + 2 * facts.num_test,
        products=products,
    )


def _measurement(measurement: str, settings: Mapping[str, Any], run: Run, num_states: int) -> Work:
    gradients, evaluated, products = _COUNTS[measurement](settings, run)
    return Work(
        part=measurement,
        run=run,
        gradients=num_states * gradients,
        evaluated=num_states * evaluated,
        products=tuple(_times(num_states, some) for some in products),
    )


def _eigenpairs(num_pairs: int, max_products: int, num_examples: int, precision: Precision = "float32") -> Products:
    return Products(min(max_products, 8 + 2 * num_pairs), max_products, num_examples, precision)


def _times(count: int, products: Products) -> Products:
    at_most = count * products.at_most
    return Products(count * products.expected, at_most, products.num_examples, products.precision)


def _exactly(count: int, num_examples: int, precision: Precision = "float32") -> Products:
    return Products(count, count, num_examples, precision)


_Counts = tuple[int, int, list[Products]]  # gradients, images evaluated and products at one checkpoint


def _spectrum(settings: Mapping[str, Any], _: Run) -> _Counts:
    num_pairs, num_examples = settings["num_eigenvalues"], settings["num_examples"]
    found = _eigenpairs(num_pairs, settings["max_products"], num_examples, settings["precision"])
    # After a search in low precision each pair takes a product in float32, or a few.
    precision: Precision = settings["precision"]
    certified = num_pairs if precision != "float32" else 0
    probed = _exactly(settings["probe_products"], num_examples, precision)
    return 0, 0, [found, probed, _exactly(certified + settings["frobenius_products"], num_examples)]


def _density(settings: Mapping[str, Any], _: Run) -> _Counts:
    stochastic = settings["num_probes"] * settings["num_steps"] + settings["trace_products"]
    found = _eigenpairs(settings["num_eigenvalues"], settings["max_products"], settings["num_examples"])
    return 0, 0, [found, _exactly(stochastic + settings["frobenius_products"], settings["num_examples"])]


def _slices(settings: Mapping[str, Any], _: Run) -> _Counts:
    found = _eigenpairs(1, settings["max_products"], settings["num_examples"])
    return settings["num_batches"], len(settings["scales"]) * settings["loss_examples"], [found]


def _steps(settings: Mapping[str, Any], _: Run) -> _Counts:
    # Along the top eigenvector, along a random direction, and whole.
    taken = 3 * len(settings["alphas"]) * settings["num_batches"]
    found = _eigenpairs(1, settings["max_products"], settings["num_examples"])
    return taken, (taken + 1) * settings["loss_examples"], [found]


def _variants(settings: Mapping[str, Any], _: Run) -> _Counts:
    num_steps, renew = settings["num_steps"], settings["renew_every"]
    measured = num_steps // settings["measure_every"] + 1
    found = _eigenpairs(settings["num_directions"], settings["max_products"], settings["num_examples"])
    products = [_times(measured, found)]
    if renew is not None:
        followed = num_steps // renew + 1 - measured
        # Where following does not get there, the eigenvectors are looked for anew.
        most = settings["follow_products"] + settings["max_products"]
        each = Products(settings["follow_products"], most, settings["num_examples"], "float32")
        products.append(_times(max(followed, 0), each))
    return num_steps + 1, measured * settings["loss_examples"], products


def _gradients(settings: Mapping[str, Any], run: Run) -> _Counts:
    whole = -(-settings["loss_examples"] // run.examples_per_step)
    found = _eigenpairs(settings["num_eigenvalues"], settings["max_products"], settings["num_examples"])
    return settings["num_batches"] + whole, 0, [found, _exactly(settings["num_batches"], run.examples_per_step)]


_COUNTS: dict[str, Callable[[Mapping[str, Any], Run], _Counts]] = {
    "spectrum": _spectrum,
    "density": _density,
    "slices": _slices,
    "steps": _steps,
    "variants": _variants,
    "gradients": _gradients,
}
