"""Inner products of vectors as long as a large network's weights, against double precision."""

import pytest
import torch

from sharpness.eigen.lanczos import follow_eigenpairs, top_eigenpairs
from sharpness.eigen.vectors import along_rows, inner_product, orthonormal_outside

LONG = 6_000_000


@pytest.fixture(autouse=True)
def one_thread():
    """Sums of several threads are shorter."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def rows():
    return torch.randn(3, LONG, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("number", [None, 1, 3])
def test_inner_products_of_long_vectors_are_right_to_single_precision(rows, number):
    others = rows[0] if number is None else rows[:number]
    expected = rows.double() @ others.double().T if number else rows.double() @ others.double()

    found = along_rows(rows, others)

    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * LONG)
    assert inner_product(rows[0], rows[0]) == pytest.approx(float(rows[0].double().square().sum()), rel=1e-6)


def test_those_of_short_vectors_have_the_bits_of_one_product(rows):
    few = rows[:, :300_000]
    assert torch.equal(along_rows(few, few), few @ few.T)
    assert torch.equal(along_rows(few, few[0]), few @ few[0])
    assert inner_product(few[0], few[1]) == float(few[0] @ few[1])


def test_long_vectors_are_made_orthogonal(rows):
    (first,) = orthonormal_outside(torch.zeros(0, LONG), rows[:1])
    (second,) = orthonormal_outside(first[None], rows[1:2] + 100 * first)
    assert abs(float(first.double() @ second.double())) < 1e-6


class Diagonal:
    """A diagonal operator that counts its products."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, values):
        self.values, self.shape, self.calls = values, (len(values), len(values)), 0

    def __matmul__(self, vector):
        self.calls += 1
        return self.values * vector


@pytest.mark.slow
def test_eigenpairs_of_a_large_network_s_size_converge():
    """With sums from end to end, residuals stay at 3e-3 whatever the number of products."""
    largest = torch.tensor([52.0, 25.0, 19.0, 16.5, 15.5])
    values = 0.01 * torch.rand(LONG, generator=torch.Generator().manual_seed(1))
    values[:5] = largest
    operator = Diagonal(values)

    pairs = top_eigenpairs(operator, 5, tolerance=1e-4, generator=torch.Generator().manual_seed(2))

    assert pairs.converged
    assert operator.calls < 40
    torch.testing.assert_close(pairs.eigenvalues, largest.double(), rtol=1e-4, atol=0)
    unit = torch.eye(5).double()
    torch.testing.assert_close(pairs.eigenvectors[:, :5].double().abs(), unit, rtol=0, atol=1e-3)
    moved = Diagonal(values + 0.001)
    followed = follow_eigenpairs(moved, pairs.eigenvectors, tolerance=1e-4, max_products=5)
    torch.testing.assert_close(followed.eigenvalues, largest.double() + 0.001, rtol=1e-4, atol=0)
