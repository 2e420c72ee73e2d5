"""Searches whose basis is bounded, against dense solvers, scipy's and the unbounded search."""

import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import (
    ADVERSARIAL,
    KINDS_OF_BULK,
    RANKINGS,
    Counting,
    Reflected,
    Rounded,
    random_spectrum,
    solve,
    with_spectrum,
)
from scipy.sparse.linalg import LinearOperator, eigsh

from sharpness.eigen.krylov import Krylov
from sharpness.eigen.memory import DEFAULT_BUDGET
from sharpness.eigen.operators import VectorProduct
from sharpness.eigen.vectors import norms_of_rows
from sharpness.hessian.operator import HessianOperator

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


def least_budget(operator, num_pairs, **others):
    """The number of bytes that the error names."""
    with pytest.raises(
        ValueError, match=r"^memory_budget=0 bytes is too little .*need at least [\d,]+ bytes$"
    ) as error:
        solve(operator, num_pairs=num_pairs, memory_budget=0, **others)
    return int(str(error.value).split()[-2].replace(",", ""))


def held(space):
    """Vectors that a Krylov space holds, as they are allocated."""
    rows = [block for of in (space.basis, space.images) if of is not None for block in of._blocks]
    return sum(map(len, rows)) + len(space._frontier)


@pytest.fixture
def most_held(monkeypatch):
    """The largest number of vectors that a search has held in its Krylov space."""
    seen = [0]
    extend = Krylov.extend

    def watched(self):
        norm = extend(self)
        seen[0] = max(seen[0], held(self))
        return norm

    monkeypatch.setattr(Krylov, "extend", watched)
    return seen


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_no_pair_of_an_adversarial_spectrum_is_missed_with_the_smallest_basis(name, which, seed):
    eigenvalues, num_pairs = ADVERSARIAL[name]
    eigenvalues = np.asarray(eigenvalues, dtype=float) * (-1 if which == "smallest" else 1)
    ranking, scale = RANKINGS[which], abs(eigenvalues).max()
    expected = np.sort(ranking(eigenvalues))[::-1][:num_pairs]
    for precision, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-3)):
        matrix = with_spectrum(eigenvalues, seed).to(precision)
        wanted = {"num_pairs": num_pairs, "tolerance": tolerance, "seed": seed, "which": which, "probe_products": 40}
        unbounded, bounded = Counting(matrix), Counting(matrix)
        solve(unbounded, **wanted)
        pairs = solve(bounded, **wanted, memory_budget=least_budget(matrix, num_pairs))

        assert pairs.converged
        assert pairs.complete is not False
        # A space of rank one ends after two steps: where only rounding is left, a second probe may follow the first.
        allowed = unbounded.products + 40 if "rank one" in name else 1.3 * unbounded.products
        assert pairs.num_products + pairs.num_probing == bounded.products <= allowed
        np.testing.assert_allclose(ranking(pairs.eigenvalues.numpy()), expected, rtol=0, atol=tolerance * scale + 1e-12)
        vectors = pairs.eigenvectors
        identity = torch.eye(num_pairs, dtype=precision)
        torch.testing.assert_close(vectors @ vectors.T, identity, rtol=0, atol=50 * torch.finfo(precision).eps)
        errors = (vectors @ matrix - pairs.eigenvalues.to(vectors)[:, None] * vectors).double().norm(dim=1)
        assert (errors <= tolerance * scale * (1 + 1e-6) + 1e-12).all()


