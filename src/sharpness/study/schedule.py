"""When the checkpoints of a run are kept: named schedules, and the parts into which their steps are cut."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sharpness.study.run import Run


@dataclass(frozen=True)
class Schedule:
    """When checkpoints are kept: the union of what its fields ask for."""

    at_epochs: tuple[float, ...] = ()
    dense_epochs: float = 0  # for so many epochs from the start,
    dense_images: int = 1  # every so many training images (every step where a batch is larger)
    every_epochs: int | None = None  # after that, once every so many epochs, and at the end

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Schedule:
        """A named schedule of a study's file."""
        return cls(**{**section, "at_epochs": tuple(section.get("at_epochs", ()))})

    def steps(self, run: Run) -> list[int]:
        """The steps of ``run`` that the schedule keeps, ascending; times after its end are left out."""
        per_epoch, last = run.steps_per_epoch, run.steps_per_epoch * run.epochs
        steps = {round(epoch * per_epoch) for epoch in self.at_epochs}
        dense_end = round(self.dense_epochs * per_epoch)
        steps.update(range(0, min(dense_end, last + 1), max(1, self.dense_images // run.examples_per_step)))
        if self.every_epochs is not None:
            first = -(-dense_end // per_epoch)  # the first whole epoch that is not dense
            steps.update(range(first * per_epoch, last + 1, self.every_epochs * per_epoch))
            steps.add(last)
        return sorted(step for step in steps if step <= last)


def chunks_of(steps: Sequence[int], num_chunks: int) -> list[list[int]]:
    """``steps`` in order, cut into exactly ``num_chunks`` lists as equal as can be (some empty where steps are few)."""
    size, longer = divmod(len(steps), num_chunks)
    ends = list(itertools.accumulate(size + (index < longer) for index in range(num_chunks)))
    return [list(steps[begin:end]) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
