"""Trace, norm and density by random vectors, against exact ones of matrices made to order."""

import gc

import numpy as np
import pytest
import torch
from matrices import Counting, not_operators, with_spectrum

from sharpness.eigen.estimators import (
    frobenius_norm,
    leading_frobenius_norm,
    spectral_density,
    squared_frobenius_norm,
    trace,
)
from sharpness.eigen.lanczos import top_eigenpairs

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def first_direction(size, seed=0):
    drawn = torch.randn(size, generator=stream(seed), dtype=torch.float64)
    return drawn / drawn.norm()


DECAYING = np.concatenate([[30.0, -20.0, 10.0], 1 / np.arange(1.0, 118)])
FLAT = np.linspace(-1, 3, 120)


def least_budget(size, itemsize=8):
    """The bytes with which a quadrature holds no basis."""
    return 10 * size * itemsize


def leave_one_out(matrix, tests):
    """XTrace as it is defined: for each test vector a basis of its own of the images of the others."""
    size, num_tests = tests.shape
    estimates = []
    for number in range(num_tests):
        basis, _ = np.linalg.qr(matrix @ np.delete(tests, number, axis=1))
        rest = tests[:, number] - basis @ (basis.T @ tests[:, number])
        rest *= np.sqrt(size - num_tests + 1) / np.linalg.norm(rest)
        estimates.append(np.trace(basis.T @ matrix @ basis) + rest @ matrix @ rest)
    return np.array(estimates)


@pytest.mark.parametrize("spectrum", [DECAYING, FLAT])
def test_the_trace_is_the_mean_over_test_vectors_left_out_one_by_one(spectrum):
    matrix = with_spectrum(spectrum)
    generator = stream(5)
    drawn = torch.stack([torch.randn(120, generator=generator, dtype=torch.float64) for _ in range(10)])
    expected = leave_one_out(matrix.numpy(), drawn.T.numpy())

    estimate = trace(matrix, num_products=21, generator=stream(5))

    assert estimate.value == pytest.approx(expected.mean(), rel=1e-9)
    assert estimate.standard_error == pytest.approx(expected.std(ddof=1) / np.sqrt(10), rel=1e-8)
    assert estimate.num_products == 20


ESTIMATES = {
    "trace": lambda matrix, **settings: trace(matrix, num_products=24, **settings),
    "squared norm": lambda matrix, **settings: squared_frobenius_norm(matrix, num_products=24, **settings),
    "norm": lambda matrix, **settings: frobenius_norm(matrix, num_products=24, **settings),
    "third moment": lambda matrix, **settings: spectral_density(matrix, num_probes=12, num_steps=3, **settings).moments(
        3
    ),
}
EXACT = {
    "trace": np.sum,
    "squared norm": lambda eigenvalues: (eigenvalues**2).sum(),
    "norm": np.linalg.norm,
    "third moment": lambda eigenvalues: (eigenvalues**3).mean(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATES)
@pytest.mark.parametrize("spectrum", [FLAT, 0.9 ** np.arange(120.0)], ids=["flat", "decaying"])
def test_error_bars_are_honest(name, spectrum):
    matrix, exact = with_spectrum(spectrum), EXACT[name](spectrum)
    outcomes = [ESTIMATES[name](matrix, generator=stream(seed)) for seed in range(200)]
    errors = np.array([outcome.value - exact for outcome in outcomes])
    bars = np.array([outcome.standard_error for outcome in outcomes])
    # No bias beyond chance: four standard errors of the mean of 200.
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(200) + 1e-2 * bars.mean()
    # A standard error from a dozen samples is itself uncertain by a fifth.
    assert 0.7 < np.sqrt((errors**2).mean() / (bars**2).mean()) < 1.4
    assert np.mean(abs(errors) < 3 * bars) > 0.95


def test_xtrace_is_far_better_than_its_samples_where_eigenvalues_decay():
    matrix = with_spectrum(0.7 ** np.arange(120.0))
    exact = matrix.trace().item()
    assert trace(matrix, num_products=60, generator=stream()).value == pytest.approx(exact, rel=1e-3)


LOW_RANK = {
    "zero": np.zeros(50),
    "rank one": [7.0, *np.zeros(49)],
    "rank one, negative": [-7.0, *np.zeros(49)],
    "rank three": [5.0, -3.0, 1e-3, *np.zeros(47)],
    "the rank of half the products": [5.0, 4.0, 3.0, 2.0, -1.0, -2.0, *np.zeros(44)],
}


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOW_RANK)
def test_the_trace_of_low_rank_is_exact_up_to_rounding(name, precision):
    matrix = Counting(with_spectrum(LOW_RANK[name]).to(precision))
    estimate = trace(matrix, num_products=16, generator=stream())
    allowed = 100 * torch.finfo(precision).eps * matrix.matrix.norm().item()
    assert estimate.value == pytest.approx(sum(LOW_RANK[name]), abs=allowed)
    assert 0 <= estimate.standard_error <= allowed
    assert estimate.num_products == matrix.products == 8 + np.count_nonzero(LOW_RANK[name])


