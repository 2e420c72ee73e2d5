"""The Lanczos solver against numpy's dense one, on spectra made to order and on a network's Hessian."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpness.hessian import HessianOperator, HessianProduct
from sharpness.lanczos import top_eigenpairs
from sharpness.loss import Loss, flatten

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")

TIGHT = 1e-10


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


def solve(matrix, *, num_pairs, tolerance=TIGHT, max_products=1000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return top_eigenpairs(
        matrix, num_pairs=num_pairs, tolerance=tolerance, max_products=max_products, generator=generator
    )


def assert_are_the_top_pairs(pairs, matrix, num_pairs):
    expected = np.linalg.eigh(matrix.numpy())[0][::-1]
    scale = abs(expected).max() or 1.0
    values, vectors = pairs.eigenvalues, pairs.eigenvectors
    assert values.shape == (num_pairs,)
    assert vectors.shape == (num_pairs, len(matrix))
    assert values.dtype == torch.float64
    assert pairs.converged
    np.testing.assert_allclose(values.numpy(), expected[:num_pairs], rtol=0, atol=1e-9 * scale)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(num_pairs, dtype=torch.float64), rtol=0, atol=1e-12)
    assert_residuals_are_honest(pairs, matrix, scale)
    assert (values.diff() <= 0).all()


def assert_residuals_are_honest(pairs, matrix, scale):
    errors = (pairs.eigenvectors @ matrix - pairs.eigenvalues[:, None] * pairs.eigenvectors).norm(dim=1) / scale
    torch.testing.assert_close(pairs.residuals, errors, rtol=1e-6, atol=1e-13)


# Eigenvalues a hundred-thousandth of their scale apart or more; copies only where an invariant subspace is small, since
# one start vector sees one copy until such a subspace is found.
apart = st.lists(st.integers(-1000, 1000), min_size=1, max_size=24, unique=True)
clustered = st.lists(st.integers(0, 40), min_size=1, max_size=8, unique=True).map(lambda ns: [1 + 1e-5 * n for n in ns])
paired = st.lists(st.integers(1, 500), min_size=1, max_size=10, unique=True).map(lambda ns: [*ns, *(-n for n in ns)])
above_a_bulk = st.tuples(clustered, st.lists(st.integers(-90, 90), max_size=16, unique=True)).map(
    lambda parts: [*parts[0], *(n / 100 for n in parts[1])]
)
of_low_rank = st.tuples(st.lists(st.integers(-9, 9), min_size=1, max_size=4, unique=True), st.integers(1, 15)).map(
    lambda parts: [*parts[0], *[0] * parts[1]]
)


@settings(max_examples=150, deadline=None)
@given(
    spectrum=st.one_of(apart, clustered, paired, above_a_bulk, of_low_rank),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    data=st.data(),
)
def test_equals_the_dense_solver(spectrum, seed, scale, data):
    num_pairs = data.draw(st.integers(1, len(spectrum)), label="num_pairs")
    matrix = with_spectrum(np.asarray(spectrum, dtype=float) * scale, seed)
    assert_are_the_top_pairs(solve(matrix, num_pairs=num_pairs, seed=seed), matrix, num_pairs)


@pytest.mark.parametrize(
    ("spectrum", "num_pairs"),
    [
        (np.zeros(15), 4),
        (np.ones(15), 4),
        (-np.ones(15), 15),
        ([7.0, *np.zeros(29)], 3),  # rank one
        ([*np.zeros(29), -7.0], 3),  # rank one, negative
        ([-4.0, -5.0, -6.0, *np.zeros(9)], 2),  # the directions without curvature are met by rounding alone
        ([5.0, 5.0, 5.0, 1.0, 1.0, -2.0], 4),
        ([3 + 2e-5, 3 + 1e-5, 3.0, *np.linspace(0, 1, 37)], 3),
        ([4.0, 3.0, -3.0, -4.0], 4),
        ([-1.0, -2.0, -3.0], 2),  # no positive curvature at all
        ([2.5], 1),
        (np.geomspace(1e-12, 1, 30), 30),
    ],
)
def test_equals_the_dense_solver_on_hard_spectra(spectrum, num_pairs):
    matrix = with_spectrum(spectrum)
    assert_are_the_top_pairs(solve(matrix, num_pairs=num_pairs), matrix, num_pairs)


@pytest.mark.parametrize("matrix", [torch.zeros(9, 9).double(), torch.eye(9).double(), torch.diag(torch.arange(9.0))])
def test_matrices_without_rounding_are_solved_too(matrix):
    assert_are_the_top_pairs(solve(matrix.double(), num_pairs=5), matrix.double(), 5)


def test_all_pairs_of_a_matrix_rebuild_it():
    matrix = with_spectrum(np.linspace(-3, 4, 12))
    pairs = solve(matrix, num_pairs=12)
    rebuilt = pairs.eigenvectors.T @ torch.diag(pairs.eigenvalues) @ pairs.eigenvectors
    torch.testing.assert_close(rebuilt, matrix, rtol=0, atol=1e-12)
    assert pairs.smallest == pytest.approx(-3)
    assert pairs.num_products == 12


def test_each_triple_of_a_cluster_has_its_own_direction():
    matrix = with_spectrum([3 + 2e-5, 3 + 1e-5, 3.0, *np.linspace(0, 1, 37)])
    expected = np.linalg.eigh(matrix.numpy())[1][:, ::-1][:, :3].T
    vectors = solve(matrix, num_pairs=3).eigenvectors.numpy()
    np.testing.assert_allclose(abs(vectors @ expected.T), np.eye(3), atol=1e-4)


def test_stops_long_before_the_whole_space_once_the_residuals_are_small():
    matrix = Counting(with_spectrum([50.0, 30.0, 20.0, *np.linspace(-1, 1, 297)]))
    pairs = solve(matrix, num_pairs=3, tolerance=1e-3, max_products=300)
    assert pairs.converged
    assert pairs.num_products == matrix.products < 30
    assert (pairs.residuals <= 1e-3).all()
    # Weyl: an eigenvalue lies within the residual of each value, and here they are far apart.
    np.testing.assert_allclose(pairs.eigenvalues.numpy(), [50, 30, 20], rtol=0, atol=50 * 1e-3)
    assert -1.0001 <= pairs.smallest < -0.5


def test_the_smallest_value_is_within_its_residual_of_an_eigenvalue():
    eigenvalues = np.append(np.linspace(-1, 1, 100), -10)
    pairs = solve(with_spectrum(eigenvalues), num_pairs=1, tolerance=1e-2)
    assert pairs.smallest < 0
    assert min(abs(eigenvalues - pairs.smallest)) <= pairs.smallest_residual * 10 + 1e-12


def test_a_budget_that_is_too_small_gives_what_there_is_and_says_so():
    eigenvalues = np.linspace(0, 1, 200)
    matrix = Counting(with_spectrum(eigenvalues))
    pairs = solve(matrix, num_pairs=5, tolerance=1e-8, max_products=20)
    assert not pairs.converged
    assert pairs.num_products == matrix.products == 20
    assert pairs.residuals.max() > 1e-8
    # Against the largest value that was seen, which can only be below the true one.
    seen = max(abs(pairs.eigenvalues[0].item()), abs(pairs.smallest))
    assert seen <= 1 + 1e-12
    assert_residuals_are_honest(pairs, matrix.matrix, seen)
    # Cauchy's interlacing: Ritz values lie below the eigenvalues of their rank, and are not their copies.
    assert (pairs.eigenvalues.numpy() <= eigenvalues[::-1][:5] + 1e-12).all()
    assert (pairs.eigenvalues.diff() < 0).all()


def test_a_budget_of_exactly_the_pairs_is_used_up():
    pairs = solve(with_spectrum(np.linspace(0, 1, 50)), num_pairs=6, max_products=6)
    assert pairs.num_products == 6
    assert len(pairs.eigenvalues) == 6
    assert not pairs.converged


@pytest.mark.parametrize("size", [1, 2, 7])
def test_needs_no_more_products_than_the_space_has_dimensions(size):
    matrix = Counting(with_spectrum(np.arange(1.0, size + 1)))
    pairs = solve(matrix, num_pairs=1, tolerance=0.0, max_products=100)
    assert pairs.num_products == matrix.products <= size
    assert pairs.eigenvalues[0].item() == pytest.approx(size)


def test_single_precision_is_solved_to_single_precision():
    eigenvalues = np.append(np.linspace(-2, 2, 100), [9.0, 10.0])
    matrix = with_spectrum(eigenvalues).float()
    pairs = solve(matrix, num_pairs=2, tolerance=1e-5)
    assert pairs.converged
    assert pairs.eigenvectors.dtype == torch.float32
    np.testing.assert_allclose(pairs.eigenvalues.numpy(), [10, 9], rtol=2e-6)
    torch.testing.assert_close(pairs.eigenvectors @ pairs.eigenvectors.T, torch.eye(2), rtol=0, atol=2e-6)
    errors = (pairs.eigenvectors @ matrix - pairs.eigenvalues[:, None].float() * pairs.eigenvectors).norm(dim=1) / 10
    assert (errors <= 1.5e-5).all()


def test_the_same_generator_gives_the_same_bits_and_another_the_same_pairs():
    matrix = with_spectrum(np.linspace(-1, 2, 60))
    first, again, other = (solve(matrix, num_pairs=4, seed=seed) for seed in (3, 3, 4))
    for name in ("eigenvalues", "eigenvectors", "residuals"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.eigenvectors, other.eigenvectors)
    torch.testing.assert_close(first.eigenvalues, other.eigenvalues)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_product_that_is_not_finite_is_an_error_with_its_number(value):
    class Late(Counting):
        def __matmul__(self, vector):
            product = super().__matmul__(vector)
            return product * value if self.products == 3 else product

    with pytest.raises(FloatingPointError, match="product 3 "):
        solve(Late(with_spectrum(np.linspace(0, 1, 30))), num_pairs=1)


@pytest.mark.parametrize(("num_pairs", "max_products"), [(0, 10), (-1, 10), (7, 10), (4, 3), (1, 0)])
def test_pairs_that_cannot_be_had_are_refused(num_pairs, max_products):
    with pytest.raises(ValueError, match=f"num_pairs={num_pairs}, max_products={max_products}"):
        solve(with_spectrum(np.arange(6.0)), num_pairs=num_pairs, max_products=max_products)


@pytest.mark.parametrize("name", ["conv", "residual", "batch_norm"])
def test_the_sharpest_directions_of_a_network_are_those_of_its_dense_hessian(problem, name):
    plain = problem(name, l2=0.01, num_examples=9)
    weights, buffers = flatten(plain.model)
    values, vectors = np.linalg.eigh(plain.hessian(weights).numpy())
    product = HessianProduct(Loss(plain.model, l2=0.01))

    pairs = solve(HessianOperator(product, weights, buffers, plain.inputs, plain.targets, chunk_size=4), num_pairs=6)

    assert pairs.converged
    np.testing.assert_allclose(pairs.eigenvalues.numpy(), values[::-1][:6], rtol=0, atol=1e-8 * values[-1])
    overlaps = abs((pairs.eigenvectors.numpy() * vectors[:, ::-1][:, :6].T).sum(axis=1))  # the sign is arbitrary
    np.testing.assert_allclose(overlaps, 1, atol=1e-8)
