"""One job in a process of its own, in the folder of all: ``python -m benchmarks.measure ROW``."""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import plan
from benchmarks.accuracy import as_text
from benchmarks.cost import costs
from benchmarks.jobs import LARGER, Job
from benchmarks.load import busy_seconds, wait_for_quiet
from benchmarks.machine import machine
from benchmarks.one_product import attention_for, product_row, training_step
from benchmarks.problem import Problem, load_problem, train
from benchmarks.tools import BASIS, importing
from benchmarks.verification import reference, worst_residual
from sharpness.runtime.files import write_text


def measure(job: Job, cache: Path) -> list[dict[str, Any]]:
    """The rows of the table that the job is: one, or of its costs one for each."""
    begin = time.perf_counter()
    if job.part == "train":
        found: dict[str, Any] = dict(train(job.network, cache=cache))
        return [found | {"seconds": time.perf_counter() - begin}]
    problem = load_problem(job.network, num_examples=job.num_examples, cache=cache)
    if job.part == "reference":
        values, products = reference(problem, num_pairs=job.num_pairs, cache=cache)
        seconds = time.perf_counter() - begin
        return [{"products": products, "seconds": seconds, "eigenvalues": as_text(values.tolist())}]
    if job.part == "cost":
        return costs(problem)
    if job.part in ("step", "matvec"):
        return [_one_pass(problem, job)]
    with attention_for(job.tool):
        return [_spectrum(problem, job, cache)]


def _one_pass(problem: Problem, job: Job) -> dict[str, Any]:
    """A training step, or a product."""
    begin = _clocks()
    found: dict[str, Any] = {}
    if job.part == "matvec":
        found = product_row(problem, job.tool)
    else:
        training_step(problem)
    return found | _used(begin) | {"num_weights": problem.num_weights}


def _clocks() -> tuple[float, float, float]:
    return _cpu_seconds(), busy_seconds(), time.perf_counter()


def _used(begin: tuple[float, float, float]) -> dict[str, float]:
    """What was used since then, and the peak of memory."""
    cpu_seconds, busy, seconds = (now - then for now, then in zip(_clocks(), begin, strict=True))
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "process_cpu_seconds": _cpu_seconds(),
        "foreign_cpu_seconds": max(0.0, busy - cpu_seconds),
        "peak_mib": _kibibytes("VmHWM") / 1024,
    }


class _TooLongError(Exception):
    """The CPU time of a library is over."""


def _stop(*_: object) -> None:
    raise _TooLongError


def _spectrum(problem: Problem, job: Job, cache: Path) -> dict[str, Any]:
    solve = importing(job.tool)
    begin = _clocks()
    if job.network in LARGER:
        signal.signal(signal.SIGPROF, _stop)
        signal.setitimer(signal.ITIMER_PROF, plan.MOST_CPU_SECONDS)
    try:
        solution = solve(problem, job)
    except _TooLongError:
        return _used(begin) | {"stopped": True, "num_weights": problem.num_weights}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    found: dict[str, Any] = {
        **_used(begin),
        "products": solution.num_products,
        "probing": solution.num_probing,
        "certifying": solution.num_certifying,
        "converged": solution.converged,
        "complete": solution.complete,
        "claimed_residual": solution.claimed_residual,
        "num_weights": problem.num_weights,
        "basis_mib": BASIS / 2**20 if job.network in LARGER and job.tool.startswith("ours") else None,
        "eigenvalues": as_text(solution.eigenvalues.tolist()),
    }
    if job.verify:
        # A new one: a tool may have left gradients and their graphs at the old one.
        again = load_problem(job.network, num_examples=job.num_examples, cache=cache)
        with attention_for(""):
            found["residual"] = worst_residual(again, solution)
    return found


def _kibibytes(name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    assert match is not None
    return int(match[1])


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Write the rows of the job that leaves them, with the machine; a failure is told in one line."""
    (place,) = sys.argv[1:]
    (job,) = (job for job in [*plan.jobs(), *plan.larger()] if job.row == place)
    if job.network in LARGER:
        torch.set_num_threads(1)
    wait_for_quiet(at_most=20.0)
    try:
        found = measure(job, Path())
    except Exception as error:
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))
    rows = [asdict(job) | row | machine() for row in found]
    write_text(json.dumps(rows), Path(place))


if __name__ == "__main__":
    main()
