"""SGD variants from a checkpoint on: the step scaled inside and outside the span of the sharpest directions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

from sharpness.study.measurement import Column, OfHessian
from sharpness.study.settings import AT_MOST_1000, setting
from sharpness.study.work import Products, Work

if TYPE_CHECKING:
    from torch import Tensor

    from sharpness.eigen.lanczos import Eigenpairs
    from sharpness.eigen.refinement import Refined
    from sharpness.measurements.landscape import Landscape
    from sharpness.study.run import Run
    from sharpness.training.checkpoints import Snapshot


@dataclass(frozen=True)
class Variants(OfHessian):
    """Loss and largest eigenvalue along one variant; its step 0 is the checkpoint ``start_step``."""

    title: ClassVar = "SGD variants started from a checkpoint"
    shared: ClassVar = ("checkpoints", "num_examples", "tolerance", "loss_examples", "num_steps", "measure_every")
    pairs_setting: ClassVar = "num_directions"
    checkpoints: ClassVar = "switch"
    named: ClassVar = {
        "sgd": {},
        "top_only": {"gamma_outside": 0.0, "renew_every": 1},
        "constant_top": {"gamma_outside": 0.0},
        "top_removed": {"gamma": 0.0, "renew_every": 1},
    }
    columns: ClassVar = {
        "start_step": Column("step of the checkpoint; step and diverged are the variant's own"),
        "loss": Column("on the first training examples, where the variant is measured", "nats"),
        "eigenvalue": Column("largest of the Hessian", "nats / weight²", finite=True),
        "residual": Column("the largest of the directions' eigenpairs, relative to the largest |eigenvalue|"),
        "num_products": Column("Hessian-vector products spent on the directions"),
        "overlap": Column("mean squared cosine of the angles to the directions used until then"),
        "direction_age": Column("steps since the directions in use were found"),
    }

    loss_examples: int = setting(
        AT_MOST_1000, "training examples, never augmented, on which the loss is evaluated", minimum=1, maximum=100000
    )
    num_steps: int = setting(100, "updates after the checkpoint", minimum=1, maximum=1000000)
    num_directions: int = setting(1, "how many sharpest directions are treated apart", minimum=1, maximum=100)
    gamma: float = setting(
        1.0, "factor on the step inside the span of the sharpest directions; 1 is SGD", minimum=0, maximum=1000
    )
    gamma_outside: float = setting(
        1.0, "factor on the step outside that span; 1 except in ablations", minimum=0, maximum=1000
    )
    measure_every: int = setting(
        10,
        "updates between two measurements of the loss and of the eigenvectors, which are looked for anew",
        minimum=1,
        maximum=1000000,
    )
    renew_every: int | None = setting(
        None,
        "updates between two renewals of the eigenvectors, which are followed from the last ones; null keeps those of "
        "the start",
        minimum=1,
        maximum=1000000,
    )
    follow_products: int = setting(
        8,
        "Hessian-vector products after which the eigenvectors are looked for anew instead, where following them has "
        "not reached the tolerance",
        minimum=1,
        maximum=100000,
    )

    def problems(self, run: Run) -> Iterator[str]:
        yield from super().problems(run)
        if self.renew_every is not None and self.follow_products < self.num_directions:
            yield (
                f"follow_products must be at least {self.num_directions}, its num_directions, where they are renewed, "
                f"got {self.follow_products}"
            )
        if self.measure_every > self.num_steps:
            yield (
                f"measure_every must be at most {self.num_steps}, its num_steps, or only the start is measured, "
                f"got {self.measure_every}"
            )

    def work(self, run: Run) -> Work:
        measured = self.num_steps // self.measure_every + 1
        products = [self.products() * measured]
        if self.renew_every is not None:
            followed = self.num_steps // self.renew_every + 1 - measured
            # Where following does not get there, the eigenvectors are looked for anew.
            most = self.follow_products + self.max_products
            products.append(Products(self.follow_products, most, self.num_examples) * max(followed, 0))
        return Work(self.num_steps + 1, measured * self.loss_examples, tuple(products))

    def when_diverged(self) -> dict[str, object]:
        return {"diverged": True}

    def rows(self, landscape: Landscape, checkpoint: Snapshot, before: Snapshot | None) -> Iterator[dict[str, object]]:
        from sharpness.eigen.vectors import subspace_overlap
        from sharpness.training.descent import Descent

        run = landscape.run
        descent = Descent(
            landscape.loss,
            checkpoint.weights,
            checkpoint.buffers,
            learning_rate=checkpoint.learning_rate,
            momentum=run.momentum,
            optimizer=run.update,
            low_precision=run.precision == "bfloat16",
        )
        search = _Search(self, landscape, landscape.drawn_examples(self.num_examples))
        examples = landscape.first_examples(self.loss_examples)
        # All variants from one checkpoint see the same mini-batches.
        batches = landscape.batches(f"variants from step {checkpoint.step}")
        directions: Tensor | None = None
        age = 0
        for step, batch in enumerate(islice(batches, self.num_steps + 1)):
            try:
                found = search.at(descent.snapshot(checkpoint.step + step), directions, step)
                value = math.nan
                if found and found.anew:
                    value = float(landscape.loss.value(descent.weights, descent.buffers, *examples))
                    if not math.isfinite(value):
                        raise FloatingPointError("the loss is not finite")
            except FloatingPointError:
                yield {"start_step": checkpoint.step, "step": step, "diverged": True}
                return
            if found:
                overlap = math.nan if directions is None else subspace_overlap(directions, found.directions)
                if directions is None or self.renew_every is not None:
                    directions, age = found.directions, 0
                yield {
                    "start_step": checkpoint.step,
                    "step": step,
                    "loss": value,
                    "eigenvalue": found.eigenvalue,
                    "residual": found.residual,
                    "num_products": found.num_products,
                    "overlap": overlap,
                    "direction_age": age,
                    "diverged": False,
                }
            descent.step(*batch, directions, gamma=self.gamma, gamma_outside=self.gamma_outside)
            age += 1


@dataclass(frozen=True)
class _Sharpest:
    """The sharpest directions at one step of a variant."""

    directions: Tensor  # [K, P]
    eigenvalue: float
    residual: float  # the largest of the K pairs
    num_products: int
    anew: bool  # whether this is one of the steps at which the variant is measured


@dataclass(frozen=True)
class _Search:
    """Finds the sharpest directions: anew where the variant is measured, from those before it elsewhere."""

    settings: Variants
    landscape: Landscape
    examples: tuple[Tensor, Tensor]

    def at(self, state: Snapshot, directions: Tensor | None, step: int) -> _Sharpest | None:
        """The directions at a step, if it is one of those at which they are looked for."""
        from sharpness.eigen.lanczos import follow_eigenpairs

        settings = self.settings
        anew = directions is None or step % settings.measure_every == 0
        if not anew and (settings.renew_every is None or step % settings.renew_every):
            return None
        operator = self.landscape.hessian(state, self.examples)
        spent = 0
        if directions is not None and not anew:
            followed = follow_eigenpairs(
                operator, directions, tolerance=settings.tolerance, max_products=settings.follow_products
            )
            spent = followed.num_products
            if followed.residuals.max() <= settings.tolerance:
                return _sharpest(followed, spent, anew=False)
        # Those of the checkpoint itself may be known already.
        pairs = (
            self.landscape.eigenpairs(state, operator, **settings.search)
            if step
            else self.landscape.sharpest(state, settings)
        )
        return _sharpest(pairs, spent + pairs.num_products, anew=anew)


def _sharpest(pairs: Eigenpairs | Refined, num_products: int, *, anew: bool) -> _Sharpest:
    residual = float(pairs.residuals.max())
    return _Sharpest(pairs.eigenvectors, float(pairs.eigenvalues[0]), residual, num_products, anew)


MEASUREMENT = Variants
