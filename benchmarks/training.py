"""What a step of training costs, beside plain PyTorch loops: ``python -m benchmarks.training [--minutes M]``.

What was measured on other processors stays on the page.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch

from benchmarks.cost import layers_alone, step_operations
from benchmarks.jobs import NETWORKS
from benchmarks.load import until, wait_for_quiet
from benchmarks.machine import machine, of_other_kinds
from benchmarks.problem import Problem, build, examples
from benchmarks.training_loops import FLOOR, LOOPS, PEAK, PEAK_SIZE
from benchmarks.training_report import SETTINGS, report
from sharpness.runtime.device import choose_device, fast_precision
from sharpness.runtime.files import write_table, write_text

_ROUNDS = 3
# So long, or two steps: one of the ResNet on 1024 images takes seconds.
_SECONDS = 1.0
_OF_NUDGING = 0.25  # of the time
_SIDE_BY_SIDE = ("ours", "ours, augmented", "ours, bfloat16", FLOOR, PEAK)
_FOLDER = Path(__file__).parent.parent / "results" / "bench"


def main() -> None:
    """Measure all loops in turns until the time is over; write the table and the page after each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=6, help="of all measurements together")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="where training.csv and training.md go")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        network, batch, threads, device = options.child
        _child(network, int(batch), int(threads), torch.device(device))
        return
    begin, here = time.monotonic(), machine()
    end = begin + 60 * options.minutes
    speeds, ways = options.folder / "training.csv", options.folder / "nudging.csv"
    others = of_other_kinds(speeds)
    wait_for_quiet(at_most=30)
    if len(measured := _nudging(_OF_NUDGING * (end - time.monotonic()))):
        table = pd.concat([measured.assign(**here), of_other_kinds(ways)])
        write_table(table.to_dict("records"), ways)
    nudging = pd.read_csv(ways) if ways.exists() else pd.DataFrame({"kind": []})
    rows: list[dict[str, object]] = []
    with until(end):
        for number, (batch, network) in enumerate(SETTINGS, 1):
            for of_round in _setting(network, batch):
                rows += of_round
                table = pd.concat([pd.DataFrame(rows).assign(**here), others])
                write_table(table.to_dict("records"), speeds)
                write_text(report(table, nudging), options.folder / "training.md")
            print(f"[{number}/{len(SETTINGS)}] {NETWORKS[network]}, batch {batch}", flush=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _nudging(seconds: float) -> pd.DataFrame:
    """What was measured of Nudged SGD in so many seconds."""
    command = [sys.executable, "-m", "benchmarks.nudging"]
    try:
        lines = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds).stdout
    except subprocess.TimeoutExpired as over:
        lines = over.stdout or b""
    return pd.DataFrame([json.loads(line) for line in lines.splitlines(keepends=True) if line.endswith(b"\n")])


def _setting(network: str, batch: int) -> Iterator[list[dict[str, object]]]:
    """Whole rounds: all loops in turns, alone on all cores; some side by side, of one thread each."""
    with (
        Runs(network, batch, processes=1, threads=_cores()) as alone,
        Runs(network, batch, processes=_cores(), threads=1) as side_by_side,
    ):
        asked = [(alone, loop) for loop in (*LOOPS, FLOOR, PEAK)] + [(side_by_side, loop) for loop in _SIDE_BY_SIDE]
        # Emulated, it would take the time of all others: the page says that it is left out.
        if fast_precision(torch.device("cpu")) != "bfloat16":
            asked = [(runs, loop) for runs, loop in asked if loop != "ours, bfloat16"]
        for number in range(_ROUNDS):
            found: list[dict[str, object]] = []
            for runs, loop in asked:
                found.append(
                    {
                        "network": network,
                        "batch_size": batch,
                        "loop": loop,
                        "processes": runs.processes,
                        "threads_of_each": runs.threads,
                        "round": number,
                        "images_per_second": runs.speed(loop),
                    }
                )
            yield found


def _step(loop: str, network: str, batch: int, device: torch.device) -> tuple[Callable[[], object], float]:
    """One step of a loop, and how many images it is."""
    if loop in LOOPS:
        return LOOPS[loop](network, batch, device), batch
    problem = Problem(build(network).eval(), *examples(1))
    if loop == FLOOR:
        return layers_alone(problem, batch), batch
    one, other = torch.ones(2, PEAK_SIZE, PEAK_SIZE)
    return lambda: torch.mm(one, other), 2 * PEAK_SIZE**3 / step_operations(problem)


class Runs:
    """Processes that train at the same time, one loop after the other, as they are asked to."""

    def __init__(self, network: str, batch: int, *, processes: int, threads: int, device: str = "cpu") -> None:
        self.processes, self.threads = processes, threads
        command = [sys.executable, "-m", "benchmarks.training", "--child", network, str(batch), str(threads), device]
        self._children = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
            for _ in range(processes)
        ]

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for child in self._children:
            if error is not None:
                child.kill()
            child.communicate()

    def speed(self, loop: str) -> float:
        """Images per second of all processes together."""
        self._tell_all(loop)
        for child in self._children:
            assert child.stdout is not None
            child.stdout.readline()  # it is warm
        self._tell_all("go")
        return sum(float(child.stdout.readline()) for child in self._children if child.stdout is not None)

    def _tell_all(self, line: str) -> None:
        for child in self._children:
            assert child.stdin is not None
            child.stdin.write(line + "\n")
            child.stdin.flush()


def _child(network: str, batch: int, threads: int, device: torch.device) -> None:
    """For every loop that a line of standard input names: get warm, say so, wait for a line, and print the speed."""
    torch.set_num_threads(threads)
    if device.type == "cuda":
        choose_device(threads=threads)
    while loop := sys.stdin.readline().strip():
        step, images = _step(loop, network, batch, device)
        _repeat(step, device, seconds=0.0)
        print("warm", flush=True)
        sys.stdin.readline()
        steps, seconds = _repeat(step, device, seconds=_SECONDS)
        print(steps * images / seconds, flush=True)


def _repeat(step: Callable[[], object], device: torch.device, *, seconds: float) -> tuple[int, float]:
    begin, steps = time.perf_counter(), 0
    while steps < 2 or time.perf_counter() - begin < seconds:
        step()
        steps += 1
    if device.type == "cuda":
        torch.cuda.synchronize()
    return steps, time.perf_counter() - begin


if __name__ == "__main__":
    main()