@pytest.mark.parametrize("value", [1.0, -2.5])
def test_a_multiple_of_the_identity_has_no_spread(value):
    matrix = value * torch.eye(200, dtype=torch.float64)
    for estimate, expected in (
        (trace(matrix, num_products=10, generator=stream()), 200 * value),
        (squared_frobenius_norm(matrix, num_products=5, generator=stream()), 200 * value**2),
        (frobenius_norm(matrix, num_products=5, generator=stream()), 200**0.5 * abs(value)),
    ):
        assert estimate.value == pytest.approx(expected, rel=1e-12)
        assert estimate.standard_error == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_trace_is_exact_where_products_suffice(size):
    matrix = Counting(with_spectrum(np.arange(size) - 2.0))
    estimate = trace(matrix, num_products=7, generator=stream())
    assert estimate.value == pytest.approx(matrix.matrix.trace().item(), abs=1e-12)
    assert estimate.standard_error == 0
    assert estimate.num_products == matrix.products == size


def test_one_sample_has_no_error_bar():
    matrix = with_spectrum(FLAT)
    assert np.isnan(trace(matrix, num_products=3, generator=stream()).standard_error)
    assert np.isnan(squared_frobenius_norm(matrix, num_products=1, generator=stream()).standard_error)
    assert np.isnan(spectral_density(matrix, num_probes=1, num_steps=4, generator=stream()).moments(2).standard_error)


def test_a_norm_is_the_root_of_the_squared_norm_and_its_bar_follows_to_first_order():
    matrix = with_spectrum(DECAYING)
    squared = squared_frobenius_norm(matrix, num_products=9, generator=stream(3))
    root = frobenius_norm(matrix, num_products=9, generator=stream(3))
    assert root.value == squared.value**0.5
    assert root.num_products == squared.num_products == 9
    below, above = ((squared.value + shift * 1e-6 * squared.standard_error) ** 0.5 for shift in (-1, 1))
    assert root.standard_error == pytest.approx((above - below) / 2e-6, rel=1e-4)


def test_known_pairs_leave_only_their_complement_to_chance():
    matrix = with_spectrum(DECAYING)
    exact = (DECAYING**2).sum()
    pairs = top_eigenpairs(matrix, num_pairs=4, tolerance=1e-9, max_products=120, generator=stream(), which="magnitude")
    operator = Counting(matrix)
    with_pairs = squared_frobenius_norm(operator, num_products=10, generator=stream(), pairs=pairs)
    without = squared_frobenius_norm(matrix, num_products=10, generator=stream())

    # The rest is pi² / 6 - 1, from 0.25 downwards, and not 1400.
    assert with_pairs.value == pytest.approx(exact, abs=0.3)
    assert abs(with_pairs.value - exact) < 4 * with_pairs.standard_error
    assert with_pairs.standard_error < 1e-3 * without.standard_error
    assert with_pairs.num_products == operator.products == 10
    assert leading_frobenius_norm(pairs) == pytest.approx(np.sqrt(900 + 400 + 100 + 1))
    assert leading_frobenius_norm(pairs) < np.sqrt(exact)


def test_all_pairs_leave_nothing_to_chance():
    matrix = with_spectrum([3.0, -4.0, 1.0])
    pairs = top_eigenpairs(matrix, num_pairs=3, tolerance=1e-9, max_products=3, generator=stream())
    estimate = frobenius_norm(matrix, num_products=5, generator=stream(), pairs=pairs)
    assert estimate.value == pytest.approx(26**0.5)
    assert (estimate.standard_error, estimate.num_products) == (0, 0)


