"""The gradient beside the step before: its norm, and whether SGD goes straight on or turns back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sharpness.study.measurement import Column, Measurement
from sharpness.study.settings import AT_MOST_1000, setting
from sharpness.study.work import Work

if TYPE_CHECKING:
    from sharpness.measurements.landscape import Landscape
    from sharpness.study.run import Run
    from sharpness.training.checkpoints import Snapshot


@dataclass(frozen=True)
class GradientStep(Measurement):
    """The norm of the gradient, and its angle to the step before: the weights less those at the checkpoint before.

    Where checkpoints are one step apart this is the last update of SGD, else the sum of all since that checkpoint. SGD
    goes against the gradient: at 180 degrees it would go on as before, at 0 degrees it would go back.
    """

    title: ClassVar = "the norm of the gradient and its angle to the step before"
    looks_back: ClassVar = True
    checkpoints: ClassVar = "trajectory"
    columns: ClassVar = {
        "gradient_norm": Column("of the gradient of the training loss", "nats / weight", finite=True),
        "step_norm": Column("distance of the weights from those at the checkpoint before", "of the weights"),
        "angle": Column("between the gradient and the step from there; none where one of them is zero", "degrees"),
        "since_step": Column("the step of the checkpoint before"),
    }

    loss_examples: int = setting(
        AT_MOST_1000, "training examples, never augmented, of the gradient", minimum=1, maximum=100000
    )

    def in_words(self) -> str:
        return f"gradient on {self.loss_examples} training images"

    def work(self, run: Run) -> Work:
        return Work(gradients=-(-self.loss_examples // run.examples_per_step))

    def when_diverged(self) -> dict[str, object]:
        return {}

    def rows(self, landscape: Landscape, checkpoint: Snapshot, before: Snapshot | None) -> Iterator[dict[str, object]]:
        from sharpness.eigen.vectors import length
        from sharpness.measurements.gradient_statistics import degrees_between

        examples = landscape.first_examples(self.loss_examples)
        gradient = landscape.loss.gradient(checkpoint.weights, checkpoint.buffers, *examples)
        step = None if before is None else checkpoint.weights - before.weights
        yield {
            "gradient_norm": length(gradient),
            "step_norm": None if step is None else length(step),
            "angle": None if step is None else degrees_between(gradient, step),
            "since_step": None if before is None else before.step,
        }


MEASUREMENT = GradientStep
