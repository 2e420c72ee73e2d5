"""Refine approximate eigenpairs: Rayleigh-Ritz in their span, widened by their residuals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sharpness.eigen.operators import VectorProduct, not_symmetric
from sharpness.eigen.vectors import inner_products, largest_magnitude, norms_of_rows, orthonormal_outside


@dataclass(frozen=True)
class Refined:
    """Refined eigenpairs."""

    eigenvalues: Tensor  # [k], wanted end first, float64, on the CPU
    eigenvectors: Tensor  # [k, P], orthonormal rows
    residuals: Tensor  # [k], |A v - λ v| / max|λ|, computed from products
    num_products: int


def refine(
    product: VectorProduct,
    vectors: Tensor,
    *,
    ranking: Callable[[Tensor], Tensor],
    tolerance: float,
    max_products: int,
    magnitude: float = 0.0,
    num_pairs: int | None = None,
    one_by_one: bool = False,
) -> Refined:
    """Refine the eigenpairs near ``vectors`` until they are within ``tolerance`` or ``max_products`` are spent.

    Residuals above the tolerance are added to the span, as in the block Davidson method without a preconditioner
    (Davidson, 1975). If a vector's error is noise, most of its residual lies in directions of little curvature, and a
    single step removes it.

    Args:
        product: matvec with the operator.
        vectors: [k, P], nearly orthonormal rows.
        ranking: sort key of eigenvalues [n]; the wanted ones are largest.
        tolerance: largest residual, relative to the largest magnitude of an eigenvalue.
        max_products: budget of matvecs, at least k.
        magnitude: lower bound on the largest magnitude of an eigenvalue, known from elsewhere.
        num_pairs: how many are wanted, at most ``max_products``; None is one for each vector.
        one_by_one: widen the span by the largest residual alone at a time. From a single vector this is the Lanczos
            method, in whose span all residuals are parallel.
    """
    num_pairs, before = len(vectors) if num_pairs is None else num_pairs, product.num_products
    basis, images = vectors, product.rows(vectors)
    most = min(max_products, product.size)
    while True:
        values, coefficients = _rayleigh_ritz(product, basis, images, ranking, num_pairs)
        vectors = coefficients @ basis
        errors = coefficients @ images - values.to(images)[:, None] * vectors
        residuals = norms_of_rows(errors) / (max(magnitude, largest_magnitude(values)) or 1.0)
        room = max(most - len(basis), 0)
        worst = residuals.argsort(descending=True)[: min(room, 1) if one_by_one else room]
        beyond = worst if len(values) < num_pairs else worst[residuals[worst] > tolerance]
        if not len(beyond):
            return Refined(values, vectors, residuals, product.num_products - before)
        errors = errors[beyond.to(errors.device)]
        del vectors  # memory for the corrections
        corrections = orthonormal_outside(basis, errors)
        basis, images = torch.cat([basis, corrections]), torch.cat([images, product.rows(corrections)])


def _rayleigh_ritz(
    product: VectorProduct, basis: Tensor, images: Tensor, ranking: Callable[[Tensor], Tensor], num_pairs: int
) -> tuple[Tensor, Tensor]:
    """Wanted Ritz values [k] in the span of ``basis`` [m, P], and the coefficients [k, m] of their vectors."""
    gram, projected = inner_products(basis, basis), inner_products(basis, images)
    difference, scale = largest_magnitude(projected - projected.T), largest_magnitude(projected)
    if difference > product.allowed_asymmetry * scale:
        raise not_symmetric(difference / scale)
    orthonormal = torch.linalg.inv(torch.linalg.cholesky(gram))
    values, rotation = torch.linalg.eigh(orthonormal @ (projected + projected.T) / 2 @ orthonormal.T)
    order = ranking(values).argsort(descending=True, stable=True)[:num_pairs]
    return values[order], (rotation.T[order] @ orthonormal).to(images)
