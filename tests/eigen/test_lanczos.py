"""The Lanczos solver against numpy's dense one, on spectra made to order and on a network's Hessian."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import ADVERSARIAL, RANKINGS, TIGHT, Counting, Rounded, not_operators, solve, with_spectrum
from scipy import sparse
from scipy.sparse.linalg import LinearOperator

from sharpness.eigen.krylov import Krylov
from sharpness.eigen.lanczos import follow_eigenpairs, top_eigenpairs
from sharpness.eigen.operators import VectorProduct
from sharpness.hessian.operator import HessianOperator

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


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


@settings(max_examples=150)
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
    assert pairs.num_products + pairs.num_probing == matrix.products
    assert pairs.num_products < 10
    assert pairs.num_probing == 8
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
    assert pairs.complete is None
    assert pairs.num_products == matrix.products == 20
    assert pairs.num_probing == 0
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
    pairs = solve(matrix, num_pairs=1, tolerance=1e-300, max_products=100)
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


def test_an_end_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"which .*'LM'"):
        solve(torch.eye(3), num_pairs=1, which="LM")


def test_a_probe_of_less_than_nothing_is_refused():
    with pytest.raises(ValueError, match=r"probe_products .*got -1"):
        solve(torch.eye(3), num_pairs=1, probe_products=-1)


@pytest.mark.parametrize("matrix", [np.zeros((3, 4)), torch.zeros(4, 3), np.zeros(3), torch.zeros(2, 2, 2)])
def test_an_operator_that_is_not_square_is_refused(matrix):
    with pytest.raises(ValueError, match=r"square .*\["):
        solve(matrix, num_pairs=1)


def test_an_operator_whose_shape_is_of_no_whole_numbers_is_refused():
    matrix = Counting(torch.eye(3))
    matrix.shape = (3.0, 3.0)
    with pytest.raises(TypeError, match=r"shape is \(P, P\), whole numbers, got \(3.0, 3.0\)"):
        solve(matrix, num_pairs=1)


@pytest.mark.parametrize("word", ["no", 0, None])
def test_whether_to_certify_is_true_or_false(word):
    with pytest.raises(TypeError, match=f"certify must be True or False, got {word!r}"):
        solve(torch.eye(3), num_pairs=1, certify=word)


@pytest.mark.parametrize("matrix", [np.eye(3, dtype=complex), torch.eye(3, dtype=torch.int64), torch.eye(3).cfloat()])
def test_an_operator_that_is_not_real_is_refused(matrix):
    with pytest.raises(ValueError, match=r"dtype .*(complex|int64)"):
        solve(matrix, num_pairs=1)


@pytest.mark.parametrize("number", range(len(not_operators(torch.eye(2).double()))))
def test_what_is_no_symmetric_operator_is_refused(number):
    matrix = with_spectrum(np.linspace(-1, 2, 60))
    operator, error, message = not_operators(matrix)[number]
    with pytest.raises(error, match=message):
        solve(operator, num_pairs=2, tolerance=1e-6)
    operator, error, message = not_operators(matrix)[number]
    with pytest.raises(error, match=message):
        follow_eigenpairs(operator, torch.eye(60).double()[:4], tolerance=1e-6, max_products=40)


@pytest.mark.parametrize("tolerance", [0.0, -1e-3, float("nan"), float("inf"), -float("inf")])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(ValueError, match=f"tolerance .*{tolerance}"):
        solve(torch.eye(3), num_pairs=1, tolerance=tolerance)
    with pytest.raises(ValueError, match=r"^tolerance "):
        follow_eigenpairs(torch.eye(3), torch.eye(3)[:1], tolerance=tolerance, max_products=3)


@pytest.mark.parametrize("name", ["num_pairs", "max_products", "probe_products"])
@pytest.mark.parametrize("number", [True, 2.5, 2.0, "2", [2]])
def test_a_number_that_is_not_whole_is_refused(name, number):
    with pytest.raises(TypeError, match=f"{name} .*{number!r}"):
        solve(torch.eye(3), **{"num_pairs": 1, name: number})


def test_whole_numbers_and_tolerances_of_numpy_are_taken():
    pairs = solve(torch.diag(torch.arange(5.0)), num_pairs=np.int64(2), tolerance=np.float32(1e-3))
    np.testing.assert_allclose(pairs.eigenvalues.numpy(), [4, 3], atol=1e-2)


@pytest.mark.parametrize("generator", [0, torch, False])
def test_the_global_generator_is_never_taken_instead(generator):
    with pytest.raises(TypeError, match=r"^generator .*torch\.Generator\(\)"):
        top_eigenpairs(torch.eye(3), num_pairs=1, generator=generator)


@pytest.mark.parametrize("num_pairs", [1, 5, 12])
def test_operator_and_number_are_enough_and_give_the_same_bits_each_time(num_pairs):
    matrix = Counting(with_spectrum([50.0, 45.0, 40.0, 35.0, 30.0, 25.0, *np.linspace(-1, 9, 400)]))
    first = top_eigenpairs(matrix, num_pairs)
    again = top_eigenpairs(matrix, num_pairs=num_pairs, generator=torch.Generator().manual_seed(0))
    assert first.converged
    assert torch.equal(first.eigenvectors, again.eigenvectors)
    assert_residuals_are_honest(first, matrix.matrix, 50)
    assert (first.residuals <= 1e-3).all()
    np.testing.assert_allclose(
        first.eigenvalues.numpy(), np.linalg.eigvalsh(matrix.matrix)[::-1][:num_pairs], rtol=0, atol=50e-3
    )


@pytest.mark.parametrize(("num_pairs", "expected"), [(1, 200), (10, 200), (20, 400)])
def test_without_a_budget_of_products_a_search_ends_after_twenty_a_pair(num_pairs, expected):
    operator = sparse.diags_array(np.linspace(0, 1, 4000) ** 0.1)
    pairs = top_eigenpairs(operator, num_pairs, tolerance=1e-12)
    assert (pairs.num_products, pairs.converged) == (expected, False)


@pytest.mark.parametrize("operator", [None, [1.0, 2.0], len, 3.0])
def test_what_is_no_operator_at_all_is_refused_by_its_type(operator):
    with pytest.raises(TypeError, match=f"operator.* got {type(operator).__name__}$"):
        solve(operator, num_pairs=1)


@pytest.mark.parametrize("vectors", [[[1.0, 0.0, 0.0]], np.eye(3)[:1]])
def test_vectors_that_are_no_tensor_are_refused(vectors):
    with pytest.raises(TypeError, match=r"^vectors .*\[k, 3\]"):
        follow_eigenpairs(torch.eye(3), vectors, tolerance=1e-3, max_products=9)


@pytest.mark.parametrize(
    "vectors", [torch.ones(2, 3), torch.zeros(1, 3), torch.full((1, 3), torch.nan), 2 * torch.eye(3)]
)
def test_vectors_that_are_not_orthonormal_are_refused(vectors):
    with pytest.raises(ValueError, match=r"^vectors .*orthonormal"):
        follow_eigenpairs(torch.eye(3), vectors, tolerance=1e-3, max_products=9)


@pytest.mark.parametrize("vectors", [torch.eye(3)[0], torch.zeros(0, 3), torch.eye(2), torch.eye(4)])
def test_vectors_that_cannot_be_followed_are_refused(vectors):
    with pytest.raises(ValueError, match=r"vectors .*a tensor of shape"):
        follow_eigenpairs(torch.eye(3), vectors, tolerance=1e-3, max_products=9)


@settings(max_examples=100)
@given(
    spectrum=st.one_of(apart, clustered, paired, above_a_bulk, of_low_rank),
    which=st.sampled_from(["smallest", "magnitude"]),
    data=st.data(),
)
def test_the_other_ends_equal_the_dense_solver(spectrum, which, data):
    num_pairs = data.draw(st.integers(1, len(spectrum)), label="num_pairs")
    matrix = with_spectrum(np.asarray(spectrum, dtype=float))
    expected = np.linalg.eigh(matrix.numpy())[0]
    ranking = RANKINGS[which]

    pairs = solve(matrix, num_pairs=num_pairs, which=which)

    scale = abs(expected).max() or 1.0
    assert pairs.converged
    # Of values with equal magnitude either may come first.
    ranked = np.sort(ranking(expected))[::-1]
    np.testing.assert_allclose(ranking(pairs.eigenvalues.numpy()), ranked[:num_pairs], rtol=0, atol=1e-9 * scale)
    assert_residuals_are_honest(pairs, matrix, scale)
    if which == "smallest":
        assert pairs.smallest == pairs.eigenvalues[0]
        assert pairs.smallest_residual == pytest.approx(pairs.residuals[0].item(), abs=1e-14)


def test_kinds_of_operators_have_the_same_pairs():
    matrix = with_spectrum([5.0, 4.0, -6.0, *np.linspace(-1, 1, 60)])
    array = matrix.numpy()
    silent = LinearOperator(array.shape, matvec=lambda vector: array @ vector, dtype=float)
    silent.dtype = None  # as its class allows
    operators = [array, sparse.csr_array(array), LinearOperator(array.shape, matvec=array.__matmul__), silent]

    expected = solve(matrix, num_pairs=3)

    for operator in operators:
        pairs = solve(operator, num_pairs=3)
        assert pairs.converged
        assert pairs.num_products == expected.num_products
        torch.testing.assert_close(pairs.eigenvalues, expected.eigenvalues)
        torch.testing.assert_close(pairs.eigenvectors, expected.eigenvectors)


@pytest.mark.parametrize(
    ("kind", "precision"), [(np.float16, torch.float32), (np.float32, torch.float32), (np.int64, torch.float64)]
)
def test_arrays_are_worked_on_in_their_precision_and_at_least_in_single(kind, precision):
    pairs = solve(np.diag(np.arange(6)).astype(kind), num_pairs=2, tolerance=1e-5)
    assert pairs.eigenvectors.dtype == precision
    np.testing.assert_allclose(pairs.eigenvalues.numpy(), [5, 4], atol=1e-5)


def test_an_operator_may_write_all_its_products_to_one_place():
    matrix = with_spectrum([9.0, 8.0, 7.0, *np.linspace(-1, 1, 60)])

    class InPlace(Counting):
        place = torch.empty(63, dtype=torch.float64)

        def __matmul__(self, vector):
            return torch.mv(self.matrix, vector, out=self.place)

    assert_are_the_top_pairs(solve(InPlace(matrix), num_pairs=3), matrix, 3)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_no_pair_of_an_adversarial_spectrum_is_missed_or_a_ghost(name, which, seed):
    eigenvalues, num_pairs = ADVERSARIAL[name]
    eigenvalues = np.asarray(eigenvalues, dtype=float)
    eigenvalues = -eigenvalues if which == "smallest" else eigenvalues
    ranking, scale, size = RANKINGS[which], abs(eigenvalues).max(), len(eigenvalues)
    expected = np.sort(ranking(eigenvalues))[::-1][:num_pairs]
    matrix = with_spectrum(eigenvalues, seed)
    for precision, tolerance in ((torch.float64, TIGHT), (torch.float32, 1e-3)):
        operator = Counting(matrix.to(precision))
        wanted = {"num_pairs": num_pairs, "tolerance": tolerance, "max_products": 200, "seed": seed, "which": which}
        pairs = solve(operator, **wanted, probe_products=40)

        assert pairs.converged
        assert pairs.complete
        assert pairs.num_products + pairs.num_probing == operator.products <= size
        found = ranking(pairs.eigenvalues.numpy())
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)
        vectors = pairs.eigenvectors.double()
        identity = torch.eye(num_pairs, dtype=torch.float64)
        torch.testing.assert_close(vectors @ vectors.T, identity, rtol=0, atol=50 * torch.finfo(precision).eps)
        errors = vectors @ matrix - pairs.eigenvalues[:, None] * vectors
        assert errors.norm(dim=1).max() <= 1.01 * tolerance * scale + 1e-12


@pytest.mark.parametrize("matrix", [torch.eye(2000), torch.zeros(2000, 2000), torch.eye(2000).double() * -3])
def test_a_spectrum_of_one_value_costs_a_product_a_pair_and_a_probe(matrix):
    operator = Counting(matrix)
    pairs = solve(operator, num_pairs=3, tolerance=1e-5, max_products=200)
    assert (pairs.num_products, pairs.num_probing, operator.products) == (3, 8, 11)
    assert pairs.converged
    # Where nothing is rounded, nothing can hide in the rounding.
    assert pairs.complete is (None if pairs.complete_beyond > float(matrix[0, 0]) + 1e-5 else True)
    assert pairs.complete_beyond == pytest.approx(float(matrix[0, 0]), abs=1e-3)


def test_probing_changes_nothing_where_nothing_was_missed():
    matrix = with_spectrum([50.0, 30.0, 20.0, *np.linspace(-1, 1, 297)])
    plain, probed = (solve(matrix, num_pairs=3, tolerance=1e-6, probe_products=n) for n in (0, 8))
    assert (plain.num_probing, probed.num_probing) == (0, 8)
    assert (plain.complete, probed.complete) == (None, True)
    assert plain.num_products == probed.num_products
    assert torch.equal(plain.eigenvectors, probed.eigenvectors)
    assert torch.equal(plain.residuals, probed.residuals)


@pytest.mark.parametrize("seed", range(60))
def test_a_triple_anywhere_above_a_dense_bulk_is_found(seed):
    drawn = np.random.default_rng(seed)
    value = drawn.uniform(0.35, 0.95)
    triple = value * np.array([1, 1 - 1e-5, 1 + 1e-5])
    eigenvalues = np.concatenate([drawn.uniform(0.3, 1, 8), triple, drawn.uniform(-0.05, 0.25, 5_000)])
    operator = sparse.diags_array(eigenvalues.astype(np.float32))
    pairs = solve(operator, num_pairs=10, tolerance=1e-3, max_products=300, seed=seed)
    assert pairs.converged
    assert pairs.complete is not False
    apart = np.sort(eigenvalues)[-10] - np.sort(eigenvalues)[-11]
    if apart > 0.01:  # a longer probe tells the last one from the next
        assert solve(operator, num_pairs=10, tolerance=1e-3, max_products=300, seed=seed, probe_products=40).complete
    np.testing.assert_allclose(pairs.eigenvalues.numpy(), np.sort(eigenvalues)[::-1][:10], atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_pairs", [30, 50])
@pytest.mark.parametrize("kind", [Counting, Rounded])
def test_eigenvalues_closer_together_than_the_tolerance_are_within_it(kind, num_pairs, seed):
    # Two eigenvalues of a Hessian may lie a thousandth of the largest apart: vectors that mix several are within the
    # tolerance of being eigenvectors, and leave no trace of those that are missing.
    eigenvalues = np.concatenate([1 / np.arange(1.0, 401), -0.3 / np.arange(1.0, 201)])
    operator = kind(with_spectrum(eigenvalues, seed).float())
    pairs = solve(operator, num_pairs=num_pairs, tolerance=1e-2, max_products=500, seed=seed)
    assert pairs.converged
    # The last of them lie too close together for eight products to tell what is between them.
    assert pairs.complete is None
    assert eigenvalues[num_pairs] < pairs.complete_beyond < 0.5
    np.testing.assert_allclose(pairs.eigenvalues.numpy(), eigenvalues[:num_pairs], rtol=0, atol=1e-2)


def test_without_a_probe_a_copy_is_missed_and_with_too_small_a_budget_it_is_known_to_be():
    matrix = with_spectrum([3.0, 3.0, 2.0, *np.linspace(-1, 1, 297)])
    blind = solve(matrix, num_pairs=2, tolerance=1e-6, probe_products=0)
    assert blind.converged
    np.testing.assert_allclose(blind.eigenvalues.numpy(), [3, 2], atol=1e-5)
    assert blind.complete is None

    outcomes = [
        solve(matrix, num_pairs=2, tolerance=1e-6, max_products=n)
        for n in range(blind.num_products, 3 * blind.num_products)
    ]
    seen = [(pairs.converged, pairs.complete) for pairs in outcomes]
    # The first probe cut short, then what it showed not yet converged, then the second probe cut short, then all.
    assert [outcome for outcome, _ in itertools.groupby(seen)] == [
        (True, None),
        (False, False),
        (True, None),
        (True, True),
    ]
    for pairs in outcomes:
        if pairs.complete is False:
            assert pairs.residuals.max() > 1e-6
            assert pairs.num_probing == 0
    np.testing.assert_allclose(outcomes[-1].eigenvalues.numpy(), [3, 3], atol=1e-5)
    assert outcomes[-1].num_probing == 8


def test_a_budget_cut_short_within_a_probe_counts_its_products():
    matrix = Counting(with_spectrum([50.0, 30.0, 20.0, *np.linspace(-1, 1, 297)]))
    enough = solve(matrix, num_pairs=3, tolerance=1e-6).num_products
    matrix.products = 0
    pairs = solve(matrix, num_pairs=3, tolerance=1e-6, max_products=enough + 2)
    assert (pairs.num_products, pairs.num_probing, matrix.products) == (enough, 2, enough + 2)
    assert pairs.converged
    assert pairs.complete is None


def test_more_pairs_than_a_block_of_rows_holds():
    eigenvalues = np.concatenate([np.linspace(2, 12, 70), np.linspace(-1, 1, 330)])
    matrix = with_spectrum(eigenvalues)
    pairs = solve(matrix, num_pairs=70, max_products=300)
    assert_are_the_top_pairs(pairs, matrix, 70)
    assert pairs.complete is not False
    assert 1 < pairs.complete_beyond < 2.1


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_pairs_of_low_precision_are_certified_in_full_precision(which):
    eigenvalues = np.concatenate([np.geomspace(50, 5, 4), [-60.0, -20.0, -8.0], np.linspace(-1, 1, 200)])
    matrix = with_spectrum(eigenvalues)
    operator = Rounded(matrix.float())

    pairs = solve(operator, num_pairs=3, tolerance=1e-2, max_products=60, which=which)

    assert pairs.converged
    assert pairs.complete
    assert pairs.num_certifying == operator.reference.products == 3
    assert pairs.num_products + pairs.num_probing == operator.products
    vectors, values = pairs.eigenvectors.double(), pairs.eigenvalues
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-6)
    # Rayleigh-Ritz: the pairs are those of the matrix on their own span.
    torch.testing.assert_close(vectors @ matrix @ vectors.T, torch.diag(values), rtol=0, atol=1e-4)
    norms = (vectors @ matrix - values[:, None] * vectors).norm(dim=1)
    known = abs(values).max() if which != "largest" else abs(pairs.smallest)
    torch.testing.assert_close(pairs.residuals, norms / known, rtol=1e-3, atol=1e-6)
    expected = np.sort(RANKINGS[which](eigenvalues))[::-1][:3]
    # An error of the order of the squared residual over the gap, and certainly within the residual (Weyl).
    assert (abs(RANKINGS[which](values.numpy()) - expected) <= norms.numpy() + 1e-4).all()
    assert abs(RANKINGS[which](values.numpy()) - expected).max() < 0.05


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("num_pairs", [1, 3])
def test_noise_beyond_the_tolerance_is_corrected_with_a_few_products_more(which, num_pairs):
    eigenvalues = np.concatenate([[50.0, 30.0, 20.0, -55.0, -33.0, -22.0], np.linspace(-1, 1, 294)])
    matrix = with_spectrum(eigenvalues)
    operator = Rounded(matrix.float())

    pairs = solve(operator, num_pairs=num_pairs, tolerance=1e-4, max_products=100, which=which)

    assert pairs.converged
    assert num_pairs < pairs.num_certifying == operator.reference.products <= 3 * num_pairs
    vectors = pairs.eigenvectors.double()
    errors = (vectors @ matrix - pairs.eigenvalues[:, None] * vectors).norm(dim=1)
    assert (errors <= 1e-4 * 55 * 1.001).all()
    expected = sorted(eigenvalues, key=RANKINGS[which], reverse=True)[:num_pairs]
    np.testing.assert_allclose(pairs.eigenvalues.numpy(), expected, atol=1e-5 * 55)


@pytest.mark.parametrize("num_pairs", [1, 2])
def test_few_pairs_have_products_enough_for_noise_in_a_wide_spectrum(num_pairs):
    matrix = with_spectrum([50.0, 45.0, *np.linspace(-30, 30, 800)])
    operator = Rounded(matrix.float())

    pairs = solve(operator, num_pairs=num_pairs, tolerance=5e-5, max_products=200)

    assert pairs.converged
    assert 3 * num_pairs < pairs.num_certifying == operator.reference.products <= 12
    vectors = pairs.eigenvectors.double()
    errors = (vectors @ matrix - pairs.eigenvalues[:, None] * vectors).norm(dim=1)
    assert (errors <= 5e-5 * 50 * 1.001).all()


def test_a_tolerance_far_below_the_noise_of_low_precision_is_not_claimed():
    matrix = with_spectrum([50.0, 30.0, 20.0, *np.linspace(-1, 1, 297)]).float()
    pairs = solve(Rounded(matrix), num_pairs=3, tolerance=1e-7, max_products=100)
    assert not pairs.converged
    assert pairs.residuals.max() > 1e-7


def test_a_budget_that_is_too_small_for_low_precision_is_certified_as_such():
    operator = Rounded(with_spectrum(np.linspace(0, 1, 200)).float())
    pairs = solve(operator, num_pairs=5, tolerance=1e-3, max_products=12)
    assert (pairs.num_products, pairs.num_probing, pairs.num_certifying) == (12, 0, 5)
    assert operator.reference.products == 5
    assert not pairs.converged
    assert pairs.complete is None
    norms = (pairs.eigenvectors @ operator.matrix - pairs.eigenvalues[:, None].float() * pairs.eigenvectors).norm(dim=1)
    torch.testing.assert_close(pairs.residuals, norms.double() / pairs.eigenvalues[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_without_certifying_a_reference_is_left_alone_and_changes_no_bit(which):
    matrix = with_spectrum([50.0, 30.0, 20.0, -55.0, -33.0, -22.0, *np.linspace(-1, 1, 294)]).float()
    operator, alone = Rounded(matrix), Rounded(matrix)
    alone.reference = None

    pairs = solve(operator, num_pairs=3, tolerance=5e-2, max_products=100, which=which, certify=False)

    assert pairs.converged
    assert pairs.num_certifying == operator.reference.products == 0
    assert pairs.num_products + pairs.num_probing == operator.products
    expected = solve(alone, num_pairs=3, tolerance=5e-2, max_products=100, which=which)
    for name in ("eigenvalues", "eigenvectors", "residuals"):
        assert torch.equal(getattr(pairs, name), getattr(expected, name))
    # The values are known to the residual and the rounding of bfloat16, 0.4 %.
    known = sorted(np.linalg.eigvalsh(matrix.double().numpy()), key=RANKINGS[which], reverse=True)[:3]
    np.testing.assert_allclose(pairs.eigenvalues.numpy(), known, atol=0.06 * 55)


def test_a_reference_of_none_is_none():
    operator = Counting(with_spectrum(np.linspace(0, 1, 30)))
    operator.reference = None
    pairs = solve(operator, num_pairs=2)
    assert pairs.converged
    assert pairs.num_certifying == 0


def test_vectors_of_an_operator_in_bfloat16_are_kept_in_single_precision():
    matrix = with_spectrum([50.0, 30.0, *np.linspace(-1, 1, 98)]).bfloat16()
    pairs = solve(matrix, num_pairs=2, tolerance=1e-2, max_products=50)
    assert pairs.eigenvectors.dtype == torch.float32
    np.testing.assert_allclose(pairs.eigenvalues.numpy(), [50, 30], rtol=1e-2)


def test_the_recurrence_knows_the_residuals_after_sequences_were_interrupted():
    matrix = with_spectrum([3.0, 3.0, 2.0, *np.linspace(-1, 1, 97)])
    generator = torch.Generator().manual_seed(0)
    space = Krylov(VectorProduct(matrix), generator, keep_images=True)
    everything = torch.eye(100, dtype=torch.float64)
    for step in range(40):
        if step in (10, 15, 23):
            space.restart()
        if step > 25:
            space.turn(torch.linalg.eigh(space.projected)[1][:, -1])
        space.extend()
        identity = everything[: step + 1, : step + 1]
        basis = space.basis.combine(identity)
        torch.testing.assert_close(basis @ basis.T, identity, rtol=0, atol=1e-13)
        torch.testing.assert_close(space.images.combine(identity), basis @ matrix, rtol=0, atol=1e-13)
        torch.testing.assert_close(space.projected, basis @ matrix @ basis.T, rtol=0, atol=1e-13)
        values, vectors = torch.linalg.eigh(space.projected)
        ritz = vectors.T @ basis
        errors = (ritz @ matrix - values[:, None] * ritz).norm(dim=1)
        torch.testing.assert_close(space.estimates(vectors.T), errors, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["conv", "residual", "batch_norm"])
def test_the_sharpest_directions_of_a_network_are_those_of_its_dense_hessian(problem, name):
    plain = problem(name, l2=0.01, num_examples=9).in_torchs_order
    values, vectors = np.linalg.eigh(plain.hessian(plain.weights).numpy())
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, l2=0.01, chunk_size=4, precision="float64")

    pairs = solve(operator, num_pairs=6)

    assert pairs.converged
    np.testing.assert_allclose(pairs.eigenvalues.numpy(), values[::-1][:6], rtol=0, atol=1e-8 * values[-1])
    overlaps = abs((pairs.eigenvectors.numpy() * vectors[:, ::-1][:, :6].T).sum(axis=1))  # the sign is arbitrary
    np.testing.assert_allclose(overlaps, 1, atol=1e-8)


# Following


FOLLOWED = [50.0, 30.0, 20.0, -60.0, *np.linspace(-1, 1, 96)]


def turning(size, angle, seed=0):
    """A rotation by at most ``angle``, in all directions."""
    numbers = torch.from_numpy(np.random.default_rng(seed).standard_normal((size, size)))
    skew = numbers - numbers.T
    return torch.matrix_exp(angle * skew / torch.linalg.matrix_norm(skew, 2))


def leading(matrix, num_pairs):
    """By numpy: the largest eigenvalues and their eigenvectors as rows."""
    values, vectors = np.linalg.eigh(matrix.numpy())
    return values[::-1][:num_pairs], torch.from_numpy(vectors[:, ::-1][:, :num_pairs].T.copy())


def assert_follows_honestly(followed, matrix):
    """Orthonormal vectors, with the values and residuals that numpy finds for them."""
    vectors, values = followed.eigenvectors.double().numpy(), followed.eigenvalues.numpy()
    precision = torch.finfo(followed.eigenvectors.dtype).eps
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(vectors)), atol=50 * precision)
    images = vectors @ matrix.double().numpy()
    np.testing.assert_allclose(images @ vectors.T, np.diag(values), atol=100 * precision * abs(values).max())
    errors = np.linalg.norm(images - values[:, None] * vectors, axis=1)
    np.testing.assert_allclose(followed.residuals.numpy(), errors / abs(values).max(), atol=100 * precision)
    assert (np.diff(values) <= 0).all()


@pytest.mark.parametrize(("tolerance", "per_pair"), [(1e-1, 1.2), (1e-2, 2), (1e-4, 4)])
@pytest.mark.parametrize("num_pairs", [1, 3])
def test_eigenvectors_that_turn_slowly_are_followed_with_few_products(num_pairs, tolerance, per_pair):
    matrix, turn = with_spectrum(FOLLOWED), turning(100, 0.02)
    _, vectors = leading(matrix, num_pairs)
    spent = []
    for _ in range(25):
        matrix = turn @ matrix @ turn.T
        operator = Counting(matrix)

        followed = follow_eigenpairs(operator, vectors, tolerance=tolerance, max_products=8 * num_pairs)

        assert num_pairs <= followed.num_products == operator.products <= 8 * num_pairs
        assert followed.residuals.max() <= tolerance
        assert_follows_honestly(followed, matrix)
        expected, directions = leading(matrix, num_pairs)
        # The eigenvalues are 10 apart or more: the error is at most the squared residual over that.
        error = (tolerance * 50) ** 2 / 10
        np.testing.assert_allclose(followed.eigenvalues.numpy(), expected, rtol=0, atol=error + 1e-9)
        overlaps = abs((followed.eigenvectors * directions).sum(dim=1))
        assert (overlaps**2 >= 1 - (tolerance * 50 / 10) ** 2 - 1e-9).all()
        vectors = followed.eigenvectors
        spent.append(followed.num_products)
    assert np.mean(spent) <= per_pair * num_pairs


@pytest.mark.parametrize("num_pairs", [1, 3])
def test_following_costs_less_than_looking_anew(num_pairs):
    matrix, turn = with_spectrum(FOLLOWED), turning(100, 0.02)
    _, vectors = leading(matrix, num_pairs)
    turned = turn @ matrix @ turn.T
    followed = follow_eigenpairs(turned, vectors, tolerance=1e-2, max_products=100)
    anew = solve(turned, num_pairs=num_pairs, tolerance=1e-2, probe_products=0)
    assert followed.num_products < anew.num_products


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("num_pairs", [1, 4])
def test_exact_eigenvectors_cost_one_product_each(num_pairs, precision, tolerance):
    matrix = with_spectrum(FOLLOWED)
    values, vectors = leading(matrix, num_pairs)
    operator = Counting(matrix.to(precision))
    followed = follow_eigenpairs(operator, vectors.to(precision), tolerance=tolerance, max_products=100)
    assert followed.num_products == operator.products == num_pairs
    assert (followed.residuals <= tolerance).all()
    assert followed.eigenvectors.dtype == precision
    assert_follows_honestly(followed, matrix)
    np.testing.assert_allclose(followed.eigenvalues.numpy(), values, rtol=10 * tolerance)


@pytest.mark.parametrize("max_products", [3, 4, 5, 7, 12, 30])
def test_a_tolerance_out_of_reach_uses_up_the_products_and_gives_the_best_pairs(max_products):
    matrix = with_spectrum(FOLLOWED)
    _, vectors = leading(turning(100, 0.5) @ matrix @ turning(100, 0.5).T, 3)
    operator = Counting(matrix)
    followed, fewer = (
        follow_eigenpairs(of, vectors, tolerance=1e-300, max_products=number)
        for of, number in ((operator, max_products), (matrix, 3))
    )
    assert followed.num_products == operator.products == max_products
    assert followed.residuals.max() > 0
    assert_follows_honestly(followed, matrix)
    # Cauchy's interlacing: in a larger span the values grow, up to the eigenvalues.
    assert (followed.eigenvalues >= fewer.eigenvalues - 1e-12).all()
    assert (followed.eigenvalues.numpy() <= np.array([50, 30, 20]) + 1e-9).all()


def test_following_takes_no_more_products_than_the_space_has_dimensions():
    matrix = Counting(with_spectrum(np.linspace(-3, 4, 7)))
    drawn = torch.from_numpy(np.random.default_rng(0).standard_normal((7, 3)))
    vectors = torch.linalg.qr(drawn).Q.T.contiguous()
    followed = follow_eigenpairs(matrix, vectors, tolerance=1e-13, max_products=100)
    assert followed.num_products == matrix.products == 7
    assert_follows_honestly(followed, matrix.matrix)
    np.testing.assert_allclose(followed.eigenvalues.numpy(), np.linspace(-3, 4, 7)[::-1][:3], atol=1e-12)


def test_an_eigenvalue_whose_vector_has_no_part_in_the_span_is_not_seen():
    matrix = with_spectrum(FOLLOWED)
    _, vectors = leading(matrix, 3)
    followed = follow_eigenpairs(matrix, vectors[1:], tolerance=1e-9, max_products=20)
    np.testing.assert_allclose(followed.eigenvalues.numpy(), [30, 20])
    assert followed.num_products == 2


def test_the_order_of_the_followed_vectors_makes_no_difference():
    matrix = with_spectrum(FOLLOWED)
    _, vectors = leading(matrix, 3)
    followed = follow_eigenpairs(matrix, vectors[[2, 0, 1]], tolerance=1e-9, max_products=20)
    np.testing.assert_allclose(followed.eigenvalues.numpy(), [50, 30, 20])
    assert followed.num_products == 3


def test_a_reference_is_left_alone_in_following():
    matrix = with_spectrum(FOLLOWED)
    values, vectors = leading(matrix, 3)
    operator = Rounded(matrix.float())
    followed = follow_eigenpairs(operator, vectors.float(), tolerance=5e-2, max_products=6)
    assert followed.num_products == operator.products == 3
    assert operator.reference.products == 0
    assert (followed.residuals <= 5e-2).all()
    np.testing.assert_allclose(followed.eigenvalues.numpy(), values, rtol=0.01)


def test_fewer_products_than_vectors_are_refused():
    _, vectors = leading(with_spectrum(FOLLOWED), 3)
    with pytest.raises(ValueError, match=r"max_products .*got 2"):
        follow_eigenpairs(with_spectrum(FOLLOWED), vectors, tolerance=0.1, max_products=2)


def test_a_product_that_is_not_finite_is_an_error_in_following_too():
    _, vectors = leading(with_spectrum(FOLLOWED), 3)
    with pytest.raises(FloatingPointError, match="product 1 "):
        follow_eigenpairs(with_spectrum(FOLLOWED) * float("nan"), vectors, tolerance=0.1, max_products=9)
