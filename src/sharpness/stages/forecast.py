"""Print what a study will cost on this device: its plan, counted, and a short calibration. Nothing of it is run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

import sharpness
from sharpness.data import catalogue
from sharpness.hessian.loss import Loss, flatten
from sharpness.hessian.operator import HessianOperator
from sharpness.runtime.device import choose_device, fast_precision
from sharpness.runtime.stage import run_stage
from sharpness.study.forecast import Job, Rates, Sum, summed, work_of
from sharpness.study.plan import study_in
from sharpness.study.run import Run
from sharpness.study.work import Products
from sharpness.training import models
from sharpness.training.descent import Descent

# Seconds that one measurement of the calibration may take, and repetitions of it.
_SECONDS = 1.0
_ROUNDS = 3
# With more examples, a product takes as much longer.
_EXAMPLES = 1000


def forecast(config: Path, threads: int = 1) -> None:
    """Print runs, steps, products and hours of each part of a study.

    Args:
        config: the study's file.
        threads: of the CPU, for each job.
    """
    began = time.monotonic()
    study = study_in(config)
    if study.trials:
        raise ValueError(f"{config}: the cost of networks and data of your own cannot be forecast")
    device = choose_device(threads=threads)
    work = work_of(study, auto=fast_precision(device))
    runs = {job.run for job in work}
    # Runs of one network, shape, batch size and precision take the same time a step.
    calibrated = {_alike(run): run for run in runs}
    print(
        f"Calibrating {len(calibrated)} kind{'' if len(calibrated) == 1 else 's'} of runs on {_title(device)} ...",
        flush=True,
    )
    start = _start_seconds()
    rates = {alike: _calibrate(run, device, start) for alike, run in calibrated.items()}
    parts = summed(work, {run: rates[_alike(run)] for run in runs})
    print(f"\nThe study {study.name}, {len(study.runs)} runs\n")
    for line in _lines(parts, "GPU hours" if device.type == "cuda" else "core hours"):
        print(line)
    print(
        "\nSteps are updates and other gradients of a mini-batch. Products and hours are expected values; in\n"
        "brackets the worst case, in which no eigenvector converges before the study's limit. A run that stops early\n"
        "takes less; jobs beside one another on one device take longer."
        f" Calibrated in {time.monotonic() - began:.0f} s."
    )
    if fast_precision(device) == "float32" and _in_bfloat16(work):
        print("\nParts of it compute in bfloat16, which this device emulates: float32 is many times faster here.")


def _in_bfloat16(work: Iterable[Job]) -> bool:
    """Whether a run's steps or any product is in bfloat16."""
    return any("bfloat16" in (job.run.precision, *(some.precision for some in job.products)) for job in work)


def _alike(run: Run) -> tuple[object, ...]:
    return run.data, run.model, run.padding, run.examples_per_step, run.precision, run.momentum, run.optimizer


def _title(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)} of this CPU"


def _calibrate(run: Run, device: torch.device, start: float) -> Rates:
    """Measure a run's updates, its evaluation and its products, on random images of the right shape."""
    facts = catalogue.facts_of(run.data)
    model = models.build(
        run.model, facts.input_shape, facts.num_classes, padding=run.padding, init_scale=run.init_scale
    )
    loss = Loss(model, l2=run.l2)
    weights, buffers = (tensor.to(device) for tensor in flatten(model))
    size = min(run.examples_per_step, 4096)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(size, *facts.input_shape, generator=generator).to(device)
    targets = torch.randint(facts.num_classes, (size,), generator=generator).to(device)
    # No step moves far: the time does not depend on the weights.
    descent = Descent(
        loss,
        weights,
        buffers,
        learning_rate=1e-6,
        momentum=run.momentum,
        optimizer=run.update,
        low_precision=run.precision == "bfloat16",
    )
    gradient = _seconds(lambda: descent.step(inputs, targets, None, gamma=1, gamma_outside=1), device)
    several = inputs[torch.arange(512) % size], targets[torch.arange(512) % size]
    evaluated = _seconds(lambda: loss.value(weights, buffers, *several), device) / 512
    times: dict[tuple[int, str], float] = {}

    def product(some: Products) -> float:
        timed = min(some.num_examples, _EXAMPLES)
        key = timed, some.precision
        if key not in times:
            chosen = torch.arange(timed) % size
            operator = HessianOperator(model.to(device), inputs[chosen], targets[chosen], precision=some.precision)
            vector = torch.randn(operator.shape[0], generator=generator).to(device)
            times[key] = _seconds(lambda: operator @ vector, device)
        return times[key] * some.num_examples / timed

    return Rates(start, gradient * run.examples_per_step / size, evaluated, product)


def _start_seconds() -> float:
    """Until a job computes: Python and what it imports."""
    environment = os.environ | {"PYTHONPATH": str(Path(sharpness.__file__).parent.parent)}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import sharpness.stages.measure"], env=environment, check=True)
    return time.perf_counter() - began


def _seconds(task: Callable[[], object], device: torch.device) -> float:
    """Of one call: the median of a few rounds, after one to get ready."""

    def timed(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            task()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / count

    timed(1)
    count = max(1, min(100, int(_SECONDS / _ROUNDS / max(timed(1), 1e-4))))
    return statistics.median(timed(count) for _ in range(_ROUNDS))


def _lines(parts: list[Sum], unit: str) -> Iterable[str]:
    yield f"{'part':<12}{'jobs':>7}{'steps':>13}{'products':>24}{unit:>22}"
    whole = Sum(
        "all",
        sum(part.num_jobs for part in parts),
        sum(part.gradients for part in parts),
        sum(part.expected_products for part in parts),
        sum(part.most_products for part in parts),
        sum(part.hours for part in parts),
        sum(part.most_hours for part in parts),
    )
    for part in [*parts, whole]:
        products = f"{part.expected_products:,.0f} ({part.most_products:,})"
        hours = f"{part.hours:,.3g} ({part.most_hours:,.3g})"
        yield f"{part.part:<12}{part.num_jobs:>7,}{part.gradients:>13,}{products:>24}{hours:>22}"


if __name__ == "__main__":
    run_stage(forecast)
