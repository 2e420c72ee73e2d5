"""What training and a spectrum cost on a GPU, beside other ways: ``python -m benchmarks.gpu``; minutes."""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import torch

from benchmarks.gpu_report import report
from benchmarks.jobs import CHUNK_SIZE, NUM_EXAMPLES, TRAINED, Job
from benchmarks.problem import Problem, load_problem, train
from benchmarks.products import double_backward, gradient
from benchmarks.tools import importing
from benchmarks.training import Runs
from benchmarks.training_loops import LOOPS
from benchmarks.training_report import BATCHES
from benchmarks.verification import worst_residual
from sharpness.hessian.operator import HessianOperator
from sharpness.runtime.device import choose_device
from sharpness.runtime.files import write_table, write_text
from sharpness.runtime.streams import stream

_FOLDER = Path(__file__).parent.parent / "results" / "bench"
_ROUNDS = 3
_SECONDS = 0.3  # of each timing
_SHARING = (1, 4)  # runs at a time on one GPU
_TOOLS = ("ours float32", "ours tf32", "ours bfloat16", "scipy LM", "curvlinops", "eigenthings", "pyhessian")

Row = dict[str, object]


def main() -> None:
    """Measure the parts asked for, all of them unless told otherwise, and write the table and the page."""
    parts = {"training": _training, "sharing": _sharing, "product": _products, "spectrum": _spectra}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts), help="what to measure")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="where gpu.csv and gpu.md go")
    options = parser.parse_args()
    device = choose_device(threads=1)
    if device.type != "cuda":
        parser.error("needs a GPU: torch.cuda.is_available() is false")
    made_by = {"gpu": torch.cuda.get_device_name(device), "torch": torch.__version__}
    rows: list[Row] = []
    for part in options.parts:
        for row in parts[part](device):
            rows.append({"part": part, **row, **made_by})
            print(row, flush=True)
            write_table(rows, options.folder / "gpu.csv")
    write_text(report(options.folder / "gpu.csv"), options.folder / "gpu.md")


def _training(device: torch.device) -> Iterator[Row]:
    for network, batch in itertools.product(TRAINED, BATCHES):
        steps = {loop: make(network, batch, device) for loop, make in LOOPS.items()}
        times = _in_turns(steps)
        for loop, seconds in times.items():
            yield {"network": network, "batch_size": batch, "tool": loop, "images_per_second": batch / seconds}


def _sharing(_: torch.device) -> Iterator[Row]:
    for network, processes in itertools.product(TRAINED, _SHARING):
        with Runs(network, 128, processes=processes, threads=1, device="cuda") as runs:
            speed = runs.speed("ours, augmented")
        yield {
            "network": network,
            "batch_size": 128,
            "tool": "ours, augmented",
            "processes": processes,
            "images_per_second": speed,
        }


def _products(device: torch.device) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as cache:
        for network in TRAINED:
            problem = _problem(network, Path(cache), device)
            vector = torch.randn(problem.num_weights, generator=stream(0, "vector")).to(device)
            kinds: dict[str, Callable[[], object]] = {
                "gradient": partial(gradient, problem),
                "double backward": partial(double_backward(problem), vector),
            }
            for precision in ("float32", "tf32", "bfloat16"):
                operator = HessianOperator(
                    problem.model,
                    problem.inputs,
                    problem.targets,
                    chunk_size=CHUNK_SIZE,
                    precision=precision,
                )
                kinds[f"ours {precision}"] = partial(operator.__matmul__, vector)
            for kind, seconds in _in_turns(kinds).items():
                yield {"network": network, "num_examples": NUM_EXAMPLES, "tool": kind, "seconds": seconds}


def _spectra(device: torch.device) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as cache:
        for network, (number, tool) in itertools.product(TRAINED, enumerate(("ours float32", *_TOOLS))):
            problem = _problem(network, Path(cache), device)
            job = Job("spectrum", network, tool)
            solve = importing(tool)
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            begin = time.perf_counter()
            solution = solve(problem, job)
            torch.cuda.synchronize()
            seconds = time.perf_counter() - begin
            peak = torch.cuda.max_memory_allocated() - before
            if number == 0:
                continue  # in the very first, libraries are loaded that all later ones find there
            yield {
                "network": network,
                "num_examples": NUM_EXAMPLES,
                "tool": tool,
                "seconds": seconds,
                "products": solution.num_products,
                "probing": solution.num_probing,
                "certifying": solution.num_certifying,
                "peak_mib": peak / 2**20,
                "residual": worst_residual(problem, solution),
            }


def _problem(network: str, cache: Path, device: torch.device) -> Problem:
    """The network, trained here where it has not been."""
    if not any(cache.glob(f"{network}-*")):
        train(network, cache=cache, device=device)
    return load_problem(network, num_examples=NUM_EXAMPLES, cache=cache, device=device)


def _in_turns(functions: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of a call of each, the median over rounds in which they take turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        _seconds(function, 0.0)
    for _ in range(_ROUNDS):
        for name, function in functions.items():
            times[name].append(_seconds(function, _SECONDS))
    return {name: median(of) for name, of in times.items()}


def _seconds(function: Callable[[], object], at_least: float) -> float:
    torch.cuda.synchronize()
    begin, calls = time.perf_counter(), 0
    while calls < 4 or time.perf_counter() - begin < at_least:
        function()
        calls += 1
        if calls % 16 == 0:
            torch.cuda.synchronize()  # a host that runs ahead does not see the time
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / calls


if __name__ == "__main__":
    main()