@pytest.mark.parametrize("num_pairs", [1, 5, 29, 39, 40])
def test_a_bounded_search_of_any_number_of_pairs_equals_the_dense_solver(num_pairs):
    matrix = with_spectrum([1000.0, -30.0, *np.linspace(-3, 8, 38)])
    pairs = solve(matrix, num_pairs=num_pairs, memory_budget=least_budget(matrix, num_pairs))
    assert pairs.converged
    np.testing.assert_allclose(pairs.eigenvalues, np.linalg.eigvalsh(matrix)[::-1][:num_pairs], rtol=0, atol=1e-6)
    assert pairs.smallest == pytest.approx(-30)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(2, 500),
    num_pairs=st.integers(1, 10),
    kind=st.sampled_from(KINDS_OF_BULK),
    which=st.sampled_from(list(RANKINGS)),
    precision=st.sampled_from([torch.float64, torch.float32]),
    part=st.floats(0, 1),
    probe_products=st.sampled_from([1, 8, 20]),
)
def test_no_promised_eigenvalue_is_missed_whatever_the_budget(
    seed, size, num_pairs, kind, which, precision, part, probe_products
):
    num_pairs = min(num_pairs, size)
    eigenvalues = random_spectrum(np.random.default_rng(seed), kind, size, num_pairs)
    eigenvalues = -eigenvalues if which == "smallest" else eigenvalues
    operator = Reflected(eigenvalues, precision, seed + 1)
    least = least_budget(operator, num_pairs)
    budget = least + int(part * 2 * least)
    wanted = {"num_pairs": num_pairs, "tolerance": 1e-3, "max_products": 3 * size, "seed": seed, "which": which}
    pairs = solve(operator, **wanted, probe_products=probe_products, memory_budget=budget)
    ranking, scale = RANKINGS[which], abs(eigenvalues).max()
    expected = np.sort(ranking(eigenvalues))[::-1][:num_pairs]
    found, promised = ranking(pairs.eigenvalues.numpy()), ranking(pairs.complete_beyond)
    if pairs.converged:
        assert (expected <= np.maximum(found, promised) + 1.1e-3 * scale).all()
        assert not pairs.complete or (expected <= found + 1.1e-3 * scale).all()
    # Ritz values cannot lie beyond the eigenvalues of their rank.
    assert (found <= expected + 1e-5 * scale).all()


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("part", [0.0, 0.3, 1.0, 2.0])
def test_vectors_stay_within_the_budget_and_eigenvalues_are_those_of_the_unbounded_search(
    part, precision, tolerance, most_held
):
    eigenvalues = np.concatenate([30 / np.arange(1.0, 41), np.linspace(-0.5, 0.5, 1960)])
    operator = Reflected(eigenvalues, precision)
    unbounded = solve(operator, num_pairs=10, tolerance=tolerance)
    without_bound, most_held[0] = most_held[0], 0
    least = least_budget(operator, 10)
    pairs = solve(operator, num_pairs=10, tolerance=tolerance, memory_budget=int(least * (1 + part)))

    results = 11  # the pairs and the smallest Ritz vector
    assert most_held[0] + results <= (least * (1 + part)) // (2000 * precision.itemsize)
    assert most_held[0] < without_bound or part > 0.5
    assert pairs.converged
    assert pairs.num_products + pairs.num_probing <= 1.3 * (unbounded.num_products + unbounded.num_probing)
    slack = tolerance * 30
    np.testing.assert_allclose(pairs.eigenvalues, unbounded.eigenvalues, rtol=0, atol=slack)
    by_scipy = eigsh(LinearOperator((2000, 2000), lambda v: (operator @ torch.from_numpy(v).to(precision)).numpy()), 10)
    np.testing.assert_allclose(pairs.eigenvalues, np.sort(by_scipy[0])[::-1], rtol=0, atol=slack)


def test_residuals_without_images_are_those_of_the_vectors():
    for precision, tolerance, noise in (
        (torch.float64, 1e-9, 0),
        (torch.float32, 1e-4, 0),
        (torch.float32, 1e-2, 1e-3),
    ):
        exact = Reflected(np.concatenate([30 / np.arange(1.0, 41), np.linspace(-0.5, 0.5, 1960)]))
        operator = Reflected(exact.eigenvalues, precision, noise=noise)
        budget = least_budget(operator, 8)
        pairs = solve(operator, num_pairs=8, tolerance=tolerance, memory_budget=budget)
        vectors = pairs.eigenvectors.double()
        errors = torch.stack(
            [(exact @ v - value * v).norm() for v, value in zip(vectors, pairs.eigenvalues, strict=True)]
        )
        rounding = 100 * torch.finfo(precision).eps + 3 * noise
        torch.testing.assert_close(pairs.residuals, errors / 30, rtol=1e-3, atol=rounding)
        assert pairs.converged
        assert (pairs.residuals <= tolerance).all()