def test_the_norm_of_zero_is_zero():
    estimate = frobenius_norm(torch.zeros(9, 9), num_products=3, generator=stream())
    assert (estimate.value, estimate.standard_error) == (0, 0)


@pytest.mark.parametrize("budget", [None, least_budget(120)])
@pytest.mark.parametrize("spectrum", [FLAT, DECAYING])
def test_the_quadrature_is_exact_for_the_moments_of_its_start_vector(spectrum, budget):
    # Gauss: m nodes are exact for polynomials up to degree 2 m - 1, and for no more.
    matrix, num_steps = with_spectrum(spectrum) / 10, 4
    start = first_direction(120)
    quadrature = spectral_density(matrix, num_probes=1, num_steps=num_steps, generator=stream(), memory_budget=budget)
    power = start.clone()
    for order in range(2 * num_steps + 1):
        exact, found = (start @ power).item(), quadrature.moments(order).value
        if order < 2 * num_steps:
            assert found == pytest.approx(exact, rel=1e-10, abs=1e-12)
        else:
            assert found != pytest.approx(exact, rel=1e-10, abs=1e-12)
        power = matrix @ power


def test_moments_are_traces_of_powers():
    matrix = Counting(with_spectrum(FLAT))
    quadrature = spectral_density(matrix, num_probes=30, num_steps=6, generator=stream())
    assert quadrature.num_products == matrix.products == 180
    assert quadrature.nodes.shape == quadrature.weights.shape == (30, 6)
    torch.testing.assert_close(quadrature.weights.sum(dim=1), torch.ones(30, dtype=torch.float64))
    assert (quadrature.nodes.diff(dim=1) < 0).all()
    assert quadrature.moments(0).value == pytest.approx(1)
    assert quadrature.moments(0).standard_error == pytest.approx(0, abs=1e-12)
    for order in (1, 2, 3):
        moment = quadrature.moments(order)
        assert moment.num_products == 180
        assert 0 < moment.standard_error < 0.2 * (FLAT**order).mean()
        assert abs(moment.value - (FLAT**order).mean()) < 4 * moment.standard_error


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize(
    ("spectrum", "num_nodes"), [(np.zeros(40), 1), (np.full(40, 2.0), 1), ([5.0, *np.zeros(39)], 2), ([1.0, 2.0], 2)]
)
def test_a_probe_ends_with_what_its_vector_sees(spectrum, num_nodes, bounded):
    matrix = Counting(with_spectrum(spectrum))
    budget = least_budget(len(spectrum)) if bounded else None
    quadrature = spectral_density(matrix, num_probes=3, num_steps=6, generator=stream(), memory_budget=budget)
    assert quadrature.num_products == matrix.products == 3 * num_nodes
    assert (quadrature.weights[:, num_nodes:] == 0).all()
    torch.testing.assert_close(quadrature.weights.sum(dim=1), torch.ones(3, dtype=torch.float64))
    for order in (1, 2, 5):
        start = first_direction(len(spectrum))
        exact = (start @ torch.linalg.matrix_power(matrix.matrix, order) @ start).item()
        first = (quadrature.weights[0] * quadrature.nodes[0] ** order).sum().item()
        assert first == pytest.approx(exact, rel=1e-10, abs=1e-12)


def test_the_density_is_a_density_with_the_mean_and_spread_of_the_spectrum():
    quadrature = spectral_density(with_spectrum(FLAT), num_probes=20, num_steps=12, generator=stream())
    grid = torch.linspace(-4, 6, 4001, dtype=torch.float64)
    density = quadrature.density(grid, width=0.2)
    assert (density >= 0).all()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-9)
    mean = torch.trapezoid(density * grid, grid).item()
    assert mean == pytest.approx(quadrature.moments(1).value, abs=1e-9)
    # Smoothing adds its variance.
    second = torch.trapezoid(density * grid.square(), grid).item()
    assert second == pytest.approx(quadrature.moments(2).value + 0.2**2, abs=1e-9)


