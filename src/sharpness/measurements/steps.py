"""Change of the loss for scaled SGD steps along the top eigenvector, a random direction, and for the full step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

from sharpness.study.measurement import Column, OfHessian
from sharpness.study.settings import AT_MOST_1000, setting
from sharpness.study.work import Work

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sharpness.measurements.landscape import Landscape
    from sharpness.study.run import Run
    from sharpness.training.checkpoints import Snapshot


@dataclass(frozen=True)
class Steps(OfHessian):
    """The loss before and after each scaled step, with the same mini-batches for every direction and factor."""

    title: ClassVar = "change of the loss for scaled SGD steps along single directions"
    columns: ClassVar = {
        "direction": Column("along which the step goes: top (eigenvector), random, or full for the whole step"),
        "alpha": Column("factor on the step"),
        "batch": Column("number of the mini-batch, from 0 on"),
        "loss_after": Column("after the step", "nats"),
        "loss_before": Column("at the checkpoint", "nats", finite=True),
        "eigenvalue": Column("largest of the Hessian", "nats / weight²", finite=True),
        "residual": Column("of that eigenpair, relative to the largest |eigenvalue|"),
    }

    loss_examples: int = setting(
        AT_MOST_1000, "training examples, never augmented, on which the loss is evaluated", minimum=1, maximum=100000
    )
    num_batches: int = setting(10, "mini-batches behind each mean, drawn at every checkpoint", minimum=1, maximum=10000)
    alphas: list[float] = setting(
        [0.5, 1, 2],
        "factors on the step",
        minItems=1,
        uniqueItems=True,
        items={"type": "number", "exclusiveMinimum": 0, "maximum": 1000},
    )

    def work(self, run: Run) -> Work:
        # Along the top eigenvector, along a random direction, and whole.
        taken = 3 * len(self.alphas) * self.num_batches
        return Work(self.num_batches, (taken + 1) * self.loss_examples, (self.products(),))

    def when_diverged(self) -> dict[str, object]:
        return {"direction": "top", "alpha": self.alphas[0], "batch": 0}

    def rows(self, landscape: Landscape, checkpoint: Snapshot, before: Snapshot | None) -> Iterator[dict[str, object]]:
        from sharpness.measurements.along import ScaledStep, after_step
        from sharpness.runtime.streams import stream

        weights, buffers, loss = checkpoint.weights, checkpoint.buffers, landscape.loss
        pairs = landscape.sharpest(checkpoint, self)
        random = stream(landscape.run.seed, f"direction at step {checkpoint.step}")
        directions = {"top": pairs.eigenvectors[0], "random": _unit_vector(weights, random), "full": None}
        examples = landscape.first_examples(self.loss_examples)
        measured = {
            "loss_before": float(loss.value(weights, buffers, *examples)),
            "eigenvalue": float(pairs.eigenvalues[0]),
            "residual": float(pairs.residuals[0]),
        }
        # The same for all, so that differences between directions or factors are not those between batches.
        batches = islice(landscape.batches(f"steps at step {checkpoint.step}"), self.num_batches)
        gradients = [loss.gradient(weights, buffers, *batch) for batch in batches]
        for name, direction in directions.items():
            for alpha in self.alphas:
                step = ScaledStep(direction, alpha)
                for number, gradient in enumerate(gradients):
                    there = after_step(weights, gradient, step, learning_rate=checkpoint.learning_rate)
                    after = float(loss.value(there, buffers, *examples))
                    yield {"direction": name, "alpha": alpha, "batch": number, "loss_after": after, **measured}


def _unit_vector(like: Tensor, generator: torch.Generator) -> Tensor:
    import torch

    from sharpness.eigen.vectors import length

    vector = torch.randn(like.shape, generator=generator, dtype=like.dtype)
    vector /= length(vector)
    return vector.to(like.device)


MEASUREMENT = Steps