def test_where_all_fits_no_bit_depends_on_the_budget():
    operator = Reflected(np.concatenate([30 / np.arange(1.0, 41), np.linspace(-0.5, 0.5, 460)]), torch.float32)
    results = [
        solve(operator, num_pairs=10, tolerance=1e-3, memory_budget=budget)
        for budget in (None, 500 * 4 * 200, DEFAULT_BUDGET, 2**60)
    ]
    for pairs in results[1:]:
        for name in ("eigenvalues", "eigenvectors", "residuals"):
            assert torch.equal(getattr(pairs, name), getattr(results[0], name))
        assert (pairs.num_products, pairs.complete_beyond) == (results[0].num_products, results[0].complete_beyond)


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_pairs_of_low_precision_are_certified_with_the_smallest_basis(which):
    eigenvalues = np.concatenate([np.geomspace(50, 5, 8), [-60.0, -20.0, -8.0], np.linspace(-2, 2, 400)])
    operator = Rounded(with_spectrum(eigenvalues).float())
    budget = least_budget(operator, 4)
    operator.reference.products = operator.products = 0
    pairs = solve(operator, num_pairs=4, tolerance=1e-2, max_products=200, which=which, memory_budget=budget)
    assert pairs.converged
    assert pairs.complete is not False
    assert 4 <= pairs.num_certifying == operator.reference.products <= 12
    assert pairs.num_products + pairs.num_probing == operator.products
    expected = np.sort(RANKINGS[which](eigenvalues))[::-1][:4]
    np.testing.assert_allclose(RANKINGS[which](pairs.eigenvalues.numpy()), expected, atol=1e-2 * 60)


@pytest.mark.parametrize("max_products", [5, 6, 7, 12, 25, 60])
def test_a_bounded_search_takes_no_more_products_than_it_may(max_products):
    operator = Counting(with_spectrum(np.linspace(0, 1, 300)))
    budget = least_budget(operator, 5)
    operator.products = 0
    pairs = solve(operator, num_pairs=5, tolerance=1e-8, max_products=max_products, memory_budget=budget)
    assert pairs.num_products == operator.products <= max_products
    assert not pairs.converged
    assert pairs.complete is None
    errors = pairs.eigenvectors @ operator.matrix - pairs.eigenvalues[:, None] * pairs.eigenvectors
    scale = max(abs(pairs.eigenvalues[0].item()), abs(pairs.smallest))
    torch.testing.assert_close(pairs.residuals, errors.norm(dim=1) / scale, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("num_pairs", [1, 7])
def test_the_budget_that_an_error_names_would_do_and_one_byte_less_would_not(num_pairs, reference):
    matrix = with_spectrum(np.linspace(-1, 2, 80)).float()
    operator = Rounded(matrix) if reference else matrix
    least = least_budget(operator, num_pairs)
    solve(operator, num_pairs=num_pairs, tolerance=1e-2, memory_budget=least)
    with pytest.raises(
        ValueError, match=f"memory_budget={least - 1:,} bytes .* {num_pairs} eigenpairs .*{least:,} bytes"
    ):
        solve(operator, num_pairs=num_pairs, memory_budget=least - 1)


@pytest.mark.parametrize(
    ("budget", "error"), [(-1, ValueError), (1e9, TypeError), (True, TypeError), ("4 GiB", TypeError)]
)
def test_a_budget_that_is_no_number_of_bytes_is_refused(budget, error):
    with pytest.raises(error, match=r"^memory_budget must be .*got"):
        solve(torch.eye(3), num_pairs=1, memory_budget=budget)


def test_a_budget_without_a_number_grows_with_the_pairs():
    from sharpness.eigen.memory import capacity

    class Long:
        shape, dtype = (10**9, 10**9), torch.float32

        def __matmul__(self, vector):
            raise AssertionError

    fitting = capacity(VectorProduct(Long()), 5, None)
    assert fitting.without_images >= 26


def test_a_compressed_space_keeps_what_it_knows_of_the_images():
    matrix = with_spectrum([9.0, 8.0, *np.linspace(-1, 1, 98)])
    space = Krylov(VectorProduct(matrix), torch.Generator().manual_seed(0), keep_images=False)
    for step in range(60):
        if step in (10, 35):
            space.restart()
        if step % 20 == 19:
            values, vectors = space.ritz_pairs()
            space.compress(values[-9:], vectors.T[-9:])
        space.extend()
        basis = space.basis.combine(torch.eye(space.num_steps, dtype=torch.float64))
        torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis), dtype=torch.float64), rtol=0, atol=1e-13)
        torch.testing.assert_close(space.projected, basis @ matrix @ basis.T, rtol=0, atol=1e-13)
        values, vectors = space.ritz_pairs()
        ritz = vectors.T @ basis
        errors = (ritz @ matrix - values[:, None] * ritz).norm(dim=1)
        torch.testing.assert_close(space.estimates(vectors.T), errors, rtol=0, atol=1e-13)
        assert space.recurrence_error(values, vectors.T, ritz) < 1e-13


