"""The landscape of a run: its loss on its data, the examples on which it is measured, and its sharpest directions."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sharpness.data import datasets
from sharpness.data.datasets import EXAMPLES, Dataset
from sharpness.eigen.lanczos import Eigenpairs, top_eigenpairs
from sharpness.hessian.evaluation import rows_in
from sharpness.hessian.layout import Layout
from sharpness.hessian.loss import Loss
from sharpness.hessian.operator import HessianOperator, HessianProduct
from sharpness.measurements import kept
from sharpness.measurements.bracket import NUM_CHUNKS, Elsewhere, elsewhere
from sharpness.runtime.precision import Precision, low_precision
from sharpness.runtime.streams import stream
from sharpness.study.measurement import OfHessian
from sharpness.study.run import Run
from sharpness.training.checkpoints import Snapshot
from sharpness.training.initialisation import dataset_of, loss_of
from sharpness.training.rules import denominator

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Landscape:
    """The loss of a run on its data, as a function of the weights."""

    run: Run
    loss: Loss
    dataset: Dataset
    start: tuple[Tensor, Tensor] | None = None  # weights [P] and buffers [B] before training
    # By precision and parameters: what the checkpoints share.
    products: dict[tuple[Precision, str], HessianProduct] = field(default_factory=dict)
    # Of the last two checkpoints, by step and settings: what one leaves to the next.
    recent: dict[tuple[object, ...], Eigenpairs] = field(default_factory=dict)
    vectors: Path | None = None  # the folder for eigenvectors that are kept
    kept: tuple[Path, ...] = ()  # folders with eigenvectors that spectra of these checkpoints have kept

    def first_examples(self, num_examples: int) -> tuple[Tensor, Tensor]:
        """The first training examples, never augmented: those on which losses are evaluated."""
        training = self.dataset.training
        return training.inputs[:num_examples], training.targets[:num_examples]

    def drawn_examples(self, num_examples: int, purpose: str = EXAMPLES, *, after: int = 0) -> tuple[Tensor, Tensor]:
        """Training examples drawn by the run's seed: the same ones at every checkpoint unless ``purpose`` differs.

        Of one order of all training examples they are the first, or those behind the first ``after``.
        """
        return datasets.drawn(self.dataset.training, num_examples, seed=self.run.seed, purpose=purpose, after=after)

    def batches(self, purpose: str, *, num_examples: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Random mini-batches of the run's size without end, from the first ``num_examples`` (None: all)."""
        inputs, targets = self.first_examples(num_examples or self.run.num_training)
        size = min(self.run.examples_per_step, len(targets))
        generator = stream(self.run.seed, purpose)
        while True:
            for batch in datasets.epoch_order(len(targets), size, generator=generator).to(targets.device):
                yield inputs[batch], targets[batch]

    def independent_batch(self, purpose: str, number: int) -> tuple[Tensor, Tensor]:
        """One of any number of mini-batches, each drawn from all training examples as if it were the first."""
        return self.drawn_examples(self.run.examples_per_step, f"{purpose}, batch {number}")

    def hessian(
        self,
        state: Snapshot,
        examples: tuple[Tensor, Tensor],
        *,
        precision: Precision = "float32",
        parameters: str = "*",
        preconditioned: bool = False,
    ) -> HessianOperator:
        """The Hessian of the loss on ``examples`` at ``state``.

        Args:
            state: a checkpoint.
            examples: inputs and targets.
            precision: of the passes.
            parameters: whose block it is, a pattern of names.
            preconditioned: D^-1/2 H D^-1/2 instead, D being what the run's optimizer divides its steps by; the state
                has made an update.

        Raises:
            ValueError: no parameter's name matches ``parameters``.
            FloatingPointError: the weights are not finite.
        """
        product = self.products.get((precision, parameters))
        if product is None:
            product = HessianProduct(self.loss, precision=low_precision(precision), parameters=parameters)
            self.products[precision, parameters] = product
        root = self._inverse_root(state, product.layout) if preconditioned else None
        return HessianOperator.at(product, state.weights, state.buffers, *examples, inverse_root=root)

    def _inverse_root(self, state: Snapshot, rows: Layout) -> Tensor:
        """The diagonal of D^-1/2 of the run's optimizer, for some of the parameters."""
        if state.second_moment is None:
            raise ValueError(f"the checkpoint of step {state.step} has no state of the optimizer")
        diagonal = denominator(self.run.update, state.second_moment, state.step)
        return rows_in(self.loss.layout, rows, diagonal).rsqrt().to(state.weights.dtype)

    def eigenpairs(
        self,
        state: Snapshot,
        operator: HessianOperator,
        *,
        num_pairs: int,
        tolerance: float,
        max_products: int,
        probe_products: int = 0,
        certify: bool = True,
    ) -> Eigenpairs:
        """The sharpest directions of the loss: the leading eigenpairs of its Hessian at ``state``."""
        pairs = top_eigenpairs(
            operator,
            num_pairs=num_pairs,
            tolerance=tolerance,
            max_products=max_products,
            generator=stream(self.run.seed, f"lanczos at step {state.step}"),
            probe_products=probe_products,
            certify=certify,
        )
        if not pairs.converged:
            worst = float(pairs.residuals.max())
            _log.warning("step %d: residual %.1e after %d products", state.step, worst, pairs.num_products)
        if pairs.complete is False:
            _log.warning("step %d: an eigenvalue that was missed at first has not converged", state.step)
        return pairs

    def keep(self, state: Snapshot, pairs: Eigenpairs, operator: HessianOperator) -> None:
        """Write the eigenpairs of ``operator`` at ``state`` to the folder ``vectors``, by its step."""
        assert self.vectors is not None
        kept.keep(pairs, operator, state, self.vectors, self._told)

    @property
    def _told(self) -> dict[str, str]:
        """What kept eigenpairs say of the run and its data."""
        return {"run": self.run.name, "data": self.dataset.digest}

    def elsewhere(
        self,
        state: Snapshot,
        vectors: Tensor,
        *,
        found_on: int,
        others: tuple[Tensor, Tensor] | None = None,
        num_chunks: int = NUM_CHUNKS,
        parameters: str = "*",
        preconditioned: bool = False,
    ) -> Elsewhere | None:
        """The curvature at ``state`` along ``vectors`` [k, P] on examples that had no part in finding them.

        Args:
            state: the checkpoint.
            vectors: of length 1.
            found_on: the number of training examples on which the vectors were found.
            others: the other examples, cut into chunks of equal size; None: as many, drawn behind those.
            num_chunks: over which the standard error is computed, where there are so many other examples.
            parameters: those of the vectors.
            preconditioned: of the preconditioned Hessian, as ``hessian`` has it.

        Returns:
            None if there are no other examples.
        """
        inputs, targets = others or self.drawn_examples(found_on, after=found_on)
        if not len(targets):
            return None
        count = min(num_chunks, len(targets))
        size = len(targets) // count
        chunks = (
            self.hessian(
                state,
                (inputs[part : part + size], targets[part : part + size]),
                parameters=parameters,
                preconditioned=preconditioned,
            )
            for part in range(0, count * size, size)
        )
        fraction = count * size / (self.run.num_training - found_on)
        return elsewhere(chunks, vectors, fraction=fraction, num_examples=count * size)

    def sharpest(self, checkpoint: Snapshot, settings: OfHessian) -> Eigenpairs:
        """The sharpest directions at a checkpoint as ``settings`` ask for them; those of the last two are remembered.

        Those that a spectrum has kept are read, and take no products; others are looked for.

        Raises:
            DamagedError: what a spectrum has kept is damaged, or of something else.
        """
        key = (checkpoint.step, settings.num_pairs, settings.num_examples, settings.tolerance, settings.max_products)
        if key not in self.recent:
            operator = self.hessian(checkpoint, self.drawn_examples(settings.num_examples))
            pairs = kept.find(
                operator,
                checkpoint,
                self.kept,
                self._told,
                num_pairs=settings.num_pairs,
                tolerance=settings.tolerance,
            ) or self.eigenpairs(checkpoint, operator, **settings.search)
            for old in list(self.recent)[:-1]:
                del self.recent[old]
            self.recent[key] = pairs
        return self.recent[key]


def landscape_of(run: Run, data: Path, device: torch.device) -> Landscape:
    """Open a run's prepared data and build its loss."""
    dataset = dataset_of(run, data, device)
    loss, weights, buffers = loss_of(run, dataset)
    return Landscape(run=run, loss=loss, dataset=dataset, start=(weights, buffers))