class Watched:
    """A diagonal operator that notes how many bytes of long vectors there are late in a probe."""

    def __init__(self, eigenvalues, dtype):
        self.eigenvalues = torch.from_numpy(eigenvalues).to(dtype)
        self.shape, self.dtype = (len(eigenvalues), len(eigenvalues)), dtype
        self.products = self.most = 0

    def __matmul__(self, vector):
        self.products += 1
        if self.products == 60:  # the last of the first probe
            held = {
                each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
                for each in gc.get_objects()
                if type(each) is torch.Tensor and self.shape[:1] == each.shape[-1:] and each is not self.eigenvalues
            }
            self.most = sum(held.values())
        return self.eigenvalues * vector


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_quadrature_within_a_budget_has_the_same_density_though_nodes_have_copies(dtype):
    # The largest eigenvalues converge within some ten of the 60 steps: rounding brings them back.
    eigenvalues = np.concatenate([[30.0, -20.0, 10.0], np.linspace(-1, 1, 5000)])
    settings = {"num_probes": 4, "num_steps": 60}
    whole, bounded = (Watched(eigenvalues, dtype) for _ in range(2))
    budget = least_budget(5003, dtype.itemsize)

    expected = spectral_density(whole, **settings, generator=stream())
    found = spectral_density(bounded, **settings, generator=stream(), memory_budget=budget)

    assert whole.most > 59 * 5003 * dtype.itemsize
    assert bounded.most <= budget
    assert ((found.nodes > 29.9).sum(dim=1) > 1).all()  # copies
    torch.testing.assert_close(found.weights.sum(dim=1), torch.ones(4, dtype=torch.float64))
    grid = torch.linspace(-25, 35, 601, dtype=torch.float64)
    torch.testing.assert_close(found.density(grid, 0.3), expected.density(grid, 0.3), rtol=0, atol=1e-5)
    for order in range(1, 8):
        assert found.moments(order).value == pytest.approx(expected.moments(order).value, rel=1e-4)


def test_a_quadrature_is_the_same_to_the_bit_where_all_vectors_fit():
    matrix = with_spectrum(FLAT)
    settings = {"num_probes": 2, "num_steps": 20}
    fitting = (20 + 9) * 120 * 8

    nodes = [
        spectral_density(matrix, **settings, generator=stream(), memory_budget=budget).nodes
        for budget in (None, fitting, fitting - 1)
    ]

    assert torch.equal(nodes[0], nodes[1])
    assert not torch.equal(nodes[0], nodes[2])


def test_a_budget_for_less_than_the_recurrence_is_refused():
    budget = least_budget(120)
    with pytest.raises(ValueError, match=rf"^memory_budget={budget - 1:,} bytes .* at least {budget:,} bytes$"):
        spectral_density(with_spectrum(FLAT), num_probes=1, num_steps=3, generator=stream(), memory_budget=budget - 1)