@pytest.mark.parametrize("name", ["conv", "residual"])
def test_the_sharpest_directions_of_a_network_are_the_same_with_a_bounded_basis(problem, name):
    plain = problem(name, l2=0.01, num_examples=9).in_torchs_order
    expected = np.linalg.eigvalsh(plain.hessian(plain.weights).numpy())[::-1]
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, l2=0.01, chunk_size=4, precision="float64")
    pairs = solve(operator, num_pairs=6, memory_budget=least_budget(operator, 6))
    assert pairs.converged
    assert pairs.complete_beyond < math.inf
    np.testing.assert_allclose(pairs.eigenvalues.numpy(), expected[:6], rtol=0, atol=1e-8 * expected[0])


def test_norms_are_the_same_in_pieces():
    rows = torch.randn(3, 2**21 + 5, generator=torch.Generator().manual_seed(0))
    expected = np.linalg.norm(rows.numpy().astype(np.float64), axis=1)
    np.testing.assert_allclose(norms_of_rows(rows).numpy(), expected, rtol=1e-11)  # 1e-5 in single precision
    assert norms_of_rows(rows[:, :7]).tolist() == torch.linalg.vector_norm(rows[:, :7].double(), dim=1).tolist()
    assert norms_of_rows(rows[:0]).shape == (0,)
    assert norms_of_rows(torch.full((2, 2**20 + 1), torch.nan)).isnan().all()


@pytest.mark.parametrize("keep_images", [True, False])
def test_a_step_leaves_alone_what_an_operator_hands_out(keep_images):
    matrix = with_spectrum([9.0, 8.0, *np.linspace(-1, 1, 98)])

    class Remembering:
        """Returns the same tensor for the same vector, and would notice if it were changed."""

        shape, dtype, device = (100, 100), torch.float64, torch.device("cpu")
        images: ClassVar[list[torch.Tensor]] = []
        copies: ClassVar[list[torch.Tensor]] = []

        def __matmul__(self, vector):
            self.images.append(matrix @ vector)
            self.copies.append(self.images[-1].clone())
            return self.images[-1]

    operator = Remembering()
    space = Krylov(VectorProduct(operator), torch.Generator().manual_seed(0), keep_images=keep_images)
    for _ in range(30):
        space.extend()
    assert all(torch.equal(*pair) for pair in zip(operator.images, operator.copies, strict=True))
