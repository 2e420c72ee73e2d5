"""How many vectors a search or a quadrature may hold."""

from __future__ import annotations

from dataclasses import dataclass

from sharpness.eigen.operators import VectorProduct

DEFAULT_BUDGET = 4 * 2**30
# Besides the basis, its frontier and what is returned: the product and its parts along the basis, and a random vector
# in double precision while it is drawn.
_WORKSPACE = 8
# Vectors per pair while pairs are recomputed with a reference: the basis that corrections widen, its images, residuals.
_CERTIFYING = 10


@dataclass(frozen=True)
class Capacity:
    """Numbers of vectors that fit into the memory budget."""

    with_images: int  # in the basis, its images and the frontier
    without_images: int  # in the basis and the frontier


def least_basis(num_pairs: int, size: int) -> int:
    """Fewest vectors in basis and frontier with which a search for ``num_pairs`` of ``size`` works."""
    return min(2 * num_pairs + 16, size)


def capacity(product: VectorProduct, num_pairs: int, memory_budget: int | None) -> Capacity:
    """Divide ``memory_budget`` bytes; None is ``DEFAULT_BUDGET``, or the least that suffices if that is more.

    Raises:
        ValueError: the budget is too small; the message names the least that suffices.
    """
    others = num_pairs + 1 + _WORKSPACE
    least = least_basis(num_pairs, product.size) + others
    if product.reference is not None:
        least = max(least, _CERTIFYING * num_pairs + _WORKSPACE)
    num_vectors = _num_vectors(product, least, memory_budget, f"{num_pairs} eigenpairs")
    # With images, residuals are computed from further copies of the pairs and of the smallest Ritz vector.
    return Capacity(num_vectors - 4 * (num_pairs + 1) - _WORKSPACE, num_vectors - others)


def quadrature_fits(product: VectorProduct, num_steps: int, memory_budget: int | None) -> bool:
    """Whether the vectors of ``num_steps`` Lanczos steps fit into ``memory_budget`` bytes; None as in ``capacity``.

    Raises:
        ValueError: not even two vectors fit; the message names the least that suffices.
    """
    return num_steps + 1 + _WORKSPACE <= _num_vectors(
        product, 2 + _WORKSPACE, memory_budget, "Lanczos steps on vectors"
    )


def _num_vectors(product: VectorProduct, least: int, memory_budget: int | None, what: str) -> int:
    """How many vectors fit into ``memory_budget`` bytes; None is ``DEFAULT_BUDGET`` or what ``least`` vectors take."""
    bytes_per_vector = product.size * product.dtype.itemsize
    if memory_budget is None:
        memory_budget = max(DEFAULT_BUDGET, least * bytes_per_vector)
    if memory_budget < least * bytes_per_vector:
        raise ValueError(
            f"memory_budget={memory_budget:,} bytes is too little for {what} of {product.size:,} entries each: "
            f"need at least {least * bytes_per_vector:,} bytes"
        )
    return memory_budget // bytes_per_vector
