"""Loss along the top eigenvector, in units of the expected SGD step along it, for one part of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch

from sharpness.measurements.along import expected_step, losses_along
from sharpness.measurements.measuring import Part, Subject, measure
from sharpness.runtime.stage import run_stage
from sharpness.training.checkpoints import Snapshot


@dataclass(frozen=True)
class Settings:
    """Settings of a slice; the study's schema describes them."""

    num_examples: int
    tolerance: float
    max_products: int
    loss_examples: int
    num_batches: int
    scales: list[float]


def slices(settings: Settings, part: Part) -> None:
    """Write L(weights + k * delta_1) for every scale k; the step of the mean gradient goes to positive k."""

    def rows(subject: Subject, snapshot: Snapshot) -> Iterator[dict[str, object]]:
        loss, learning_rate = subject.loss, snapshot.learning_rate
        pairs = subject.eigenpairs(
            snapshot,
            subject.hessian(snapshot, subject.drawn_examples(settings.num_examples)),
            num_pairs=1,
            tolerance=settings.tolerance,
            max_products=settings.max_products,
        )
        batches = subject.batches(f"slice at step {snapshot.step}", num_examples=settings.loss_examples)
        gradients = [
            loss.gradient(snapshot.weights, snapshot.buffers, *batch) for batch in islice(batches, settings.num_batches)
        ]
        direction = pairs.eigenvectors[0]
        if torch.stack(gradients).mean(dim=0) @ direction > 0:
            direction = -direction
        scale = expected_step(gradients, direction, learning_rate=learning_rate)
        examples = subject.first_examples(settings.loss_examples)
        losses = losses_along(
            lambda weights: loss.value(weights, snapshot.buffers, *examples),
            snapshot.weights,
            scale * direction,
            settings.scales,
        )
        for k, value in zip(settings.scales, losses.tolist(), strict=True):
            yield {
                "k": k,
                "loss": value,
                "scale": scale,
                "eigenvalue": float(pairs.eigenvalues[0]),
                "residual": float(pairs.residuals[0]),
                "num_examples": settings.num_examples,
            }

    measure(part, rows, settings=settings, stage="sharpness.stages.slices", when_diverged={"k": 0.0})


if __name__ == "__main__":
    run_stage(slices)
