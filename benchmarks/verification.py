"""True residuals, and eigenvalues at machine precision, from products that no tool under test has computed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.sparse.linalg import LinearOperator, eigsh  # type: ignore[import-untyped]
from torch import Tensor

from benchmarks.problem import Problem
from benchmarks.products import Product, double_backward, retained_double_backward
from benchmarks.tools import Counter, Solution
from sharpness.runtime.files import replacing

# A kept graph of this many examples fits into a few gigabytes.
_MOST_KEPT = 1024
# Room for negative eigenvalues among the largest in magnitude.
_SPARE = 10


def reference(problem: Problem, *, num_pairs: int, cache: Path) -> tuple[Tensor, int]:
    """ARPACK's eigenvalues at machine precision, descending, and the products they took now.

    They are kept in ``cache`` for exactly these weights and examples. There are more than ``num_pairs``, the largest in
    magnitude, so that the algebraically largest are among them.
    """
    place = cache / f"arpack-{_digest(problem)}-k{num_pairs}.safetensors"
    if place.exists():
        return load_file(place)["eigenvalues"], 0
    product = _independent(problem)
    counted = Counter(lambda vector: product(torch.from_numpy(vector.reshape(-1))).numpy())
    size = problem.num_weights
    operator = LinearOperator((size, size), matvec=counted, dtype=np.float32)
    start = np.random.default_rng(12345).standard_normal(size).astype(np.float32)
    found = eigsh(operator, k=num_pairs + _SPARE, which="LM", tol=0, v0=start, return_eigenvectors=False)
    values = torch.from_numpy(np.sort(found)[::-1].copy()).double()
    with replacing(place) as beside:
        save_file({"eigenvalues": values}, beside)
    return values, counted.calls


def worst_residual(problem: Problem, solution: Solution) -> float:
    """The largest |H v - λ v| / max|λ| of the pairs, with each v at length 1."""
    product = _independent(problem)
    worst = 0.0
    for value, vector in zip(solution.eigenvalues, solution.eigenvectors, strict=True):
        # In double precision: over so many entries a norm in single precision is off by 1e-5.
        unit = vector.to(problem.inputs.device, torch.float64)
        unit /= unit.norm()
        worst = max(worst, float((product(unit.float()).double() - value.item() * unit).norm()))
    return worst / float(solution.eigenvalues.abs().max())


def _digest(problem: Problem) -> str:
    digest = hashlib.sha256()
    for tensor in (*problem.model.parameters(), problem.inputs, problem.targets):
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _independent(problem: Problem) -> Product:
    few = len(problem.targets) <= _MOST_KEPT
    return retained_double_backward(problem) if few else double_backward(problem)
