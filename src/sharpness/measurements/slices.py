"""The loss along the top eigenvector, in units of the expected SGD step along it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

from sharpness.study.measurement import Column, OfHessian
from sharpness.study.settings import AT_MOST_1000, setting
from sharpness.study.work import Work

if TYPE_CHECKING:
    from sharpness.measurements.landscape import Landscape
    from sharpness.study.run import Run
    from sharpness.training.checkpoints import Snapshot


@dataclass(frozen=True)
class Slices(OfHessian):
    """L(weights + k * delta_1) for every scale k; the step of the mean gradient goes to positive k."""

    title: ClassVar = "loss along the top eigenvector, in units of the expected SGD step"
    columns: ClassVar = {
        "k": Column("place along the top eigenvector", "expected SGD steps along it"),
        "loss": Column("there", "nats"),
        "scale": Column("expected length of the SGD step along the top eigenvector", "of the weights", finite=True),
        "eigenvalue": Column("largest of the Hessian", "nats / weight²", finite=True),
        "residual": Column("of that eigenpair, relative to the largest |eigenvalue|"),
        "num_examples": Column("training examples of the Hessian"),
    }

    loss_examples: int = setting(
        AT_MOST_1000, "training examples, never augmented, on which the loss is evaluated", minimum=1, maximum=100000
    )
    num_batches: int = setting(10, "fresh mini-batches behind each mean", minimum=1, maximum=10000)
    scales: list[float] = setting(
        [-16, -8, -4, -2, -1, -0.5, -0.25, 0, 0.25, 0.5, 1, 2, 4, 8, 16],
        "the grid of k in L(weights + k * delta_1), 0 and positive ones among them",
        minItems=1,
        uniqueItems=True,
        items={"type": "number", "minimum": -1000, "maximum": 1000},
    )

    def problems(self, run: Run) -> Iterator[str]:
        yield from super().problems(run)
        if 0 not in self.scales or max(self.scales) <= 0:
            yield f"scales is {self.scales}, must have 0 and a positive k: widths are measured from there"

    def work(self, run: Run) -> Work:
        return Work(self.num_batches, len(self.scales) * self.loss_examples, (self.products(),))

    def when_diverged(self) -> dict[str, object]:
        return {"k": 0.0}

    def rows(self, landscape: Landscape, checkpoint: Snapshot, before: Snapshot | None) -> Iterator[dict[str, object]]:
        import torch

        from sharpness.measurements.along import expected_step, losses_along

        loss = landscape.loss
        pairs = landscape.sharpest(checkpoint, self)
        batches = landscape.batches(f"slice at step {checkpoint.step}", num_examples=self.loss_examples)
        gradients = [
            loss.gradient(checkpoint.weights, checkpoint.buffers, *batch) for batch in islice(batches, self.num_batches)
        ]
        direction = pairs.eigenvectors[0]
        if torch.stack(gradients).mean(dim=0) @ direction > 0:
            direction = -direction
        scale = expected_step(gradients, direction, learning_rate=checkpoint.learning_rate)
        examples = landscape.first_examples(self.loss_examples)
        losses = losses_along(
            lambda weights: loss.value(weights, checkpoint.buffers, *examples),
            checkpoint.weights,
            scale * direction,
            self.scales,
        )
        if not all(math.isfinite(value) for k, value in zip(self.scales, losses.tolist(), strict=True) if k == 0):
            raise FloatingPointError("the loss is not finite")
        for k, value in zip(self.scales, losses.tolist(), strict=True):
            yield {
                "k": k,
                "loss": value,
                "scale": scale,
                "eigenvalue": float(pairs.eigenvalues[0]),
                "residual": float(pairs.residuals[0]),
                "num_examples": self.num_examples,
            }


MEASUREMENT = Slices
