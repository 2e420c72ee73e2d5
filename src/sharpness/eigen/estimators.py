"""Estimate trace, Frobenius norm and spectral density of a symmetric operator from random matvecs."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan, pi, sqrt

import torch
from torch import Tensor

from sharpness.eigen.eigenpairs import Eigenpairs
from sharpness.eigen.krylov import Krylov
from sharpness.eigen.memory import quadrature_fits
from sharpness.eigen.operators import SymmetricOperator, VectorProduct, not_symmetric
from sharpness.eigen.recurrence import tridiagonal
from sharpness.eigen.vectors import inner_products, length, norms_of_rows, orthonormal_outside
from sharpness.runtime import checks
from sharpness.runtime.device import on_its_device

# Largest |x'Ay - y'Ax| for random vectors, relative to the typical size of x'Ay, that rounding explains.
_ALLOWED_ASYMMETRY = 0.03


@dataclass(frozen=True)
class Estimate:
    """A number estimated from random samples."""

    value: float
    standard_error: float  # 0 if the value is exact, NaN if a single sample gives no spread
    num_products: int


@dataclass(frozen=True)
class SpectralDensity:
    """A quadrature of the eigenvalue distribution for each of several random vectors."""

    nodes: Tensor  # [num_probes, num_steps], Ritz values, descending, float64, on the CPU; padded with 0
    weights: Tensor  # [num_probes, num_steps], summing to 1 for each probe; padded with 0
    num_products: int

    def density(self, grid: Tensor, width: float) -> Tensor:
        """Evaluate the density of eigenvalues, smoothed by a Gaussian.

        Args:
            grid: [n], points on the axis of eigenvalues.
            width: standard deviation of the Gaussian; positive.

        Returns:
            [n], float64; integrates to 1.

        Raises:
            ValueError: ``width`` is not positive.
        """
        if not width > 0:
            raise ValueError(f"width must be positive, got {width}")
        distances = (grid.double().cpu()[:, None, None] - self.nodes) / width
        gaussians = torch.exp(-distances.square() / 2) / (width * sqrt(2 * pi))
        return (gaussians * self.weights).sum(dim=2).mean(dim=1)

    def moments(self, order: int) -> Estimate:
        """Estimate tr(A^order) / P; the quadrature is exact up to order 2 ``num_steps`` - 1."""
        return mean_of((self.weights * self.nodes**order).sum(dim=1), self.num_products)


def mean_of(samples: Tensor, num_products: int) -> Estimate:
    """The mean of independent ``samples`` [n] with its standard error."""
    spread = float(samples.std()) if len(samples) > 1 else nan
    return Estimate(float(samples.mean()), spread / sqrt(len(samples)), num_products)


@on_its_device
def trace(operator: SymmetricOperator, *, num_products: int, generator: torch.Generator) -> Estimate:
    """Estimate the trace of ``operator`` by XTrace, or compute it exactly if the budget allows P matvecs.

    Epperly, Tropp and Webber, "XTrace: making the most of every sample in stochastic trace estimation", 2024, section
    2.1, with the normalisation of section 2.3. For each of m test vectors, the images of the others span an
    approximate range of the operator; the trace on it is exact, and the test vector estimates the remainder.

    Args:
        operator: symmetric, [P, P].
        num_products: budget of matvecs, at least 2; a standard error needs 4. Half of them go to test vectors. Fewer
            are used if the operator turns out to have lower rank.
        generator: draws the test vectors, on the CPU.

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

    # One column per test vector. In the paper's notation: W, S, X = W - S diag(S' W), H.
    along = inner_products(basis, tests)
    kept = along - left_out * (left_out * along).sum(dim=0)
    projected = inner_products(basis, basis_images)
    inside = projected.trace() - (left_out * (projected @ left_out)).sum(dim=0)
    rests = tests - kept.T.to(tests) @ basis
    curvatures = _row_products(rests, images - kept.T.to(tests) @ basis_images)
    # The remainder of a test vector is uniform on a sphere in the complement of the others' range.
    num_kept = len(basis) - left_out.square().sum(dim=0)
    outside = (product.size - num_kept) * curvatures / _row_products(rests, rests)
    return mean_of(inside + outside, product.num_products)