def test_one_value_is_a_gaussian_around_it():
    quadrature = spectral_density(torch.eye(30).double() * 3, num_probes=2, num_steps=5, generator=stream())
    grid = torch.linspace(2, 4, 11, dtype=torch.float64)
    expected = np.exp(-((grid.numpy() - 3) ** 2) / (2 * 0.3**2)) / (0.3 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(quadrature.density(grid, width=0.3).numpy(), expected, rtol=1e-10)


def test_the_density_of_a_gaussian_matrix_is_wigners_semicircle():
    size = 1000
    drawn = np.random.default_rng(0).standard_normal((size, size))
    matrix = torch.from_numpy((drawn + drawn.T) / np.sqrt(2 * size))
    quadrature = spectral_density(matrix, num_probes=20, num_steps=40, generator=stream())
    grid = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)
    width = 0.1

    # The semicircle on [-2, 2], smoothed by the same Gaussian.
    points = np.linspace(-2, 2, 4001)
    semicircle = np.sqrt(4 - points**2) / (2 * np.pi)
    gaussians = np.exp(-(((grid.numpy()[:, None] - points) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
    expected = np.trapezoid(gaussians * semicircle, points, axis=1)

    np.testing.assert_allclose(quadrature.density(grid, width).numpy(), expected, atol=0.03)
    # Catalan's numbers.
    for order, moment in ((1, 0), (2, 1), (3, 0), (4, 2)):
        assert quadrature.moments(order).value == pytest.approx(moment, abs=0.1)


def test_arrays_and_single_precision_give_the_same_estimates():
    matrix = with_spectrum(FLAT)
    for estimate in (
        lambda operator: trace(operator, num_products=20, generator=stream()).value,
        lambda operator: frobenius_norm(operator, num_products=20, generator=stream()).value,
        lambda operator: spectral_density(operator, num_probes=3, num_steps=5, generator=stream()).moments(4).value,
    ):
        exact = estimate(matrix)
        assert estimate(matrix.numpy()) == pytest.approx(exact, rel=1e-12)
        assert estimate(matrix.float()) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(
    ("estimate", "message"),
    [
        (lambda matrix: trace(matrix, num_products=1, generator=stream()), "num_products .*got 1"),
        (
            lambda matrix: squared_frobenius_norm(matrix, num_products=0, generator=stream()),
            "num_products .*got 0",
        ),
        (
            lambda matrix: spectral_density(matrix, num_probes=0, num_steps=1, generator=stream()),
            "num_probes .*got 0",
        ),
        (
            lambda matrix: spectral_density(matrix, num_probes=1, num_steps=0, generator=stream()),
            "num_steps .*got 0",
        ),
        (
            lambda matrix: spectral_density(matrix, num_probes=1, num_steps=1, generator=stream()).density(
                torch.zeros(1), width=0.0
            ),
            "width .*got 0.0",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(estimate, message):
    with pytest.raises(ValueError, match=message):
        estimate(torch.eye(5))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_product_that_is_not_finite_is_an_error(value):
    matrix = torch.eye(40) * value
    for estimate in (
        lambda: trace(matrix, num_products=6, generator=stream()),
        lambda: frobenius_norm(matrix, num_products=6, generator=stream()),
        lambda: spectral_density(matrix, num_probes=2, num_steps=3, generator=stream()),
    ):
        with pytest.raises(FloatingPointError, match=r"product 1 .*finite"):
            estimate()


@pytest.mark.parametrize("size", [6, 60])
@pytest.mark.parametrize("number", range(len(not_operators(torch.eye(2).double()))))
def test_what_is_no_symmetric_operator_is_refused(number, size):
    estimates = [
        lambda operator: trace(operator, num_products=24, generator=stream()),
        lambda operator: squared_frobenius_norm(operator, num_products=24, generator=stream()),
        lambda operator: spectral_density(operator, num_probes=2, num_steps=size - 1, generator=stream()),
        lambda operator: spectral_density(
            operator, num_probes=2, num_steps=size - 1, generator=stream(), memory_budget=least_budget(size)
        ),
    ]
    for estimate in estimates:
        operator, error, message = not_operators(with_spectrum(np.linspace(-1, 2, size)))[number]
        with pytest.raises(error, match=message):
            estimate(operator)


@pytest.mark.parametrize("number", [True, 2.5, None])
@pytest.mark.parametrize(
    ("estimate", "names"),
    [
        (trace, ["num_products"]),
        (squared_frobenius_norm, ["num_products"]),
        (frobenius_norm, ["num_products"]),
        (spectral_density, ["num_probes", "num_steps"]),
    ],
)
def test_numbers_that_are_not_whole_and_no_generator_are_refused(estimate, names, number):
    fitting = dict.fromkeys(names, 4)
    for name in names:
        with pytest.raises(TypeError, match=f"{name} .*{number}"):
            estimate(torch.eye(3), **{**fitting, name: number}, generator=stream())
    with pytest.raises(TypeError, match=r"^generator "):
        estimate(torch.eye(3), **fitting, generator=None)


def test_an_operator_that_uses_one_buffer_for_all_products_is_estimated_as_any_other():
    matrix = torch.randn(40, 40, generator=stream(), dtype=torch.float64)
    matrix = matrix + matrix.T

    class Reusing:
        shape, dtype, device = (40, 40), torch.float64, torch.device("cpu")
        buffer = torch.empty(40, dtype=torch.float64)

        def __matmul__(self, vector):
            return torch.mv(matrix, vector, out=self.buffer)

    one, other = (frobenius_norm(each, num_products=20, generator=stream()) for each in (Reusing(), matrix))
    assert one == other
