"""Eigenpairs of a symmetric operator by the Lanczos method, stopped on residuals.

A single start vector sees one copy of a multiple eigenvalue and may see a cluster late, so random vectors in the
complement of the Krylov space probe for missed pairs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from sharpness.eigen.eigenpairs import Eigenpairs
from sharpness.eigen.krylov import Krylov
from sharpness.eigen.memory import capacity
from sharpness.eigen.operators import SymmetricOperator, VectorProduct
from sharpness.eigen.refinement import Refined, refine
from sharpness.eigen.saving import provenance_of
from sharpness.eigen.search import Search
from sharpness.eigen.vectors import inner_products
from sharpness.runtime import checks
from sharpness.runtime.device import on_its_device

__all__ = ["Eigenpairs", "SymmetricOperator", "Which", "follow_eigenpairs", "top_eigenpairs"]


Which = Literal["largest", "smallest", "magnitude"]

# Signs of the operator whose largest eigenvalues are wanted.
_SIGNS: dict[str, tuple[int, ...]] = {"largest": (1,), "smallest": (-1,), "magnitude": (1, -1)}
# Largest deviation of the Gram matrix from the identity for vectors to be followed.
_ORTHONORMAL = 0.1


@on_its_device
def top_eigenpairs(
    operator: SymmetricOperator,
    num_pairs: int,
    *,
    tolerance: float = 1e-3,
    max_products: int | None = None,
    generator: torch.Generator | None = None,
    which: Which = "largest",
    probe_products: int = 8,
    certify: bool = True,
    memory_budget: int | None = None,
) -> Eigenpairs:
    """Compute the largest, smallest (both algebraic) or largest-magnitude eigenpairs of ``operator``.

    The Lanczos method with full reorthogonalisation (Parlett, "The Symmetric Eigenvalue Problem", chapter 13) stops
    when every residual is within ``tolerance``. Small residuals do not exclude missed pairs. So, after convergence, a
    probe of ``probe_products`` matvecs starts from a random vector in the complement of the Krylov space. If it moves a
    wanted value by more than ``tolerance`` times the largest magnitude (a fraction of that if the probe has fewer
    matvecs than there are pairs), the search continues until the pairs converge again, and probes again. A probe that
    finds nothing yields the bound ``complete_beyond``; more matvecs tighten it, and once it falls short of the last
    wanted value, the pairs are ``complete``.

    If the operator has a ``reference``, Lanczos runs on the operator itself and stops by the recurrence's estimate; the
    pairs are then recomputed in the span of the k vectors with one matvec of the reference each, and corrected with a
    few more where the operator's noise was too large.

    Where the memory budget is too small for basis and images, the images are given up first, and residuals follow from
    the recurrence, whose rounding one more matvec measures. Where it is too small for the basis, that is compressed to
    the leading Ritz vectors (thick restart), which costs some more matvecs, and ``complete`` stays None more often.

    Args:
        operator: symmetric, [P, P].
        num_pairs: k, at most P.
        tolerance: largest residual, relative to the largest magnitude of an eigenvalue.
        max_products: budget of matvecs with the operator, probes included; when it is spent, the best pairs so far are
            returned. Matvecs with a reference, from k to the larger of 3 k and 12, are not counted. None is 20 k, at
            least 200.
        generator: draws the start vector and the probes, on the CPU. None is a new one with seed 0, so that a call
            gives the same result each time; the global generator is never used.
        which: the wanted end of the spectrum; with "magnitude" the order of λ and -λ is arbitrary.
        probe_products: matvecs of a probe; 0 disables probing.
        certify: False ignores the ``reference`` of a low-precision operator; residuals then refer to the operator
            itself.
        memory_budget: bytes for all vectors of the search; what the operator itself holds is not counted. None is 4
            GiB, or the least that suffices if that is more (about 3 k + 25 vectors of P numbers). The result is the
            same to the bit whatever the budget, as long as basis and images fit.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the operator is not square, real, floating-point and symmetric; a product has the wrong shape, dtype
            or device; or an argument is out of range, such as a memory budget that is too small.
        FloatingPointError: a product is not finite.
    """
    product = VectorProduct(operator, with_reference=checks.flag("certify", certify))
    if not isinstance(which, str) or which not in _SIGNS:
        raise ValueError(f"which must be one of {', '.join(_SIGNS)}, got {which!r}")
    checks.whole_number("num_pairs", num_pairs)
    max_products = (
        max(200, 20 * num_pairs) if max_products is None else checks.whole_number("max_products", max_products)
    )
    checks.whole_number("probe_products", probe_products)
    checks.tolerance(tolerance)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    checks.generator(generator)
    if not 1 <= num_pairs <= min(max_products, product.size):
        raise ValueError(
            f"need 1 <= num_pairs <= max_products and the size {product.size} of the operator, "
            f"got num_pairs={num_pairs}, max_products={max_products}"
        )
    if probe_products < 0:
        raise ValueError(f"probe_products must not be negative, got {probe_products}")
    if memory_budget is not None:
        checks.whole_number("memory_budget", memory_budget, least=0)
    room = capacity(product, num_pairs, memory_budget)
    most = min(room.without_images, product.size)
    space = Krylov(product, generator, keep_images=product.reference is None, max_rows=most)
    search = Search(space, _SIGNS[which], num_pairs, tolerance, max_products, room, product.reference)

    missed: bool | None = None
    pairs = search.converge()
    while pairs.converged and (missed := search.probe(probe_products)):
        pairs = search.converge()

    beyond, is_whole = search.completeness()
    pairs = replace(
        pairs,
        provenance=provenance_of(operator),
        num_probing=space.num_products - pairs.num_products,
        complete=True if is_whole and not missed else (False if missed else None),
        complete_beyond=beyond,
    )
    return pairs if product.reference is None else search.certified(pairs, product.reference)


@on_its_device
def follow_eigenpairs(
    operator: SymmetricOperator,
    vectors: Tensor,
    *,
    tolerance: float,
    max_products: int,
    num_pairs: int | None = None,
) -> Refined:
    """Update the largest eigenpairs of ``operator``, starting from the eigenvectors of a similar operator.

    This takes a few matvecs per pair if the operator has changed little (block Davidson without a preconditioner). An
    eigenvalue that has overtaken the followed ones is noticed only if its vector overlaps their span, so call
    ``top_eigenpairs`` from time to time.

    Args:
        operator: symmetric, [P, P]; a ``reference`` is ignored.
        vectors: [k, P], orthonormal rows.
        tolerance: largest residual, relative to the largest magnitude among the pairs.
        max_products: budget of matvecs, at least k; when it is spent, the best pairs so far are returned.
        num_pairs: how many pairs to return, at most ``max_products``; None is k. If given, the span is widened by one
            residual at a time, which from a single vector is the Lanczos method.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the vectors are not orthonormal rows [k, P], or there are fewer matvecs than vectors.
        FloatingPointError: a product is not finite.
    """
    product = VectorProduct(operator, with_reference=False)
    checks.tolerance(tolerance)
    if not isinstance(vectors, Tensor):
        raise TypeError(f"vectors must be a tensor [k, {product.size}], got {type(vectors).__name__}")
    if vectors.dim() != 2 or not 1 <= len(vectors) <= product.size or vectors.shape[1] != product.size:
        raise ValueError(f"vectors must be rows [k, {product.size}], got a tensor of shape {list(vectors.shape)}")
    if not float((inner_products(vectors, vectors) - torch.eye(len(vectors))).abs().max()) < _ORTHONORMAL:
        raise ValueError("vectors must be orthonormal rows, as eigenvectors are: pass torch.linalg.qr(vectors.T).Q.T")
    checks.whole_number("max_products", max_products)
    if max_products < len(vectors):
        raise ValueError(f"max_products must be at least {len(vectors)}, one for each vector, got {max_products}")
    if num_pairs is not None and checks.whole_number("num_pairs", num_pairs, least=1) > min(max_products, product.size):
        raise ValueError(
            f"num_pairs must be at most max_products and the size {product.size} of the operator, got {num_pairs} with "
            f"max_products={max_products}"
        )
    return refine(
        product,
        vectors,
        ranking=torch.clone,
        tolerance=tolerance,
        max_products=max_products,
        num_pairs=num_pairs,
        one_by_one=num_pairs is not None,
    )
