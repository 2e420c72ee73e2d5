"""One SGD variant, from a checkpoint on: the step scaled inside and outside the span of the sharpest directions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from sharpness.eigen.lanczos import Eigenpairs, follow_eigenpairs
from sharpness.eigen.refinement import Refined
from sharpness.measurements.gradient_statistics import subspace_overlap
from sharpness.measurements.measuring import Part, Subject, measure
from sharpness.runtime.stage import run_stage
from sharpness.training.checkpoints import Snapshot
from sharpness.training.loop import Descent


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
    renew_every: int | None
    follow_products: int


@dataclass(frozen=True)
class Found:
    """The sharpest directions at one step."""

    rows: Tensor  # [K, P]
    eigenvalue: float
    residual: float  # the largest of the K pairs
    num_products: int
    anew: bool  # whether this is one of the steps at which the variant is measured


def variants(settings: Settings, part: Part) -> None:
    """Write loss and largest eigenvalue along the variant; its step 0 is the checkpoint ``start_step``."""

    def rows(subject: Subject, snapshot: Snapshot) -> Iterator[dict[str, object]]:
        descent = Descent(
            subject.loss,
            snapshot.weights,
            snapshot.buffers,
            learning_rate=snapshot.learning_rate,
            momentum=subject.run.momentum,
            low_precision=subject.run.precision == "bfloat16",
        )
        search = _Search(settings, subject, subject.drawn_examples(settings.num_examples))
        examples = subject.first_examples(settings.loss_examples)
        # All variants from one checkpoint see the same mini-batches.
        batches = subject.batches(f"variants from step {snapshot.step}")
        directions: Tensor | None = None
        age = 0
        for step, batch in enumerate(islice(batches, settings.num_steps + 1)):
            try:
                found = search.at(descent.snapshot(snapshot.step + step), directions, step)
                value = math.nan
                if found and found.anew:
                    value = float(subject.loss.value(descent.weights, descent.buffers, *examples))
                    if not math.isfinite(value):
                        raise FloatingPointError("the loss is not finite")
            except FloatingPointError:
                yield {"start_step": snapshot.step, "step": step, "diverged": True}
                return
            if found:
                overlap = math.nan if directions is None else subspace_overlap(directions, found.rows)
                if directions is None or settings.renew_every is not None:
                    directions, age = found.rows, 0
                yield {
                    "start_step": snapshot.step,
                    "step": step,
                    "loss": value,
                    "eigenvalue": found.eigenvalue,
                    "residual": found.residual,
                    "num_products": found.num_products,
                    "overlap": overlap,
                    "direction_age": age,
                    "diverged": False,
                }
            descent.step(*batch, directions, gamma=settings.gamma, gamma_outside=settings.gamma_outside)
            age += 1

    measure(part, rows, settings=settings, stage="sharpness.stages.variants", when_diverged={"diverged": True})


@dataclass(frozen=True)
class _Search:
    """Finds the sharpest directions: anew where the variant is measured, from those before it elsewhere."""

    settings: Settings
    subject: Subject
    examples: tuple[Tensor, Tensor]

    def at(self, state: Snapshot, directions: Tensor | None, step: int) -> Found | None:
        """The directions at a step, if it is one of those at which they are looked for."""
        settings = self.settings
        anew = directions is None or step % settings.measure_every == 0
        if not anew and (settings.renew_every is None or step % settings.renew_every):
            return None
        operator = self.subject.hessian(state, self.examples)
        spent = 0
        if directions is not None and not anew:
            followed = follow_eigenpairs(
                operator, directions, tolerance=settings.tolerance, max_products=settings.follow_products
            )
            spent = followed.num_products
            if followed.residuals.max() <= settings.tolerance:
                return _found(followed, spent, anew=False)
        pairs = self.subject.eigenpairs(
            state,
            operator,
            num_pairs=settings.num_directions,
            tolerance=settings.tolerance,
            max_products=settings.max_products,
        )
        return _found(pairs, spent + pairs.num_products, anew=anew)


def _found(pairs: Eigenpairs | Refined, num_products: int, *, anew: bool) -> Found:
    residual = float(pairs.residuals.max())
    return Found(pairs.eigenvectors, float(pairs.eigenvalues[0]), residual, num_products, anew)


if __name__ == "__main__":
    run_stage(variants)