@on_its_device
def squared_frobenius_norm(
    operator: SymmetricOperator, *, num_products: int, generator: torch.Generator, pairs: Eigenpairs | None = None
) -> Estimate:
    """Estimate the sum of squared eigenvalues: the mean of |A z|² over random z (Hutchinson, 1989, applied to A²).

    Args:
        operator: symmetric, [P, P].
        num_products: matvecs, at least 1; a standard error needs 2.
        generator: draws the random vectors, on the CPU.
        pairs: known eigenpairs of the operator. Their contribution is taken as exact, and only that of their complement
            is estimated.

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
        before = vector, image.clone()  # an operator may use one buffer for all products
    return mean_of(samples, product.num_products)


@on_its_device
def frobenius_norm(
    operator: SymmetricOperator, *, num_products: int, generator: torch.Generator, pairs: Eigenpairs | None = None
) -> Estimate:
    """Estimate the Frobenius norm: the square root of ``squared_frobenius_norm``, whose arguments and errors it shares.

    The standard error is to first order (delta method).
    """
    squared = squared_frobenius_norm(operator, num_products=num_products, generator=generator, pairs=pairs)
    value = sqrt(squared.value)
    return Estimate(value, squared.standard_error / (2 * value) if value else 0.0, squared.num_products)


def leading_frobenius_norm(pairs: Eigenpairs) -> float:
    """Frobenius norm of the operator on the span of ``pairs``: a lower bound on that of the whole operator."""
    return float(pairs.eigenvalues.norm())


@on_its_device
def spectral_density(
    operator: SymmetricOperator,
    *,
    num_probes: int,
    num_steps: int,
    generator: torch.Generator,
    memory_budget: int | None = None,
) -> SpectralDensity:
    """Estimate the eigenvalue distribution of ``operator`` by stochastic Lanczos quadrature.

    Ubaru, Chen and Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", 2017; for Hessians Ghorbani,
    Krishnan and Xiao, 2019.

    Args:
        operator: symmetric, [P, P].
        num_probes: number of random start vectors.
        num_steps: most matvecs per start vector; fewer if it spans an invariant subspace.
        generator: draws the start vectors, on the CPU.
        memory_budget: bytes for vectors; what the operator itself holds is not counted. Where those of all steps fit,
            each is orthogonal to all earlier ones; else to the last two only, and converged nodes appear in copies that
            share their weight. None is 4 GiB, or the least that suffices if that is more (10 vectors of P numbers).

    Raises:
        ValueError: fewer than 1 probe or step, or the memory budget is too small.
        FloatingPointError: a product is not finite.
    """
    product = VectorProduct(operator)
    checks.whole_number("num_probes", num_probes, least=1)
    checks.whole_number("num_steps", num_steps, least=1)
    checks.generator(generator)
    if memory_budget is not None:
        checks.whole_number("memory_budget", memory_budget, least=0)
    most = min(num_steps, product.size)
    fits = quadrature_fits(product, most, memory_budget)
    nodes, weights = torch.zeros(2, num_probes, num_steps, dtype=torch.float64)
    for probe in range(num_probes):
        projected = _projected(product, generator, most) if fits else tridiagonal(product, generator, most)
        values, vectors = torch.linalg.eigh(projected)
        nodes[probe, : len(values)] = values.flip(0)
        weights[probe, : len(values)] = vectors[0].square().flip(0)
    return SpectralDensity(nodes, weights, product.num_products)


def _projected(product: VectorProduct, generator: torch.Generator, num_steps: int) -> Tensor:
    """As ``tridiagonal``, with full reorthogonalisation."""
    space = Krylov(product, generator, keep_images=False, max_rows=num_steps)
    # Stop at an invariant subspace: the next step would restart from another random vector.
    while space.extend() > space.negligible and space.num_steps < num_steps:
        pass
    return space.projected


def _range_of(images: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the range of the rows ``images`` [m, P], and the direction that it loses without each of them.

    Returns:
        Orthonormal rows [r, P], and the coefficients [r, m] of unit vectors in their span, each orthogonal to all
        images but one. The coefficients are 0 if r < m: the operator then has rank r, and any r images span its range.
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
    """Check that x'Ay and y'Ax differ by rounding only, for random ``vectors`` [n, P] and their ``images``."""
    projected = inner_products(vectors, images)
    # For a nonsymmetric operator, x'Ay - y'Ax is as large as x'Ay itself.
    lengths = norms_of_rows(vectors)[:, None] * norms_of_rows(images) / sqrt(product.size)
    difference = float(
        ((projected - projected.T).abs() / (lengths + lengths.T).clamp_min(torch.finfo(torch.float64).tiny)).max()
    )
    if difference > _ALLOWED_ASYMMETRY and product.allowed_asymmetry < inf:
        raise not_symmetric(difference)


def _exact_trace(product: VectorProduct) -> float:
    unit = torch.zeros(product.size, dtype=product.dtype, device=product.device)
    before = unit.clone()  # the previous image
    total = 0.0
    for index in range(product.size):
        unit[index] = 1
        image = product(unit)
        unit[index] = 0
        total += float(image[index])
        if index:
            difference = float((image[index - 1] - before[index]).abs())
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
