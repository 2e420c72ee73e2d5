"""The gradient beside the curvature, against dense matrices, closed forms and identities."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpness.eigen.vectors import subspace_overlap
from sharpness.hessian.loss import Loss, flatten
from sharpness.hessian.operator import HessianOperator, HessianProduct
from sharpness.measurements.gradient_statistics import (
    batch_sharpness,
    fraction_inside,
    gradient_noise,
)

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


def orthonormal(generator: torch.Generator, count: int, size: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(size, count, generator=generator, dtype=torch.float64)).Q.T


def test_the_fraction_inside_is_the_squared_cosine_of_one_direction():
    directions = torch.tensor([[0.6, 0.8, 0.0]])
    assert fraction_inside(torch.tensor([3.0, 4.0, 12.0]), directions) == pytest.approx(25 / 169)
    assert fraction_inside(torch.tensor([-4.0, 3.0, 1.0]), directions) == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(fraction_inside(torch.zeros(3), directions))


@given(st.integers(0, 2**30), st.integers(1, 6), st.integers(0, 6))
def test_the_fractions_inside_and_outside_add_up_to_one(seed, count, more):
    generator = torch.Generator().manual_seed(seed)
    rows = orthonormal(generator, count + more, count + more)
    gradient = torch.randn(count + more, generator=generator, dtype=torch.float64)

    whole = fraction_inside(gradient, rows[:count]) + fraction_inside(gradient, rows[count:])

    assert whole == pytest.approx(1.0)


@given(st.integers(0, 2**30), st.integers(1, 4))
def test_the_overlap_is_the_mean_squared_cosine_of_the_angles_between_two_subspaces(seed, count):
    generator = torch.Generator().manual_seed(seed)
    one, other = (orthonormal(generator, count, 9) for _ in range(2))
    cosines = np.linalg.svd(one.numpy() @ other.numpy().T, compute_uv=False)
    turned = orthonormal(generator, count, count) @ one

    assert subspace_overlap(one, other) == pytest.approx((cosines**2).mean())
    assert subspace_overlap(one, turned) == pytest.approx(1.0)
    assert subspace_overlap(one, -one) == pytest.approx(1.0)


@given(st.integers(0, 2**30), st.integers(2, 12), st.integers(2, 8))
def test_the_noise_is_that_of_the_dense_covariance(seed, count, size):
    gradients = torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    dense = np.cov(gradients.numpy().T)

    noise = gradient_noise(gradients)

    assert noise.largest == pytest.approx(np.linalg.eigvalsh(dense)[-1], rel=1e-9)
    assert noise.trace == pytest.approx(np.trace(dense), rel=1e-9)
    assert noise.trace_error >= 0


def test_equal_gradients_have_no_noise():
    noise = gradient_noise(torch.ones(5, 3))
    assert (noise.largest, noise.trace, noise.trace_error) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)


def test_the_error_of_the_trace_is_its_spread_over_repetitions():
    generator = torch.Generator().manual_seed(0)
    noises = [gradient_noise(torch.randn(30, 4, generator=generator)) for _ in range(400)]

    traces, errors = (np.array([getattr(noise, name) for noise in noises]) for name in ("trace", "trace_error"))

    assert traces.mean() == pytest.approx(4.0, abs=4 * traces.std() / 20)
    assert np.sqrt((errors**2).mean()) == pytest.approx(traces.std(), rel=0.15)


def test_batch_sharpness_is_the_mean_rayleigh_quotient_with_its_standard_error():
    hessians = [torch.diag(torch.tensor(values)) for values in ([1.0, 3.0], [2.0, 2.0], [0.0, 5.0])]
    gradients = [torch.tensor([2.0, 0.0]), torch.tensor([1.0, 7.0]), torch.tensor([3.0, 4.0])]
    quotients = np.array([1.0, 2.0, 16 * 5 / 25])

    found = batch_sharpness((g, h @ g) for g, h in zip(gradients, hessians, strict=True))

    assert found.value == pytest.approx(quotients.mean())
    assert found.standard_error == pytest.approx(quotients.std(ddof=1) / np.sqrt(3))


@pytest.mark.parametrize("network", ["conv", "residual"])
def test_batch_sharpness_of_a_network_is_that_of_its_dense_hessians(problem, network):
    whole = problem(network, num_examples=12, l2=0.01)
    weights, buffers = flatten(whole.model)
    loss = Loss(whole.model, l2=0.01)
    parts = [whole.part(inputs=whole.inputs[i::3], targets=whole.targets[i::3]) for i in range(3)]
    dense = [(part.gradient(weights), part.hessian(weights)) for part in parts]
    expected = np.mean([float(g @ h @ g / (g @ g)) for g, h in dense])

    found = batch_sharpness(
        (gradient, HessianOperator.at(HessianProduct(loss), weights, buffers, *examples) @ gradient)
        for examples in [(part.inputs, part.targets) for part in parts]
        for gradient in [loss.gradient(weights, buffers, *examples)]
    )

    assert found.value == pytest.approx(expected, rel=1e-9)


def test_the_limit_of_stability_on_a_quadratic_loss_is_met_where_the_curvature_says_so():
    """On one batch, along one eigenvector, Batch Sharpness is the eigenvalue: full-batch gradient descent's limit."""
    hessian = torch.diag(torch.tensor([4.0, 1.0]))
    gradient = torch.tensor([3.0, 0.0])
    found = batch_sharpness([(gradient, hessian @ gradient)] * 2)
    assert (found.value, found.standard_error) == pytest.approx((4.0, 0.0))


@pytest.mark.parametrize("measure", [lambda one: gradient_noise(one), lambda one: batch_sharpness([(one[0], one[0])])])
def test_one_mini_batch_says_nothing_of_the_noise(measure):
    with pytest.raises(ValueError, match="at least 2"):
        measure(torch.ones(1, 3))
