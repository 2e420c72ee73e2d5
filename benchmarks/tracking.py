"""What tracking costs in CPU time, beside the same training without it: ``python -m benchmarks.tracking``.

What was measured on other kinds of processors stays on the page.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.machine import machine, of_other_kinds
from benchmarks.problem import build, examples
from sharpness import CurvatureTracker
from sharpness.runtime.files import write_table, write_text
from sharpness.runtime.streams import stream

NETWORK, BATCH_SIZE, NUM_EXAMPLES, NUM_PAIRS, EVERY = "simple_cnn", 128, 256, 2, 50
WANTED = 1.3
_RATE, _IMAGES = 0.05, 1_797
_FOLDER = Path(__file__).parent.parent / "results" / "bench"


def main() -> None:
    """Measure, and write the table and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=20, help=f"of {EVERY} steps, each with one measurement, at most")
    parser.add_argument("--minutes", type=float, default=4, help="of all measurements together")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="where tracking.csv and tracking.md go")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    # Threads that wait for each other count as CPU time.
    torch.set_num_threads(1)
    path, here = options.folder / "tracking.csv", machine() | {"threads": 1}
    table = pd.concat([pd.DataFrame([tracking_cost(options.blocks, end) | here]), of_other_kinds(path)])
    write_table(table.to_dict("records"), path)
    write_text(report(table), options.folder / "tracking.md")


def report(table: pd.DataFrame) -> str:
    """The page, in Markdown: a line for every processor."""
    lines = [
        f"| {row.cpu} ({row.kind}), {row.versions} | {row.ratio:.2f} (at most {WANTED}) | {row.steps:,} | "
        f"{row.num_products} in {row.num_measurements} | {row.num_searches} | {row.median_residual:.1g} |"
        for row in table.itertuples()
    ]
    return "\n".join(
        [
            "# What tracking costs",
            "",
            f"SGD on SimpleCNN, digits at 3x32x32, batch {BATCH_SIZE}; the tracker follows {NUM_PAIRS} eigenvalues on "
            f"{NUM_EXAMPLES} examples, every {EVERY} steps, with its own defaults. The same training without it takes "
            f"turns with it, {EVERY} steps at a time, on one thread, and ends at the same weights to the bit. The "
            "ratio is that of their CPU times, the first search included.",
            "",
            "| processor | with / without | steps | products | searches | median residual |",
            "| --- | --- | --- | --- | --- | --- |",
            *lines,
            "",
        ]
    )


class _Training:
    """SGD on digits, with or without a tracker; both take the same steps."""

    def __init__(self, *, tracked: bool) -> None:
        self._inputs, self._targets = examples(_IMAGES)
        self.model = build(NETWORK)
        self._optimizer = torch.optim.SGD(self.model.parameters(), lr=_RATE)
        self._generator = stream(0, "batches of the benchmark of tracking")
        self.tracker: CurvatureTracker | None = None
        if tracked:
            data = self._inputs[:NUM_EXAMPLES], self._targets[:NUM_EXAMPLES]
            self.tracker = CurvatureTracker(
                self.model, data, optimizer=self._optimizer, every=EVERY, num_pairs=NUM_PAIRS
            )

    def step(self) -> None:
        """Make one step, and let the tracker see it."""
        chosen = torch.randint(0, _IMAGES, (BATCH_SIZE,), generator=self._generator)
        self._optimizer.zero_grad()
        loss = functional.cross_entropy(self.model(self._inputs[chosen]), self._targets[chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        if self.tracker is not None:
            self.tracker.step()

    @property
    def weights(self) -> Tensor:
        """All weights, [P]."""
        return torch.cat([weight.detach().reshape(-1) for weight in self.model.parameters()])


def tracking_cost(most_blocks: int, end: float = math.inf) -> dict[str, float]:
    """Measure both trainings in turns, ``EVERY`` steps at a time, and return what tracking adds.

    Args:
        most_blocks: turns of each.
        end: by the monotonic clock; no turn begins that would not end before, but for the first.

    Raises:
        RuntimeError: the weights of the two trainings differ.
    """
    plain, tracked = (_Training(tracked=tracked) for tracked in (False, True))
    assert tracked.tracker is not None
    seconds = {"plain": 0.0, "tracked": 0.0}
    num_blocks, longest, begin = 0, 0.0, time.monotonic()
    while num_blocks < most_blocks and (not num_blocks or time.monotonic() + longest < end):
        for name, training in (("plain", plain), ("tracked", tracked)):
            seconds[name] += _cpu_seconds(training.step)
        num_blocks, longest, begin = num_blocks + 1, max(longest, time.monotonic() - begin), time.monotonic()
    if not torch.equal(plain.weights, tracked.weights):
        raise RuntimeError("the tracker has changed the training")
    history = tracked.tracker.history
    return {
        "steps": num_blocks * EVERY,
        "plain_cpu_seconds": seconds["plain"],
        "tracked_cpu_seconds": seconds["tracked"],
        "ratio": seconds["tracked"] / seconds["plain"],
        "num_measurements": len(history),
        "num_products": sum(record.num_products for record in history),
        "num_searches": sum("search" in record.found_by for record in history),
        "median_residual": sorted(record.residuals[0] for record in history)[len(history) // 2],
    }


def _cpu_seconds(step: Callable[[], None]) -> float:
    begin = time.process_time()
    for _ in range(EVERY):
        step()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
