"""Track the curvature of a network during a training loop of one's own."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sharpness.eigen.eigenpairs import Eigenpairs
from sharpness.eigen.estimators import Estimate, mean_of
from sharpness.hessian import arguments
from sharpness.hessian.chunking import NoTermsError
from sharpness.hessian.moving import MovingHessian
from sharpness.hessian.operator import HessianOperator
from sharpness.hessian.preconditioner import StepsOf
from sharpness.hessian.processes import Processes, ProcessGroup
from sharpness.runtime import checks
from sharpness.runtime.precision import Precision
from sharpness.tracking.following import Followed, Follower
from sharpness.tracking.limits import StabilityLimit, stability_limit
from sharpness.tracking.randomness import unchanged_randomness
from sharpness.tracking.record import CurvatureRecord
from sharpness.tracking.resuming import check_resumable, on_device, resumed, state_of
from sharpness.tracking.trained import check_trained
from sharpness.tracking.writers import Target, writers

_NOT_MADE = "the tracker could not be made"


class CurvatureTracker:
    """Follow the sharpest directions of a loss while a network trains on it.

    Call ``step()`` after every ``optimizer.step()``. Every so many steps the tracker computes the leading eigenvalues
    of the Hessian on fixed examples, from a few products through the eigenvectors that it knows, and searches for
    them anew, as ``top_eigenpairs`` does, when it has lost them. Each eigenvalue comes with its residual: there is an
    eigenvalue within ``residual * max|λ|`` of it. The training is left alone: with and without the tracker its weights
    are the same to the bit, and so are gradients, buffers, modes and all random generators.

    The eigenvalues stand beside the stability limit of the optimizer with its present learning rate (see
    ``stability_limit``). For Adam, AdamW, NAdam, RMSprop and Adagrad, and where groups of parameters have learning
    rates of their own, they are those of the preconditioned Hessian, which the steps see; for optimizers that divide,
    the first measurement then needs a step before it.

    Args:
        model: that is trained.
        data: as for ``HessianOperator``, (inputs, targets) as one argument: the examples of the Hessian; a few hundred
            are usual.
        loss: as for ``HessianOperator``; None is the cross-entropy.
        optimizer: that trains the weights with rows, and no others; None tracks the eigenvalues without a limit.
        every: steps from one measurement to the next.
        num_pairs: k, how many of the largest eigenvalues.
        to: where records go: a path that ends in .csv (a new file), a ``SummaryWriter``, a function of a record, or
            several of these.
        batch_sharpness: number of random mini-batches of the data on which Batch Sharpness is measured: the mean
            curvature of a mini-batch along its own gradient (Andreyev and Beneventano, 2024); 0 for none.
        batch_size: examples in each of them, over all processes.
        tolerance: residual at which a search or following stops, relative to the largest magnitude.
        products: Hessian-vector products per measurement on average, in the long run and the first search apart:
            searches and probes wait until enough have been saved, and records say the residuals meanwhile. None is
            ``follow_products`` + 1/4; ``math.inf`` searches whenever it is needed.
        follow_products: products at most of following; None is 2 k.
        renew_residual: residual above which a search follows.
        renew_overlap: mean squared cosine of the angles between the followed eigenvectors and those of the last
            measurement, below which a search follows.
        probe_every: measurements from one look outside the followed eigenvectors to the next; 0 for none.
        probe_products: products of such a look, and of the probe that ends a search.
        max_products: products at most of a search; None is 20 k, at least 200.
        seed: of the tracker's own random vectors and mini-batches.
        chunk_size: as for ``HessianOperator``.
        memory_budget: as for ``HessianOperator``.
        parameters: as for ``HessianOperator``; those that require a gradient, unless others are named.
        precision: as for ``HessianOperator``.
        batch_statistics: as for ``HessianOperator``: batch norm is that of a training on all of the data at once, or on
            the mini-batch for Batch Sharpness.
        process_group: as for ``HessianOperator``. Each process has its part of the examples. Mini-batches are drawn
            from all parts, and the first process writes the records.
        resume: the ``state_dict()`` of a tracker of the same training, to go on from there with the same records as
            without a stop. A CSV file is continued behind the records of that state.

    Attributes:
        history: all records.
        pairs: eigenvalues and eigenvectors of the last measurement; None before the first.

    Raises:
        TypeError: an argument has the wrong type, or no limit is known for the optimizer.
        ValueError: an argument is out of range, or the optimizer trains other weights than those with rows; more as
            for ``HessianOperator``.
        FileExistsError: the CSV file exists, and does not begin with the records of ``resume``.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        loss: Any = None,
        optimizer: Optimizer | None = None,
        *others: Any,
        every: int = 50,
        num_pairs: int = 2,
        to: Target | Iterable[Target] = (),
        batch_sharpness: int = 0,
        batch_size: int | None = None,
        tolerance: float = 0.05,
        products: float | None = None,
        follow_products: int | None = None,
        renew_residual: float = 0.1,
        renew_overlap: float = 0.5,
        probe_every: int = 10,
        probe_products: int = 5,
        max_products: int | None = None,
        seed: int = 0,
        chunk_size: int = 256,
        memory_budget: int = 4 * 2**30,
        parameters: str | Sequence[str] = "trained",
        precision: Precision = "float32",
        batch_statistics: bool = False,
        process_group: ProcessGroup | Literal[False] | None = None,
        resume: Mapping[str, Any] | None = None,
    ) -> None:
        if others or isinstance(loss, Tensor | np.ndarray):
            got = f"{4 + len(others)} arguments by position" if others else "an array as the loss"
            raise TypeError(
                "data is one argument, (inputs, targets): give CurvatureTracker(model, (inputs, targets), loss, "
                f"optimizer) and the other arguments by name, got {got}"
            )
        self._model, self._optimizer = model, optimizer
        self._all_trained = isinstance(parameters, str) and parameters == "trained"
        processes = Processes(process_group, arguments.device_of(model))
        self.history: list[CurvatureRecord] = []
        self.pairs: Eigenpairs | None = None
        self._num_steps = 0
        with processes.together(_NOT_MADE):
            if resume is not None:
                self._num_steps, self.history, self.pairs = resumed(resume)
            self._every = checks.whole_number("every", every, least=1)
            if optimizer is not None:
                stability_limit(optimizer)  # where it is known
            self._generator = torch.Generator().manual_seed(checks.whole_number("seed", seed))
        with unchanged_randomness():
            operator = HessianOperator(
                model,
                data,
                loss=loss,
                parameters=parameters,
                precision=precision,
                batch_statistics=batch_statistics,
                chunk_size=chunk_size,
                memory_budget=memory_budget,
                process_group=process_group,
            )
            self._hessian, provenance = MovingHessian.of(operator), operator.provenance
            del operator  # memory for those to come
        self._parts = processes.numbers(self._hessian.num_examples)
        with processes.together(_NOT_MADE):
            self._check_trained()
            self._num_batches, self._batch_size = _batches(
                batch_sharpness, batch_size, self._hessian.can_choose, sum(self._parts)
            )
            self._follower = _follower(
                generator=self._generator,
                size=self._hessian.layout.size,
                num_pairs=num_pairs,
                tolerance=tolerance,
                products=products,
                follow_products=follow_products,
                renew_residual=renew_residual,
                renew_overlap=renew_overlap,
                probe_every=probe_every,
                probe_products=probe_products,
                max_products=max_products,
            )
            if resume is not None:
                check_resumable(resume, num_pairs, provenance)
                like = torch.empty(0, dtype=self._hessian.dtype, device=self._hessian.device)
                self._follower.load_state_dict(resume["follower"], like=like)
                self.pairs = self.pairs and on_device(self.pairs, like)
            # The last that may fail: it changes a file. Of several processes, which all measure the same, one writes.
            self._write = writers(to, self.history) if processes.is_first else []

    def state_dict(self) -> dict[str, Any]:
        """Return what ``resume`` takes: tensors, numbers and text, which ``torch.save`` keeps in a checkpoint."""
        return state_of(self._num_steps, self.history, self.pairs) | {"follower": self._follower.state_dict()}

    def step(self) -> CurvatureRecord | None:
        """Count one step of the training, and measure if it is time to.

        Returns:
            The record of this step, if it was measured.
        """
        self._num_steps += 1
        return None if self._num_steps % self._every else self.measure()

    def measure(self) -> CurvatureRecord:
        """Measure now, as before the first step; the counting of steps goes on.

        A training that has diverged is recorded as such, with eigenvalues that are NaN.

        Raises:
            ValueError: Adam or RMSprop has not made its first step, or the optimizer no longer trains just the weights
                that have rows.
        """
        self._check_trained()
        cpu, clock = time.process_time(), time.perf_counter()
        limit = None if self._optimizer is None else stability_limit(self._optimizer)
        found, sharpness = None, None
        with unchanged_randomness():
            try:
                operator = self._hessian.at_present(self._model, preconditioner=_preconditioner(self._optimizer, limit))
                found = self._follower.update(operator)
                del operator  # memory for the mini-batches
                sharpness = self._batch_sharpness() if self._num_batches else None
            except FloatingPointError:
                self._follower.forget()
        record = self._record(found, sharpness, limit, cpu=time.process_time() - cpu, clock=time.perf_counter() - clock)
        self.pairs = None if found is None else found.pairs
        self.history.append(record)
        for write in self._write:
            write(record)
        return record

    def _check_trained(self) -> None:
        if self._optimizer is not None:
            check_trained(self._optimizer, self._model, self._hessian.layout, all_trained=self._all_trained)

    def _batch_sharpness(self) -> Estimate:
        """NaN where a mini-batch has no gradient: it is fitted perfectly, or all its labels are ignored."""
        curvatures = torch.full([self._num_batches], math.nan, dtype=torch.float64)
        for number in range(self._num_batches):
            chosen = torch.randperm(sum(self._parts), generator=self._generator)[: self._batch_size]
            with suppress(NoTermsError):
                of_batch = self._on(chosen)
                gradient = of_batch.gradient()
                along = (of_batch @ gradient).double()
                curvatures[number] = (gradient.double() @ along) / gradient.double().square().sum()
        return mean_of(curvatures, len(curvatures))

    def _on(self, chosen: Tensor) -> HessianOperator:
        """The operator on the ``chosen`` examples, numbered over the parts of all processes."""
        processes = self._hessian.processes
        first = sum(self._parts[: processes.rank])
        own = chosen[(first <= chosen) & (chosen < first + self._hessian.num_examples)] - first
        if len(own):
            return self._hessian.at_present(self._model, chosen=own)
        # An operator needs an example: one that does not count.
        others = replace(self._hessian, processes=processes.without_this())
        return others.at_present(self._model, chosen=torch.tensor([0]))

    def _record(
        self,
        found: Followed | None,
        sharpness: Estimate | None,
        limit: StabilityLimit | None,
        *,
        cpu: float,
        clock: float,
    ) -> CurvatureRecord:
        nan = (math.nan,) * self._follower.num_pairs
        values = nan if found is None else tuple(found.pairs.eigenvalues.tolist())
        return CurvatureRecord(
            step=self._num_steps,
            eigenvalues=values,
            residuals=nan if found is None else tuple(found.pairs.residuals.tolist()),
            found_by="diverged" if found is None else found.found_by,
            overlap=None if found is None else found.overlap,
            beyond=None if found is None else found.beyond,
            complete=None if found is None else found.pairs.complete,
            learning_rate=None if limit is None else limit.learning_rate,
            rate_times_eigenvalue=None if limit is None else limit.learning_rate * values[0],
            rate_limit=None if limit is None else limit.rate_times_eigenvalue,
            stable_below=None if limit is None else limit.eigenvalue,
            batch_sharpness=None if sharpness is None else sharpness.value,
            batch_sharpness_error=None if sharpness is None else sharpness.standard_error,
            num_products=(0 if found is None else found.num_products) + (self._num_batches if sharpness else 0),
            cpu_seconds=cpu,
            seconds=clock,
        )


