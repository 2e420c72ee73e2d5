"""When the checkpoints of a run are kept: named schedules, and the parts into which their steps are cut."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sharpness.study.run import Run
from sharpness.study.settings import setting


@dataclass(frozen=True)
class Schedule:
    """When checkpoints are kept: the union of what its fields ask for."""

    at_epochs: tuple[float, ...] = setting(
        [],
        "times in epochs, fractions included",
        in_code=True,
        uniqueItems=True,
        items={"type": "number", "minimum": 0, "maximum": 100_000},
    )
    doubling_epochs: float = setting(
        0,
        "epochs from the start in which checkpoints are kept at steps 0, 1, 2, 4, 8, ...; 0 for none",
        in_code=True,
        minimum=0,
        maximum=100_000,
    )
    dense_epochs: float = setting(
        0, "epochs from the start that are kept densely; 0 for none", in_code=True, minimum=0, maximum=100_000
    )
    dense_images: int = setting(
        512,
        "training images between two dense checkpoints (at least one step)",
        in_code=True,
        minimum=1,
        maximum=100_000_000,
    )
    every_epochs: int | None = setting(
        None,
        "epochs between checkpoints after the dense ones; the last step is kept too; null for none",
        in_code=True,
        minimum=1,
        maximum=100_000,
    )

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Schedule:
        """A named schedule of a study's file."""
        return cls(**{**section, "at_epochs": tuple(section.get("at_epochs", ()))})

    def steps(self, run: Run) -> list[int]:
        """The steps of ``run`` that the schedule keeps, ascending; times after its end are left out."""
        per_epoch, last = run.steps_per_epoch, run.steps_per_epoch * run.epochs
        steps = {round(epoch * per_epoch) for epoch in self.at_epochs}
        if (doubling_end := round(self.doubling_epochs * per_epoch)) > 0:
            steps.update({0, *(1 << power for power in range(doubling_end.bit_length()) if 1 << power <= doubling_end)})
        dense_end = round(self.dense_epochs * per_epoch)
        steps.update(range(0, min(dense_end, last + 1), max(1, self.dense_images // run.examples_per_step)))
        if self.every_epochs is not None:
            first = -(-dense_end // per_epoch)  # the first whole epoch that is not dense
            steps.update(range(first * per_epoch, last + 1, self.every_epochs * per_epoch))
            steps.add(last)
        return sorted(step for step in steps if step <= last)


# Schedules that every study has; one that it declares under the same name takes its place.
SCHEDULES: dict[str, dict[str, Any]] = {
    "trajectory": {"dense_epochs": 2, "dense_images": 512, "every_epochs": 1},
    "few": {"at_epochs": [0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]},
    "switch": {"at_epochs": [1]},
}


def chunks_of(steps: Sequence[int], num_chunks: int) -> list[list[int]]:
    """``steps`` in order, cut into exactly ``num_chunks`` lists as equal as can be (some empty where steps are few)."""
    size, longer = divmod(len(steps), num_chunks)
    ends = list(itertools.accumulate(size + (index < longer) for index in range(num_chunks)))
    return [list(steps[begin:end]) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
