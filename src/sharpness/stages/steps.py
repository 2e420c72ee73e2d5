"""Change of the loss for scaled SGD steps along the top eigenvector, a random direction, and for the full step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from sharpness.measurements.along import ScaledStep, after_step
from sharpness.measurements.measuring import Part, Subject, measure
from sharpness.runtime.stage import run_stage
from sharpness.runtime.streams import stream
from sharpness.training.checkpoints import Snapshot


@dataclass(frozen=True)
class Settings:
    """Settings of the step-length experiment; the study's schema describes them."""

    num_examples: int
    tolerance: float
    max_products: int
    loss_examples: int
    num_batches: int
    alphas: list[float]


def steps(settings: Settings, part: Part) -> None:
    """Write the loss before and after each scaled step, with fresh mini-batches for every direction and factor."""

    def rows(subject: Subject, snapshot: Snapshot) -> Iterator[dict[str, object]]:
        pairs = subject.eigenpairs(
            snapshot,
            subject.hessian(snapshot, subject.drawn_examples(settings.num_examples)),
            num_pairs=1,
            tolerance=settings.tolerance,
            max_products=settings.max_products,
        )
        directions = {
            "top": pairs.eigenvectors[0],
            "random": _unit_vector(snapshot.weights, stream(subject.run.seed, f"direction at step {snapshot.step}")),
            "full": None,
        }
        examples = subject.first_examples(settings.loss_examples)
        before = float(subject.loss.value(snapshot.weights, snapshot.buffers, *examples))
        measured = {
            "loss_before": before,
            "eigenvalue": float(pairs.eigenvalues[0]),
            "residual": float(pairs.residuals[0]),
        }
        for name, direction in directions.items():
            for alpha in settings.alphas:
                step = ScaledStep(direction, alpha)
                batches = subject.batches(f"{name} step times {alpha} at step {snapshot.step}")
                for number, batch in enumerate(islice(batches, settings.num_batches)):
                    gradient = subject.loss.gradient(snapshot.weights, snapshot.buffers, *batch)
                    weights = after_step(snapshot.weights, gradient, step, learning_rate=snapshot.learning_rate)
                    after = float(subject.loss.value(weights, snapshot.buffers, *examples))
                    yield {"direction": name, "alpha": alpha, "batch": number, "loss_after": after, **measured}

    lost = {"direction": "top", "alpha": settings.alphas[0], "batch": 0}
    measure(part, rows, settings=settings, stage="sharpness.stages.steps", when_diverged=lost)


def _unit_vector(like: Tensor, generator: torch.Generator) -> Tensor:
    vector = torch.randn(like.shape, generator=generator, dtype=like.dtype)
    vector /= vector.norm()
    return vector.to(like.device)


if __name__ == "__main__":
    run_stage(steps)
