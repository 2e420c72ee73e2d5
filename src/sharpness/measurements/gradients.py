"""The gradient beside the curvature: its part in the sharpest subspace, its noise, and Batch Sharpness."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sharpness.study.measurement import ELSEWHERE, Column, OfHessian
from sharpness.study.settings import AT_MOST_1000, setting
from sharpness.study.work import Products, Work

if TYPE_CHECKING:
    from torch import Tensor

    from sharpness.measurements.landscape import Landscape
    from sharpness.study.run import Run
    from sharpness.training.checkpoints import Snapshot


@dataclass(frozen=True)
class Gradients(OfHessian):
    """What the gradient, whole and in mini-batches, has to do with the sharpest subspace and the curvature."""

    title: ClassVar = "the gradient's part in the sharpest subspace, its noise, and Batch Sharpness"
    pairs_setting: ClassVar = "num_eigenvalues"
    looks_back: ClassVar = True
    columns: ClassVar = {
        "learning_rate_now": Column("of the next step", "weight² / nat"),
        "eigenvalue": Column("largest of the Hessian", "nats / weight²", finite=True),
        "residual": Column("the largest of the eigenpairs, relative to the largest |eigenvalue|"),
        **ELSEWHERE,
        "rate_times_eigenvalue": Column("learning rate times the largest eigenvalue; 2 is the limit of stability"),
        "overlap": Column("mean squared cosine of the angles to the sharpest subspace at the checkpoint before"),
        "overlap_with_step": Column("the step of that checkpoint"),
        "gradient_norm": Column("of the whole gradient", "nats / weight", finite=True),
        "fraction_inside": Column("part of |gradient|² in the sharpest subspace"),
        "batch_fraction_inside": Column("the same of mini-batches, in the mean"),
        "batch_sharpness": Column("curvature of each mini-batch along its own gradient, in the mean", "nats / weight²"),
        "batch_sharpness_error": Column("its standard error", "nats / weight²"),
        "noise_largest": Column("largest eigenvalue of the covariance of mini-batch gradients", "nats² / weight²"),
        "noise_trace": Column("its trace", "nats² / weight²"),
        "noise_trace_error": Column("standard error of the trace", "nats² / weight²"),
        "num_eigenvalues": Column("dimension of the sharpest subspace"),
        "num_batches": Column("mini-batches"),
        "num_examples": Column("training examples of the Hessian"),
    }

    num_eigenvalues: int = setting(10, "dimension of the sharpest subspace", minimum=1, maximum=100)
    loss_examples: int = setting(
        AT_MOST_1000, "training examples, never augmented, of the whole gradient", minimum=1, maximum=100000
    )
    num_batches: int = setting(
        25,
        "independent mini-batches behind the covariance of gradients and Batch Sharpness",
        minimum=2,
        maximum=10000,
    )

    def in_words(self) -> str:
        return self._in_words(details=[f"top {self.num_eigenvalues}"])

    def work(self, run: Run) -> Work:
        whole = -(-self.loss_examples // run.examples_per_step)
        of_batches = Products.exactly(self.num_batches, run.examples_per_step)
        return Work(self.num_batches + whole, 0, (self.products(), of_batches, self.products_elsewhere(run)))

    def when_diverged(self) -> dict[str, object]:
        return {"num_eigenvalues": self.num_eigenvalues}

    def rows(self, landscape: Landscape, checkpoint: Snapshot, before: Snapshot | None) -> Iterator[dict[str, object]]:
        from sharpness.eigen.vectors import subspace_overlap
        from sharpness.measurements.bracket import in_columns

        subspace = None if before is None else landscape.sharpest(before, self).eigenvectors
        pairs = landscape.sharpest(checkpoint, self)
        yield {
            "learning_rate_now": checkpoint.learning_rate,
            "eigenvalue": float(pairs.eigenvalues[0]),
            "residual": float(pairs.residuals.max()),
            **in_columns(landscape.elsewhere(checkpoint, pairs.eigenvectors[:1], found_on=self.num_examples)),
            "rate_times_eigenvalue": checkpoint.learning_rate * float(pairs.eigenvalues[0]),
            "overlap": None if subspace is None else subspace_overlap(pairs.eigenvectors, subspace),
            "overlap_with_step": None if before is None else before.step,
            **self._of_gradients(landscape, checkpoint, pairs.eigenvectors),
            "num_eigenvalues": self.num_eigenvalues,
            "num_batches": self.num_batches,
            "num_examples": self.num_examples,
        }

    def _of_gradients(self, landscape: Landscape, checkpoint: Snapshot, directions: Tensor) -> dict[str, float]:
        """The whole gradient and those of independent mini-batches, beside the sharpest ``directions`` [k, P]."""
        import torch

        from sharpness.eigen.vectors import length
        from sharpness.measurements.gradient_statistics import batch_sharpness, fraction_inside, gradient_noise

        loss, state = landscape.loss, (checkpoint.weights, checkpoint.buffers)
        whole = loss.gradient(*state, *landscape.first_examples(self.loss_examples))
        purpose = f"gradients at step {checkpoint.step}"
        batches = [landscape.independent_batch(purpose, number) for number in range(self.num_batches)]
        parts = torch.stack([loss.gradient(*state, *batch) for batch in batches])
        images = (landscape.hessian(checkpoint, batch) @ part for part, batch in zip(parts, batches, strict=True))
        sharpness = batch_sharpness(zip(parts, images, strict=True))
        noise = gradient_noise(parts)
        return {
            "gradient_norm": length(whole),
            "fraction_inside": fraction_inside(whole, directions),
            "batch_fraction_inside": sum(fraction_inside(part, directions) for part in parts) / len(parts),
            "batch_sharpness": sharpness.value,
            "batch_sharpness_error": sharpness.standard_error,
            "noise_largest": noise.largest,
            "noise_trace": noise.trace,
            "noise_trace_error": noise.trace_error,
        }


MEASUREMENT = Gradients
