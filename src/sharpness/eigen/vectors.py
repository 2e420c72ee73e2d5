"""Norms and inner products of long vectors, accumulated in double precision."""

from __future__ import annotations

import torch
from torch import Tensor

_COLUMNS_PER_CHUNK = 2**16
_COLUMNS_PER_NORM = 2**20
# Beyond, a sum in single precision from end to end, as matrix products of a few long rows are, is off by 1e-3.
_LONGEST_SUM = 2**20


def inner_products(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of the rows of ``left`` [n, P] and ``right`` [l, P]: [n, l], float64, on the CPU."""
    total = torch.zeros(len(left), len(right), dtype=torch.float64)
    # In pieces: a full copy in double precision may not fit into memory.
    pieces = (torch.split(rows, _COLUMNS_PER_CHUNK, dim=1) for rows in (left, right))
    for of_left, of_right in zip(*pieces, strict=True):
        total += (of_left.double() @ of_right.double().T).cpu()
    return total


def along_rows(rows: Tensor, vectors: Tensor) -> Tensor:
    """Inner products of ``rows`` [n, P] with ``vectors`` [P] or [l, P], in their precision: [n] or [n, l].

    Those of long vectors are sums of pieces.
    """
    if _is_short(vectors):
        return rows @ vectors.mT if vectors.dim() > 1 else rows @ vectors
    pieces = zip(*(torch.split(given, _COLUMNS_PER_CHUNK, dim=-1) for given in (rows, vectors)), strict=True)
    products = [of_rows @ (given.mT if given.dim() > 1 else given) for of_rows, given in pieces]
    return torch.stack(products).sum(dim=0, dtype=torch.float64).to(vectors)


def inner_product(left: Tensor, right: Tensor) -> float:
    """Inner product of two vectors [P], as ``along_rows``."""
    return float(left @ right if _is_short(right) else along_rows(left[None], right))


def _is_short(vectors: Tensor) -> bool:
    return vectors.shape[-1] <= _LONGEST_SUM or vectors.dtype == torch.float64


def subspace_overlap(directions: Tensor, others: Tensor) -> float:
    """Mean squared cosine of the angles between two subspaces: 1 for the same, k / P for random ones.

    Gur-Ari, Roberts and Dyer, "Gradient descent happens in a tiny subspace", 2018, equation 5.

    Args:
        directions: [k, P], orthonormal rows.
        others: [k, P], the same.
    """
    return float(along_rows(directions, others).double().square().sum()) / len(directions)


def orthonormal_outside(rows: Tensor, vectors: Tensor) -> Tensor:
    """Orthonormalise ``vectors`` [n, P] against each other and against the orthonormal ``rows`` [k, P]."""
    for _ in range(2):
        vectors = vectors - along_rows(vectors, rows) @ rows
        vectors = torch.linalg.qr(vectors.T).Q.T
    return vectors


def norms_of_rows(rows: Tensor) -> Tensor:
    """Euclidean norms [n] of the rows [n, P], float64, on the CPU."""
    # In single precision the sum is off by 1e-5 on vectors as long as a network's weights, and eigenvalues by twice
    # as much. In pieces: torch copies all that it sums to double precision.
    pieces = torch.split(rows, _COLUMNS_PER_NORM, dim=1)
    norms = torch.stack([torch.linalg.vector_norm(piece, dim=1, dtype=torch.float64) for piece in pieces]).cpu()
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(norms, dim=0)


def length(vector: Tensor) -> float:
    """Euclidean norm of one vector [P]."""
    return float(norms_of_rows(vector[None]))


def largest_magnitude(values: Tensor) -> float:
    """max|λ| of the given eigenvalues."""
    return float(values.abs().max())
