"""Symmetric matrices made to order, for the tests of what works on any operator."""

import numpy as np
import torch

from sharpness.eigen.lanczos import top_eigenpairs

TIGHT = 1e-10
# What the wanted eigenvalues have most of.
RANKINGS = {"largest": lambda values: values, "smallest": np.negative, "magnitude": np.abs}


class Counting:
    """A matrix that counts its products."""

    def __init__(self, matrix):
        self.matrix = matrix
        self.shape, self.dtype, self.device = matrix.shape, matrix.dtype, matrix.device
        self.products = 0

    def __matmul__(self, vector):
        self.products += 1
        return self.matrix @ vector


def with_spectrum(eigenvalues, seed=0):
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    size = len(eigenvalues)
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    matrix = basis @ np.diag(np.asarray(eigenvalues, dtype=float)) @ basis.T
    return torch.from_numpy((matrix + matrix.T) / 2)


class Rounded(Counting):
    """A matrix whose products are rounded to bfloat16, with the matrix itself as its reference."""

    def __init__(self, matrix):
        super().__init__(matrix)
        self.reference = Counting(matrix)

    def __matmul__(self, vector):
        return super().__matmul__(vector.bfloat16().to(vector)).bfloat16().to(vector)


def solve(matrix, *, num_pairs, tolerance=TIGHT, max_products=1000, seed=0, **settings):
    generator = torch.Generator().manual_seed(seed)
    return top_eigenpairs(
        matrix, num_pairs=num_pairs, tolerance=tolerance, max_products=max_products, generator=generator, **settings
    )


_BULK = np.linspace(-0.5, 1, 150)
ADVERSARIAL = {
    "zero": (np.zeros(60), 4),
    "identity": (np.ones(60), 4),
    "rank one": ([7.0, *np.zeros(59)], 3),
    "rank one, negative": ([-7.0, *np.zeros(59)], 3),
    "a triple cluster": ([3 + 2e-5, 3 + 1e-5, 3.0, *_BULK], 3),
    "a triple cluster and what follows": ([3 + 2e-5, 3 + 1e-5, 3.0, 2.0, 1.5, *_BULK], 5),
    "a triple eigenvalue": ([3.0, 3.0, 3.0, *_BULK], 3),
    "a triple eigenvalue and what follows": ([3.0, 3.0, 3.0, 2.0, 2.0, *_BULK], 5),
    "both signs": ([4.0, -4.0, 3.0, -3.0, 2.0, -2.0, *_BULK], 3),
    "both signs, twice": ([4.0, -4.0, 3.0, -3.0, 4.0, -4.0, 3.0, -3.0, *_BULK], 4),
    "smaller than the budget": (np.linspace(-2, 3, 7), 3),
    "every pair": ([5.0, 5.0, 3.0, 3.0, 0.0, 0.0, -1.0, -1.0, -1.0, -7.0], 10),
}


KINDS_OF_BULK = ("flat", "nearly flat", "clusters", "geometric", "two-sided", "semicircle")


def random_spectrum(drawn, kind, size, num_pairs):
    """Eigenvalues [size], descending: some leading ones, copies and near copies among them, above a bulk of a kind.

    Args:
        drawn: a random generator of numpy.
        kind: one of ``KINDS_OF_BULK``.
        size: P.
        num_pairs: how many will be looked for; up to twice as many lead.
    """
    num_leading = min(size, int(drawn.integers(0, 2 * num_pairs + 2)))
    scale = 10.0 ** drawn.uniform(-3, 3)
    leading = drawn.uniform(0.1, 1, num_leading)
    for index in range(1, num_leading):
        if drawn.random() < 0.35:
            leading[index] = leading[index - 1] * (1 - drawn.choice([0, 0, 1e-5, 1e-4, 1e-3, 1e-2]))
    bulk = _bulk(drawn, kind, size - num_leading)
    return scale * np.sort(np.concatenate([leading, bulk]))[::-1]


