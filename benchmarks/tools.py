"""The top of a Hessian's spectrum by this project and by other libraries, each used as its documentation shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh  # type: ignore[import-untyped]
from torch import Tensor, nn

from benchmarks.jobs import LARGER, Job
from benchmarks.problem import Problem
from benchmarks.products import chunks_of, double_backward, flat
from sharpness.eigen.lanczos import top_eigenpairs
from sharpness.hessian.operator import HessianOperator
from sharpness.runtime.streams import stream

# Bytes of the basis in which ours looks for eigenpairs of larger networks: half of the default.
BASIS = 2 * 2**30


@dataclass(frozen=True)
class Solution:
    """What a tool returns, and what it took."""

    eigenvalues: Tensor  # [k], float64, descending
    eigenvectors: Tensor  # [k, P], rows, as ``products.flat`` orders them
    num_products: int  # up to convergence
    num_probing: int = 0  # further ones
    num_certifying: int = 0  # further ones in float32
    converged: bool | None = None  # as the tool says, where it does
    complete: bool | None = None
    claimed_residual: float | None = None


class Counter:
    """Calls of a function, counted."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.calls = 0
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self._function(*args, **kwargs)


def importing(tool: str) -> Callable[[Problem, Job], Solution]:
    """The tool as a function, with all that it imports already imported."""
    return _TOOLS[tool]()


def _ours(precision: Literal["float32", "tf32", "bfloat16"], tolerance: float) -> Callable[[Problem, Job], Solution]:
    def solve(problem: Problem, job: Job) -> Solution:
        operator = HessianOperator(problem.model, problem.inputs, problem.targets, precision=precision)
        generator = stream(job.round, "benchmark")
        budget = BASIS if job.network in LARGER else None
        pairs = top_eigenpairs(operator, job.num_pairs, tolerance=tolerance, generator=generator, memory_budget=budget)
        return Solution(
            pairs.eigenvalues,
            torch.stack([flat(operator.layout.views(vector)) for vector in pairs.eigenvectors]),
            pairs.num_products,
            pairs.num_probing,
            pairs.num_certifying,
            pairs.converged,
            pairs.complete,
            float(pairs.residuals.max()),
        )

    return solve


def _scipy(which: str) -> Callable[[Problem, Job], Solution]:
    def solve(problem: Problem, job: Job) -> Solution:
        product = double_backward(problem)
        size = problem.num_weights
        device = problem.inputs.device
        counted = Counter(lambda vector: product(torch.from_numpy(vector.reshape(-1)).to(device)).cpu().numpy())
        operator = LinearOperator((size, size), matvec=counted, dtype=np.float32)
        values, vectors = eigsh(operator, k=job.num_pairs, which=which, v0=_start(size, job))
        return _descending(values, vectors.T, counted.calls)

    return solve


def _curvlinops(tolerance: float = 0) -> Callable[[Problem, Job], Solution]:
    from curvlinops import HessianLinearOperator

    class Counted(HessianLinearOperator):
        """Counts the columns that it multiplies."""

        calls = 0

        def _matmat(self, M: list[Tensor]) -> list[Tensor]:  # noqa: N803 (the library's own name)
            self.calls += M[0].shape[-1]
            images: list[Tensor] = super()._matmat(M)
            return images

    def solve(problem: Problem, job: Job) -> Solution:
        data = chunks_of(problem)
        operator = Counted(problem.model, nn.CrossEntropyLoss(), list(problem.model.parameters()), data)
        # Without a dtype ARPACK works in double precision.
        start = _start(problem.num_weights, job).astype(np.float64)
        values, vectors = eigsh(operator.to_scipy(), k=job.num_pairs, which="LM", v0=start, tol=tolerance)
        return _descending(values, vectors.T, operator.calls)

    return solve


def _eigenthings(tolerance: float = 1e-4) -> Callable[[Problem, Job], Solution]:
    from hessian_eigenthings.algorithms.lanczos import lanczos
    from hessian_eigenthings.loss_fns.standard import supervised_loss
    from hessian_eigenthings.operators.hessian import HessianOperator as TheirOperator

    class Counted(TheirOperator):
        """Counts its products."""

        calls = 0

        def matvec(self, v: Tensor) -> Tensor:
            self.calls += 1
            image: Tensor = super().matvec(v)
            return image

    def solve(problem: Problem, job: Job) -> Solution:
        data = chunks_of(problem)
        operator = Counted(problem.model, data, supervised_loss(nn.CrossEntropyLoss()))
        most = max(50, 5 * job.num_pairs)
        result = lanczos(operator, k=job.num_pairs, max_iter=most, tol=tolerance, seed=job.round)
        return _descending(result.eigenvalues.cpu().numpy(), result.eigenvectors.cpu().numpy(), operator.calls)

    return solve


def _pyhessian(*, one_batch: bool) -> Callable[[Problem, Job], Solution]:
    from pyhessian import hessian as theirs

    def solve(problem: Problem, job: Job) -> Solution:
        data = chunks_of(problem)
        given = {"data": (problem.inputs, problem.targets)} if one_batch else {"dataloader": data}
        torch.manual_seed(job.round)  # it draws from the global generator
        hessian = theirs(problem.model, nn.CrossEntropyLoss(), cuda=problem.inputs.is_cuda, **given)
        counted = _count_pyhessian(hessian, one_batch=one_batch)
        values, vectors = hessian.eigenvalues(top_n=job.num_pairs)
        rows = torch.stack([flat(vector) for vector in vectors]).cpu().numpy()
        return _descending(np.array(values), rows, counted.calls)

    return solve


def _count_pyhessian(hessian: Any, *, one_batch: bool) -> Counter:
    import sys

    if one_batch:
        library = sys.modules[type(hessian).__module__]
        counted = library.hessian_vector_product = Counter(library.hessian_vector_product)  # type: ignore[attr-defined]
    else:
        counted = hessian.dataloader_hv_product = Counter(hessian.dataloader_hv_product)
    return counted


_TOOLS: dict[str, Callable[[], Callable[[Problem, Job], Solution]]] = {
    "ours float32": partial(_ours, "float32", 1e-3),
    "ours tf32": partial(_ours, "tf32", 1e-3),
    "ours bfloat16": partial(_ours, "bfloat16", 1e-2),
    "scipy LM": partial(_scipy, "LM"),
    "scipy LA": partial(_scipy, "LA"),
    "curvlinops": _curvlinops,
    "eigenthings": _eigenthings,
    "curvlinops 1e-3": partial(_curvlinops, 1e-3),
    "eigenthings 1e-3": partial(_eigenthings, 1e-3),
    "pyhessian": partial(_pyhessian, one_batch=False),
    "pyhessian one batch": partial(_pyhessian, one_batch=True),
}


def _start(size: int, job: Job) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A start vector of ARPACK: at random, as it would draw one itself, but the same in each repetition."""
    return np.random.default_rng(job.round).uniform(-1, 1, size).astype(np.float32)


def _descending(values: Any, rows: Any, num_products: int) -> Solution:
    order = np.argsort(values)[::-1].copy()
    vectors = torch.from_numpy(np.ascontiguousarray(rows[order])).float()
    return Solution(torch.from_numpy(np.asarray(values)[order].copy()).double(), vectors, num_products)
