"""The gradient beside the curvature at the checkpoints of one part of a run: subspace, noise, Batch Sharpness."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sharpness.eigen.lanczos import Eigenpairs
from sharpness.measurements.gradient_statistics import (
    batch_sharpness,
    fraction_inside,
    gradient_noise,
    subspace_overlap,
)
from sharpness.measurements.measuring import Part, Subject, checkpoints_of, measure
from sharpness.runtime.stage import run_stage
from sharpness.training.checkpoints import Snapshot


@dataclass(frozen=True)
class Settings:
    """Settings of the gradients; the study's schema describes them."""

    num_examples: int
    num_eigenvalues: int
    tolerance: float
    max_products: int
    loss_examples: int
    num_batches: int


@dataclass(frozen=True)
class Before:
    """The checkpoint before the part's first one, in the part before."""

    checkpoints: list[Path]  # none at the start of a run
    steps: list[int]


def gradients(settings: Settings, part: Part, before: Before) -> None:
    """Write what the gradient, whole and in mini-batches, has to do with the sharpest subspace and the curvature."""
    earlier: list[tuple[int, Tensor]] = []  # step and sharpest subspace of the checkpoint before

    def rows(subject: Subject, snapshot: Snapshot) -> Iterator[dict[str, object]]:
        for path in before.checkpoints if not earlier else ():
            device = snapshot.weights.device
            for other in checkpoints_of(part, path, device=device, steps=before.steps).snapshots:
                earlier.append((other.step, _sharpest(settings, subject, other).eigenvectors))
        pairs = _sharpest(settings, subject, snapshot)
        step, subspace = earlier[-1] if earlier else (None, None)
        yield {
            "learning_rate_now": snapshot.learning_rate,
            "eigenvalue": float(pairs.eigenvalues[0]),
            "residual": float(pairs.residuals.max()),
            "rate_times_eigenvalue": snapshot.learning_rate * float(pairs.eigenvalues[0]),
            "overlap": None if subspace is None else subspace_overlap(pairs.eigenvectors, subspace),
            "overlap_with_step": step,
            **_of_gradients(settings, subject, snapshot, pairs.eigenvectors),
            "num_eigenvalues": settings.num_eigenvalues,
            "num_batches": settings.num_batches,
            "num_examples": settings.num_examples,
        }
        earlier[:] = [(snapshot.step, pairs.eigenvectors)]

    measure(
        part,
        rows,
        settings=settings,
        stage="sharpness.stages.gradients",
        when_diverged={"num_eigenvalues": settings.num_eigenvalues},
    )


def _sharpest(settings: Settings, subject: Subject, snapshot: Snapshot) -> Eigenpairs:
    return subject.eigenpairs(
        snapshot,
        subject.hessian(snapshot, subject.drawn_examples(settings.num_examples)),
        num_pairs=settings.num_eigenvalues,
        tolerance=settings.tolerance,
        max_products=settings.max_products,
    )


def _of_gradients(settings: Settings, subject: Subject, snapshot: Snapshot, directions: Tensor) -> dict[str, float]:
    """The whole gradient and those of independent mini-batches, beside the sharpest ``directions`` [k, P]."""
    state = snapshot.weights, snapshot.buffers
    whole = subject.loss.gradient(*state, *subject.first_examples(settings.loss_examples))
    purpose = f"gradients at step {snapshot.step}"
    batches = [subject.independent_batch(purpose, number) for number in range(settings.num_batches)]
    parts = torch.stack([subject.loss.gradient(*state, *batch) for batch in batches])
    images = (subject.hessian(snapshot, batch) @ part for part, batch in zip(parts, batches, strict=True))
    sharpness = batch_sharpness(zip(parts, images, strict=True))
    noise = gradient_noise(parts)
    return {
        "gradient_norm": float(whole.norm()),
        "fraction_inside": fraction_inside(whole, directions),
        "batch_fraction_inside": sum(fraction_inside(part, directions) for part in parts) / len(parts),
        "batch_sharpness": sharpness.value,
        "batch_sharpness_error": sharpness.standard_error,
        "noise_largest": noise.largest,
        "noise_trace": noise.trace,
        "noise_trace_error": noise.trace_error,
    }


if __name__ == "__main__":
    run_stage(gradients)