def _bulk(drawn, kind, size):
    if kind == "flat":
        return np.full(size, drawn.choice([0.0, 0.02, -0.1]))
    if kind == "nearly flat":
        return 1e-8 * drawn.uniform(-1, 1, size)
    if kind == "clusters":
        centres = drawn.uniform(-0.3, 0.4, drawn.integers(1, 5))
        return drawn.choice(centres, size) + drawn.choice([0, 1e-6, 1e-4]) * drawn.standard_normal(size)
    if kind == "geometric":
        return 0.5 * drawn.uniform(0.3, 0.99) ** np.arange(size)
    if kind == "two-sided":
        return drawn.uniform(0.05, 0.9) * drawn.uniform(-1, 1, size)
    return drawn.uniform(0.05, 0.9) * (2 * drawn.beta(1.5, 1.5, size) - 1)


class Reflected:
    """A symmetric operator with given eigenvalues whose eigenvectors a Householder reflection turns: cheap and dense.

    Args:
        eigenvalues: [P], float64.
        dtype: of the products.
        seed: of the reflection and of the noise.
        noise: added to each product, relative to the largest eigenvalue.
    """

    def __init__(self, eigenvalues, dtype=torch.float64, seed=0, noise=0.0):
        self.size = len(eigenvalues)
        self.shape, self.dtype, self.device = (self.size, self.size), dtype, torch.device("cpu")
        self.eigenvalues = torch.tensor(np.ascontiguousarray(eigenvalues)).to(dtype)
        self.drawn = torch.Generator().manual_seed(seed)
        axis = torch.randn(self.size, generator=self.drawn, dtype=torch.float64)
        self.axis = (axis / axis.norm()).to(dtype)
        self.noise = noise * float(self.eigenvalues.abs().max())

    def _reflect(self, vector):
        return vector - 2 * (self.axis @ vector) * self.axis

    def __matmul__(self, vector):
        image = self._reflect(self.eigenvalues * self._reflect(vector))
        if not self.noise:
            return image
        noise = torch.randn(self.size, generator=self.drawn, dtype=torch.float64) / self.size**0.5
        return image + (self.noise * float(vector.norm()) * noise).to(image)


class Faulty(Counting):
    """A matrix whose products are not those of a symmetric operator."""

    def __init__(self, matrix, fault):
        super().__init__(matrix)
        self.fault = fault

    def __matmul__(self, vector):
        return self.fault(super().__matmul__(vector), self.products)


def _skewed(matrix):
    skew = np.random.default_rng(1).standard_normal(matrix.shape)
    return matrix + 0.3 * float(np.linalg.norm(matrix, 2)) / len(matrix) ** 0.5 * torch.from_numpy(skew - skew.T)


class Overwriting(Faulty):
    """An operator that leaves zeros in the place of the vector."""

    def __matmul__(self, vector):
        image = super().__matmul__(vector)
        vector.zero_()
        return image


def not_operators(matrix):
    """What a user may take for an operator with the spectrum of ``matrix`` [P, P], float64: each with the error."""
    shape = rf"product 1 with the operator must have the shape \[{len(matrix)}\]"
    drawn = torch.Generator().manual_seed(5)

    def noisy(image, _):
        return image + image.norm() * torch.randn(len(image), generator=drawn, dtype=image.dtype)

    return [
        (Faulty(matrix, lambda image, _: image[:-1]), ValueError, shape),
        (Faulty(matrix, lambda image, _: image[:, None]), ValueError, shape),
        (Faulty(matrix, lambda image, _: image.sum()), ValueError, shape),
        (Faulty(matrix, lambda image, _: image.float()), TypeError, "must be of the operator's dtype torch.float64"),
        (Faulty(matrix, lambda image, _: image.to(torch.cfloat)), TypeError, "must be of the operator's dtype"),
        (
            Faulty(matrix, lambda image, _: image.to("meta")),
            ValueError,
            "must be on the operator's device cpu, got meta",
        ),
        (Faulty(matrix, lambda image, _: image.numpy()), TypeError, "must be a tensor, got ndarray"),
        (
            Faulty(matrix, lambda image, number: image * (np.inf if number == 3 else 1)),
            FloatingPointError,
            "product 3 .* not finite",
        ),
        (Overwriting(matrix, lambda image, _: image), ValueError, "changes the vector that it is given"),
        (_skewed(matrix), ValueError, "must be symmetric"),
        (_skewed(matrix).numpy(), ValueError, "must be symmetric"),
        (Faulty(matrix, noisy), ValueError, "must be symmetric and the same at each product"),
    ]
