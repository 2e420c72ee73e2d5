"""Eigenpairs of a symmetric operator by the Lanczos method, stopped on residuals.

Full reorthogonalisation in two passes (Parlett, "The Symmetric Eigenvalue Problem", chapter 13): no ghost copies of an
eigenvalue. Knows vectors only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# After an invariant subspace was found, so many steps into its complement look for further copies of an eigenvalue.
_PROBE_STEPS = 10


class SymmetricOperator(Protocol):
    """Anything that multiplies a vector [P] and knows its own shape, precision and device."""

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    def __matmul__(self, vector: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Eigenpairs:
    """The algebraically largest eigenpairs, largest first, and what the same Krylov space says of the smallest."""

    eigenvalues: Tensor  # [k], descending, float64, on the CPU
    eigenvectors: Tensor  # [k, P], orthonormal rows; the sign of a row is arbitrary
    residuals: Tensor  # [k], |A v - λ v| / max|λ|, computed from products
    smallest: float  # the smallest Ritz value: the smallest eigenvalue where its residual is small
    smallest_residual: float
    num_products: int
    converged: bool  # whether every residual of the largest k is within the tolerance


def top_eigenpairs(
    operator: SymmetricOperator, *, num_pairs: int, tolerance: float, max_products: int, generator: torch.Generator
) -> Eigenpairs:
    """The ``num_pairs`` algebraically largest eigenpairs of ``operator``.

    Args:
        operator: symmetric, [P, P].
        num_pairs: k, at most P.
        tolerance: largest residual, relative to the largest magnitude of an eigenvalue.
        max_products: most products with the operator; the best pairs so far are returned when they are used up.
        generator: of the start vector, on the CPU.

    Raises:
        ValueError: ``num_pairs`` or ``max_products`` do not fit.
        FloatingPointError: a product is not finite.
    """
    size = operator.shape[0]
    capacity = min(max_products, size)
    if not 1 <= num_pairs <= capacity:
        raise ValueError(
            f"need 1 <= num_pairs <= max_products and the size {size} of the operator, "
            f"got num_pairs={num_pairs}, max_products={max_products}"
        )
    krylov = _Krylov(operator, capacity, generator)
    settled_at = 0
    while True:
        whole = krylov.extend()
        if whole:
            settled_at = krylov.num_steps + _PROBE_STEPS
        full = krylov.num_steps == capacity
        settled = krylov.num_steps >= max(num_pairs, settled_at) and krylov.estimate(num_pairs) <= tolerance
        if full or settled:
            pairs = krylov.pairs(num_pairs, tolerance)
            if full or pairs.converged:
                return pairs


class _Krylov:
    """An orthonormal basis that grows by one product a step, with the images of its vectors."""

    def __init__(self, operator: SymmetricOperator, capacity: int, generator: torch.Generator) -> None:
        self.num_steps = 0
        self._operator = operator
        self._generator = generator
        empty = torch.empty(capacity, operator.shape[0], dtype=operator.dtype, device=operator.device)
        self._basis = empty  # rows
        self._images = torch.empty_like(empty)  # operator times each row
        self._projected = torch.zeros(capacity, capacity, dtype=torch.float64)
        self._off_diagonal = 0.0
        self._next = self._random()

    def extend(self) -> bool:
        """One more step; returns whether the basis has just become an invariant subspace."""
        step = self.num_steps
        self._basis[step] = self._next
        image = self._operator @ self._next
        self._images[step] = image
        self.num_steps += 1
        basis = self._basis[: self.num_steps]
        coefficients = basis @ image
        # Twice is enough: one pass leaves components of the size of the rounding error.
        rest, norm = self._orthogonalised(image - coefficients @ basis)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"product {step + 1} with the operator is not finite")
        column = coefficients.double().cpu()
        self._projected[: step + 1, step] = column
        self._projected[step, : step + 1] = column
        self._off_diagonal = float(norm)
        scale = float(self._projected.abs().max())
        # Nothing is lost where this is taken too early: the columns of the projection are computed in full.
        broken: bool = self._off_diagonal <= torch.finfo(image.dtype).eps ** 0.7 * scale
        self._next = self._random() if broken and self.num_steps < len(self._basis) else rest / norm
        if broken:
            self._off_diagonal = 0.0
        return broken

    def _orthogonalised(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        vector = vector - (self._basis[: self.num_steps] @ vector) @ self._basis[: self.num_steps]
        return vector, vector.norm()

    def _random(self) -> Tensor:
        drawn = torch.randn(self._basis.shape[1], generator=self._generator, dtype=torch.float64).to(self._basis)
        once, norm = self._orthogonalised(drawn / drawn.norm())
        twice, norm = self._orthogonalised(once / norm)
        return twice / norm

    def _ritz(self) -> tuple[Tensor, Tensor]:
        """Ritz values, descending, and the coefficients of their vectors as rows."""
        values, vectors = torch.linalg.eigh(self._projected[: self.num_steps, : self.num_steps])
        return values.flip(0), vectors.T.flip(0)

    def estimate(self, num_pairs: int) -> float:
        """Largest residual of the leading pairs, as the recurrence estimates it: cheap, for deciding when to look."""
        values, vectors = self._ritz()
        scale = float(values.abs().max())
        return self._off_diagonal * float(vectors[:num_pairs, -1].abs().max()) / scale if scale else 0.0

    def pairs(self, num_pairs: int, tolerance: float) -> Eigenpairs:
        """The leading pairs and the smallest, with residuals computed from the stored images."""
        values, vectors = self._ritz()
        chosen = torch.cat([torch.arange(num_pairs), torch.tensor([self.num_steps - 1])])
        coefficients = vectors[chosen].to(self._basis)
        ritz_vectors = coefficients @ self._basis[: self.num_steps]
        images = coefficients @ self._images[: self.num_steps]
        scale = float(values.abs().max()) or 1.0
        errors = images - values[chosen].to(images)[:, None] * ritz_vectors
        residuals = errors.norm(dim=1).double().cpu() / scale
        return Eigenpairs(
            eigenvalues=values[:num_pairs],
            eigenvectors=ritz_vectors[:num_pairs],
            residuals=residuals[:num_pairs],
            smallest=float(values[-1]),
            smallest_residual=float(residuals[-1]),
            num_products=self.num_steps,
            converged=bool((residuals[:num_pairs] <= tolerance).all()),
        )
