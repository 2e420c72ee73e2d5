"""Trace, Frobenius norm and spectral density of a symmetric operator from products with random vectors."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan, pi, sqrt

import torch
from torch import Tensor

from sharpness.eigen.krylov import (
    Krylov,
    SymmetricOperator,
    VectorProduct,
    inner_products,
    length,
    norms_of_rows,
    not_symmetric,
    orthonormal_outside,
)
from sharpness.eigen.lanczos import Eigenpairs
from sharpness.runtime import checks
from sharpness.runtime.device import on_its_device

# Of random vectors, relative to what two of them have in common: more is no rounding.
_ALLOWED_ASYMMETRY = 0.03


@dataclass(frozen=True)
class Estimate:
    """A number estimated from random samples."""

    value: float
    standard_error: float  # 0 where the value is exact, NaN where one sample says nothing of its spread
    num_products: int


@dataclass(frozen=True)
class SpectralDensity:
    """A quadrature of the distribution of eigenvalues for each of several random vectors."""

    nodes: Tensor  # [num_probes, num_steps], Ritz values, descending, float64, on the CPU; 0 where there is no node
    weights: Tensor  # [num_probes, num_steps], of sum 1 for each probe; 0 where there is no node
    num_products: int

    def density(self, grid: Tensor, width: float) -> Tensor:
        """Density of eigenvalues at the points of ``grid`` [n], smoothed by a Gaussian, [n].

        Args:
            grid: places on the axis of eigenvalues.
            width: standard deviation of the Gaussian; positive.
        """
        if not width > 0:
            raise ValueError(f"width must be positive, got {width}")
        distances = (grid.double().cpu()[:, None, None] - self.nodes) / width
        gaussians = torch.exp(-distances.square() / 2) / (width * sqrt(2 * pi))
        return (gaussians * self.weights).sum(dim=2).mean(dim=1)

    def moments(self, order: int) -> Estimate:
        """tr(A^order) / P; up to order 2 ``num_steps`` - 1 the quadrature itself adds no error."""
        return mean_of((self.weights * self.nodes**order).sum(dim=1), self.num_products)


def mean_of(samples: Tensor, num_products: int) -> Estimate:
    """The mean of independent ``samples`` [n] with its standard error."""
    spread = float(samples.std()) if len(samples) > 1 else nan
    return Estimate(float(samples.mean()), spread / sqrt(len(samples)), num_products)


@on_its_device
def trace(operator: SymmetricOperator, *, num_products: int, generator: torch.Generator) -> Estimate:
    """The trace of ``operator`` by XTrace, or exactly where the products suffice for that.

    Epperly, Tropp and Webber, "XTrace: making the most of every sample in stochastic trace estimation", 2024, section
    2.1, with the normalisation of section 2.3. For each of m test vectors, the range of the operator is approximated
    by the images of the other ones, its trace there is exact, and the test vector estimates the rest.

    Args:
        operator: symmetric, [P, P].
        num_products: at least 2; a standard error needs 4. Half of them are with test vectors. Fewer are used where
            these show that the operator is of lower rank.
        generator: of the test vectors, on the CPU.

    Raises:
        ValueError: fewer than 2 products.
        FloatingPointError: a product is not finite.
    """
    product = VectorProduct(operator)
    checks.whole_number("num_products", num_products, least=2)
    checks.generator(generator)
    if num_products >= product.size:
        return Estimate(_exact_trace(product), 0.0, product.num_products)
    num_vectors = num_products // 2
    tests = sqrt(product.size) * _random_directions(product, num_vectors, generator)
    images = product.rows(tests)
    _check_symmetry(product, tests, images)
    basis, left_out = _range_of(images)
    basis_images = product.rows(basis)

    # Columns belong to test vectors. In the paper's letters: W, S, X = W - S diag(S' W), H.
    along = inner_products(basis, tests)
    kept = along - left_out * (left_out * along).sum(dim=0)
    projected = inner_products(basis, basis_images)
    inside = projected.trace() - (left_out * (projected @ left_out)).sum(dim=0)
    rests = tests - kept.T.to(tests) @ basis
    curvatures = _row_products(rests, images - kept.T.to(tests) @ basis_images)
    # The rest of a test vector is uniform on a sphere in the complement of the others' range.
    num_kept = len(basis) - left_out.square().sum(dim=0)
    outside = (product.size - num_kept) * curvatures / _row_products(rests, rests)
    return mean_of(inside + outside, product.num_products)


@on_its_device
def squared_frobenius_norm(
    operator: SymmetricOperator, *, num_products: int, generator: torch.Generator, pairs: Eigenpairs | None = None
) -> Estimate:
    """The sum of the squared eigenvalues of ``operator``: the mean of |A z|² over random z (Hutchinson, 1989, on A²).

    Args:
        operator: symmetric, [P, P].
        num_products: at least 1; a standard error needs 2.
        generator: of the random vectors, on the CPU.
        pairs: eigenpairs of the operator, whose part is taken as known, up to their squared residuals; only that of
            their complement is estimated.

    Raises:
        ValueError: fewer than 1 product.
        FloatingPointError: a product is not finite.
    """
    product = VectorProduct(operator)
    checks.whole_number("num_products", num_products, least=1)
    checks.generator(generator)
    known = 0.0 if pairs is None else float(pairs.eigenvalues.square().sum())
    dimension = product.size - (0 if pairs is None else len(pairs.eigenvalues))
    if dimension == 0:
        return Estimate(known, 0.0, 0)
    samples = torch.zeros(num_products, dtype=torch.float64)
    before: tuple[Tensor, Tensor] | None = None
    for number in range(num_products):
        vector = product.random_direction(generator)
        if pairs is not None:
            (vector,) = orthonormal_outside(pairs.eigenvectors.to(vector), vector[None])
        image = product(vector)
        samples[number] = known + dimension * image.double().square().sum()
        if before is not None:
            _check_symmetry(product, *(torch.stack(two) for two in zip(before, (vector, image), strict=True)))
        before = vector, image
    return mean_of(samples, product.num_products)


@on_its_device
def frobenius_norm(
    operator: SymmetricOperator, *, num_products: int, generator: torch.Generator, pairs: Eigenpairs | None = None
) -> Estimate:
    """The root of ``squared_frobenius_norm``, with its standard error to first order (the delta method)."""
    squared = squared_frobenius_norm(operator, num_products=num_products, generator=generator, pairs=pairs)
    value = sqrt(squared.value)
    return Estimate(value, squared.standard_error / (2 * value) if value else 0.0, squared.num_products)


def leading_frobenius_norm(pairs: Eigenpairs) -> float:
    """The Frobenius norm of the operator on the span of ``pairs``: at most that of the whole operator."""
    return float(pairs.eigenvalues.norm())


@on_its_device
def spectral_density(
    operator: SymmetricOperator, *, num_probes: int, num_steps: int, generator: torch.Generator
) -> SpectralDensity:
    """The distribution of the eigenvalues of ``operator`` by stochastic Lanczos quadrature.

    Ubaru, Chen and Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", 2017; for Hessians Ghorbani,
    Krishnan and Xiao, 2019. A probe ends early where its vector has no more to tell.

    Args:
        operator: symmetric, [P, P].
        num_probes: random start vectors.
        num_steps: products for each, at most.
        generator: of the start vectors, on the CPU.

    Raises:
        ValueError: fewer than 1 probe or step.
        FloatingPointError: a product is not finite.
    """
    product = VectorProduct(operator)
    checks.whole_number("num_probes", num_probes, least=1)
    checks.whole_number("num_steps", num_steps, least=1)
    checks.generator(generator)
    nodes, weights = torch.zeros(2, num_probes, num_steps, dtype=torch.float64)
    for probe in range(num_probes):
        space = Krylov(product, generator, keep_images=False)
        # An invariant subspace is all that the start vector sees: a step beyond it would start from another one.
        while space.extend() > space.negligible and space.num_steps < min(num_steps, product.size):
            pass
        values, vectors = torch.linalg.eigh(space.projected)
        nodes[probe, : space.num_steps] = values.flip(0)
        weights[probe, : space.num_steps] = vectors[0].square().flip(0)
    return SpectralDensity(nodes, weights, product.num_products)


def _range_of(images: Tensor) -> tuple[Tensor, Tensor]:
    """The range of the rows ``images`` [m, P], and the direction of it that is lost without each of them.

    Returns:
        orthonormal rows [r, P], and the coefficients [r, m] along them of directions of length 1 orthogonal to all
        images but one. These are 0 where r < m: then the images are those of an operator of rank r, and any r of them
        span its range.
    """
    orthonormal, triangular = torch.linalg.qr(images.T)
    left, singular, right = torch.linalg.svd(triangular.double().cpu())
    smallest = torch.finfo(images.dtype).eps * len(images) * singular[0]
    rank = int((singular > smallest).sum())
    basis = left[:, :rank].T.to(images) @ orthonormal.T
    if rank < len(images):
        return basis, torch.zeros(rank, len(images), dtype=torch.float64)
    lost = right / singular[:, None]
    return basis, lost / lost.norm(dim=0)


def _check_symmetry(product: VectorProduct, vectors: Tensor, images: Tensor) -> None:
    """Random ``vectors`` [n, P] tell from their ``images``: x'Ay and y'Ax differ by rounding alone."""
    projected = inner_products(vectors, images)
    # Of one that is not symmetric, x'Ay - y'Ax is as large as two random vectors have in common.
    lengths = norms_of_rows(vectors)[:, None] * norms_of_rows(images) / sqrt(product.size)
    difference = float(
        ((projected - projected.T).abs() / (lengths + lengths.T).clamp_min(torch.finfo(torch.float64).tiny)).max()
    )
    if difference > _ALLOWED_ASYMMETRY and product.allowed_asymmetry < inf:
        raise not_symmetric(difference)


def _exact_trace(product: VectorProduct) -> float:
    unit = torch.zeros(product.size, dtype=product.dtype, device=product.device)
    before = unit.clone()  # the image of the unit vector before
    total = 0.0
    for place in range(product.size):
        unit[place] = 1
        image = product(unit)
        unit[place] = 0
        total += float(image[place])
        if place:
            difference = float((image[place - 1] - before[place]).abs())
            longer = max(length(image), length(before))
            if difference > product.allowed_asymmetry * longer:
                raise not_symmetric(difference / longer)
        before = image
    return total


def _random_directions(product: VectorProduct, num_vectors: int, generator: torch.Generator) -> Tensor:
    return torch.stack([product.random_direction(generator) for _ in range(num_vectors)])


def _row_products(left: Tensor, right: Tensor) -> Tensor:
    """Inner product of each row of ``left`` [n, P] with that of ``right``, [n], float64, on the CPU."""
    return torch.stack([(a.double() @ b.double()).cpu() for a, b in zip(left, right, strict=True)])
