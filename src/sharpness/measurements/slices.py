"""The loss along the top eigenvector, by expected SGD steps along it or by distance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Literal

from sharpness.study.measurement import ELSEWHERE, Column, OfHessian
from sharpness.study.settings import AT_MOST_1000, setting
from sharpness.study.work import Work

if TYPE_CHECKING:
    from sharpness.measurements.landscape import Landscape
    from sharpness.study.run import Run
    from sharpness.training.checkpoints import Snapshot


@dataclass(frozen=True)
class Slices(OfHessian):
    """The loss at places along the top eigenvector; the step of the mean gradient goes to the positive side."""

    title: ClassVar = "loss along the top eigenvector, by expected SGD steps or by distance"
    later: ClassVar = {"unit": "step"}
    columns: ClassVar = {
        "k": Column("place along the top eigenvector", "expected SGD steps along it"),
        "distance": Column("the same place", "of the weights", optional=True),
        "loss": Column("there", "nats"),
        "scale": Column("expected length of the SGD step along the top eigenvector", "of the weights", finite=True),
        "eigenvalue": Column("largest of the Hessian", "nats / weight²", finite=True),
        "residual": Column("of that eigenpair, relative to the largest |eigenvalue|"),
        **ELSEWHERE,
        "num_examples": Column("training examples of the Hessian"),
    }

    loss_examples: int = setting(
        AT_MOST_1000, "training examples, never augmented, on which the loss is evaluated", minimum=1, maximum=100000
    )
    num_batches: int = setting(10, "fresh mini-batches behind each mean", minimum=1, maximum=10000)
    scales: list[float] = setting(
        [-16, -8, -4, -2, -1, -0.5, -0.25, 0, 0.25, 0.5, 1, 2, 4, 8, 16],
        "the places, 0 and positive ones among them, in the unit below",
        minItems=1,
        uniqueItems=True,
        items={"type": "number", "minimum": -1000, "maximum": 1000},
    )
    unit: Literal["step", "weights"] = setting(
        "step",
        "of the scales: step is the expected length of the SGD step along the top eigenvector, so that scales are k in "
        "L(weights + k * delta_1); weights is the Euclidean distance, the same for every run",
        enum=["step", "weights"],
    )

    def problems(self, run: Run) -> Iterator[str]:
        yield from super().problems(run)
        if 0 not in self.scales or max(self.scales) <= 0:
            yield f"scales is {self.scales}, must have 0 and a positive k: widths are measured from there"

    def work(self, run: Run) -> Work:
        products = self.products(), self.products_elsewhere(run)
        return Work(self.num_batches, len(self.scales) * self.loss_examples, products)

    def when_diverged(self) -> dict[str, object]:
        return {"k": 0.0, "distance": 0.0}

    def rows(self, landscape: Landscape, checkpoint: Snapshot, before: Snapshot | None) -> Iterator[dict[str, object]]:
        import torch

        from sharpness.measurements.along import expected_step, losses_along
        from sharpness.measurements.bracket import in_columns

        loss = landscape.loss
        pairs = landscape.sharpest(checkpoint, self)
        # A mini-batch may have more examples than the loss is evaluated on.
        among = max(self.loss_examples, landscape.run.examples_per_step)
        batches = landscape.batches(f"slice at step {checkpoint.step}", num_examples=among)
        gradients = [
            loss.gradient(checkpoint.weights, checkpoint.buffers, *batch) for batch in islice(batches, self.num_batches)
        ]
        direction = pairs.eigenvectors[0]
        if torch.stack(gradients).mean(dim=0) @ direction > 0:
            direction = -direction
        scale = expected_step(gradients, direction, learning_rate=checkpoint.learning_rate)
        unit = scale if self.unit == "step" else 1.0
        examples = landscape.first_examples(self.loss_examples)
        losses = losses_along(
            lambda weights: loss.value(weights, checkpoint.buffers, *examples),
            checkpoint.weights,
            unit * direction,
            self.scales,
        ).tolist()
        if not all(math.isfinite(value) for place, value in zip(self.scales, losses, strict=True) if place == 0):
            raise FloatingPointError("the loss is not finite")
        outside = landscape.elsewhere(checkpoint, direction[None], found_on=self.num_examples)
        for place, value in zip(self.scales, losses, strict=True):
            yield {
                "k": place if self.unit == "step" else place / scale if scale else math.nan,
                "distance": place * unit,
                "loss": value,
                "scale": scale,
                "eigenvalue": float(pairs.eigenvalues[0]),
                "residual": float(pairs.residuals[0]),
                **in_columns(outside),
                "num_examples": self.num_examples,
            }


MEASUREMENT = Slices
