"""One SGD variant, from a checkpoint on: the step scaled inside and outside the span of the sharpest directions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from sharpness.checkpoints import Snapshot
from sharpness.measuring import Part, Subject, measure
from sharpness.stages import run_stage
from sharpness.training import Descent


@dataclass(frozen=True)
class Settings:
    """Settings of a variant; the study's schema describes them."""

    num_examples: int
    tolerance: float
    max_products: int
    loss_examples: int
    num_steps: int
    num_directions: int
    gamma: float
    gamma_outside: float
    measure_every: int
    renew: bool


def variants(settings: Settings, part: Part) -> None:
    """Write loss and largest eigenvalue along the variant; its step 0 is the checkpoint ``start_step``."""

    def rows(subject: Subject, snapshot: Snapshot) -> Iterator[dict[str, object]]:
        run, loss = subject.run, subject.loss
        hessian_examples = subject.drawn_examples(settings.num_examples)
        loss_examples = subject.first_examples(settings.loss_examples)
        descent = Descent(
            loss, snapshot.weights, snapshot.buffers, learning_rate=snapshot.learning_rate, momentum=run.momentum
        )
        # All variants from one checkpoint see the same mini-batches.
        batches = subject.batches(f"variants from step {snapshot.step}")
        directions: Tensor | None = None
        age = 0
        for step, batch in enumerate(islice(batches, settings.num_steps + 1)):
            eigenvalue = residual = math.nan
            value = float(loss.value(descent.weights, descent.buffers, *loss_examples))
            diverged = not math.isfinite(value)
            if not diverged and step % settings.measure_every == 0:
                try:
                    state = descent.snapshot(snapshot.step + step)
                    pairs = subject.eigenpairs(
                        state,
                        subject.hessian(state, hessian_examples),
                        num_pairs=settings.num_directions,
                        tolerance=settings.tolerance,
                        max_products=settings.max_products,
                    )
                except FloatingPointError:
                    diverged = True
                else:
                    eigenvalue, residual = float(pairs.eigenvalues[0]), float(pairs.residuals.max())
                    if directions is None or settings.renew:
                        directions, age = pairs.eigenvectors, 0
            yield {
                "start_step": snapshot.step,
                "step": step,
                "loss": value,
                "eigenvalue": eigenvalue,
                "residual": residual,
                "direction_age": age,
                "diverged": diverged,
            }
            if diverged:
                return
            descent.step(*batch, directions, gamma=settings.gamma, gamma_outside=settings.gamma_outside)
            age += 1

    measure(part, rows, when_diverged={"diverged": True})


if __name__ == "__main__":
    run_stage(variants)