def _preconditioner(optimizer: Optimizer | None, limit: StabilityLimit | None) -> StepsOf | None:
    return StepsOf(optimizer) if optimizer is not None and limit is not None and limit.is_preconditioned else None


def _batches(number: int, size: int | None, can_choose: bool, num_examples: int) -> tuple[int, int]:
    checks.whole_number("batch_sharpness", number, least=0)
    if not number:
        return 0, 0
    if number < 2:
        raise ValueError(f"batch_sharpness must be at least 2 mini-batches, which have a standard error, got {number}")
    if size is None:
        raise ValueError("batch_sharpness needs batch_size, the examples in each mini-batch")
    if not can_choose:
        raise ValueError(
            "batch_sharpness draws single examples: give the data as (inputs, targets), or for a loss of one's own as "
            "one batch of tensors, in memory"
        )
    if checks.whole_number("batch_size", size, least=1) > num_examples:
        raise ValueError(f"batch_size must be at most {num_examples}, the examples in the data, got {size}")
    return number, size


def _follower(
    *,
    generator: torch.Generator,
    size: int,
    num_pairs: int,
    tolerance: float,
    products: float | None,
    follow_products: int | None,
    renew_residual: float,
    renew_overlap: float,
    probe_every: int,
    probe_products: int,
    max_products: int | None,
) -> Follower:
    if checks.whole_number("num_pairs", num_pairs, least=1) > size:
        raise ValueError(f"num_pairs must be at most {size}, the number of weights that have rows, got {num_pairs}")
    checks.tolerance(tolerance)
    checks.factor("renew_residual", renew_residual)
    checks.factor("renew_overlap", renew_overlap)
    if follow_products is None:
        follow_products = 2 * num_pairs
    checks.whole_number("follow_products", follow_products, least=num_pairs)
    if products is None:
        products = follow_products + 0.25
    if isinstance(products, bool) or not isinstance(products, Real) or not products >= num_pairs:
        raise ValueError(f"products must be a number of at least num_pairs={num_pairs}, got {products!r}")
    if max_products is None:
        max_products = max(200, 20 * num_pairs)
    return Follower(
        num_pairs=num_pairs,
        tolerance=tolerance,
        products=products,
        follow_products=follow_products,
        renew_residual=renew_residual,
        renew_overlap=renew_overlap,
        probe_every=checks.whole_number("probe_every", probe_every, least=0),
        probe_products=checks.whole_number("probe_products", probe_products, least=1),
        max_products=checks.whole_number("max_products", max_products, least=num_pairs),
        generator=generator,
    )
