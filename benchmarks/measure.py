"""One job in a process of its own, in the folder of all: ``python -m benchmarks.measure THREADS SITTING ROW``."""

from __future__ import annotations

import gc
import json
import re
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import plan
from benchmarks.accuracy import as_text
from benchmarks.cost import convolution_rate, product_operations, time_product
from benchmarks.jobs import Job
from benchmarks.load import busy_seconds, wait_for_quiet
from benchmarks.machine import machine
from benchmarks.problem import load_problem, train
from benchmarks.tools import importing
from benchmarks.verification import reference, worst_residual
from sharpness.runtime.files import write_text


def measure(job: Job, cache: Path) -> dict[str, Any]:
    """What the job found, by column of the table."""
    begin = time.perf_counter()
    if job.part == "train":
        found: dict[str, Any] = dict(train(job.network, width=job.width, cache=cache))
        return found | {"seconds": time.perf_counter() - begin}
    problem = load_problem(job.network, width=job.width, num_examples=job.num_examples, cache=cache)
    if job.part == "reference":
        values, products = reference(problem, num_pairs=job.num_pairs, cache=cache)
        seconds = time.perf_counter() - begin
        return {"products": products, "seconds": seconds, "eigenvalues": as_text(values.tolist())}
    if job.part == "rate":
        return {
            "operations_per_second": convolution_rate(problem, job.tool),
            "operations_per_product": product_operations(problem),
        }
    if job.part == "product":
        return {"seconds": time_product(problem, job.tool), "num_weights": problem.num_weights}
    return _spectrum(job, cache)


def _spectrum(job: Job, cache: Path) -> dict[str, Any]:
    problem = load_problem(job.network, width=job.width, num_examples=job.num_examples, cache=cache)
    solve = importing(job.tool)
    gc.collect()
    before = _start_of_peak()
    cpu, busy, begin = _cpu_seconds(), busy_seconds(), time.perf_counter()
    solution = solve(problem, job)
    seconds, cpu_seconds, all_busy = time.perf_counter() - begin, _cpu_seconds() - cpu, busy_seconds() - busy
    found = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "foreign_cpu_seconds": max(0.0, all_busy - cpu_seconds),
        "peak_mib": (_kibibytes("VmHWM") - before) / 1024,
        "products": solution.num_products,
        "probing": solution.num_probing,
        "certifying": solution.num_certifying,
        "converged": solution.converged,
        "complete": solution.complete,
        "claimed_residual": solution.claimed_residual,
        "num_weights": problem.num_weights,
        "eigenvalues": as_text(solution.eigenvalues.tolist()),
    }
    if job.verify:
        # A new one: a tool may have left gradients and their graphs at the old one.
        again = load_problem(job.network, width=job.width, num_examples=job.num_examples, cache=cache)
        del problem
        gc.collect()
        found["residual"] = worst_residual(again, solution)
    return found


def _start_of_peak() -> int:
    """Forget the highest use of memory so far; the present one in KiB."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return _kibibytes("VmRSS")


def _kibibytes(name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    assert match is not None
    return int(match[1])


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Write the row of the job that leaves it, with the machine and the sitting; a failure is told in one line."""
    threads, sitting, place = sys.argv[1:]
    (job,) = (job for job in plan.full() if job.row == place)
    torch.set_num_threads(int(threads))
    wait_for_quiet(at_most=60.0)
    try:
        found = measure(job, Path())
    except Exception as error:
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))
    row = asdict(job) | found | machine(int(threads)) | {"sitting": int(sitting)}
    write_text(json.dumps(row), Path(place))


if __name__ == "__main__":
    main()
