"""The loss along a direction and after scaled steps, against quadratics worked out by hand."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from sharpness.eigen.lanczos import top_eigenpairs
from sharpness.hessian.loss import Loss, flatten
from sharpness.measurements.along import ScaledStep, after_step, expected_step, losses_along
from sharpness.measurements.bracket import elsewhere
from sharpness.measurements.slices import Slices

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


def test_losses_along_a_line_through_a_quadratic_are_a_parabola():
    def loss(w):
        return 2 * w[0] ** 2 + 3 * w[1] ** 2 + w[0] * w[1] - w[1]

    weights, direction = torch.tensor([1.0, 2.0]), torch.tensor([1.0, -1.0])
    scales = [-2.0, -0.5, 0.0, 0.25, 3.0]
    # 2 (1 + k)^2 + 3 (2 - k)^2 + (1 + k)(2 - k) - (2 - k) = 14 - 6 k + 4 k^2
    expected = torch.tensor([14 - 6 * k + 4 * k**2 for k in scales])

    losses = losses_along(loss, weights, direction, scales)

    torch.testing.assert_close(losses, expected)
    assert torch.equal(weights, torch.tensor([1.0, 2.0]))


def test_near_zero_the_slice_of_a_network_bends_by_its_eigenvalue(problem):
    plain = problem("residual", l2=0.01)
    weights, buffers = flatten(plain.model)
    dense = plain.hessian(weights)
    generator = torch.Generator().manual_seed(0)
    pairs = top_eigenpairs(dense, num_pairs=1, tolerance=1e-10, max_products=len(dense), generator=generator)
    loss, k, direction = Loss(plain.model, l2=0.01), 1e-4, pairs.eigenvectors[0]

    below, at, above = losses_along(
        lambda weights: loss.value(weights, buffers, plain.inputs, plain.targets), weights, direction, [-k, 0.0, k]
    )

    eigenvalue = torch.linalg.eigvalsh(dense)[-1].item()
    assert (((above + below) / 2 - at) / k**2).item() == pytest.approx(0.5 * eigenvalue, rel=1e-5)
    assert ((above - below) / (2 * k)).item() == pytest.approx((plain.gradient(weights) @ direction).item(), rel=1e-5)


def test_the_expected_step_averages_lengths_and_not_signed_steps():
    direction = torch.tensor([0.6, 0.8])
    gradients = [torch.tensor([5.0, 0.0]), torch.tensor([0.0, -10.0]), torch.tensor([0.8, -0.6])]  # 3, -8, 0
    assert expected_step(gradients, direction, learning_rate=0.5) == pytest.approx(0.5 * 11 / 3)
    assert expected_step(gradients, -direction, learning_rate=0.5) == pytest.approx(0.5 * 11 / 3)


def test_a_step_along_a_direction_takes_only_its_part_of_the_gradient():
    weights, gradient = torch.tensor([1.0, 1.0]), torch.tensor([10.0, 5.0])
    step = ScaledStep(torch.tensor([0.6, 0.8]), alpha=2.0)  # <gradient, direction> = 10
    expected = torch.tensor([1 - 2 * 0.1 * 10 * 0.6, 1 - 2 * 0.1 * 10 * 0.8])
    torch.testing.assert_close(after_step(weights, gradient, step, learning_rate=0.1), expected)
    opposite = ScaledStep(-torch.tensor([0.6, 0.8]), alpha=2.0)
    torch.testing.assert_close(after_step(weights, gradient, opposite, learning_rate=0.1), expected)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0, 4.0])
def test_a_full_step_is_a_scaled_step_of_sgd(alpha):
    weights, gradient = torch.tensor([1.0, 1.0]), torch.tensor([10.0, 5.0])
    parameter = torch.nn.Parameter(weights.clone())
    parameter.grad = gradient
    torch.optim.SGD([parameter], lr=0.1 * alpha).step()
    after = after_step(weights, gradient, ScaledStep(None, alpha), learning_rate=0.1)
    torch.testing.assert_close(after, parameter.detach())
    assert torch.equal(weights, torch.ones(2))


@pytest.mark.parametrize("eigenvalue", [-3.0, 0.5, 8.0])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_steps_along_an_eigenvector_change_a_quadratic_as_worked_out(eigenvalue, alpha):
    # L = w' A w / 2 with A v = λ v: the step changes L by (η α g)^2 λ / 2 - η α g^2, with g = λ <v, w>.
    basis = torch.linalg.qr(torch.tensor([[1.0, 2, 0], [0, 1, 4], [3, 0, 1]], dtype=torch.float64))[0]
    matrix = basis @ torch.diag(torch.tensor([eigenvalue, 1.0, 2.0], dtype=torch.float64)) @ basis.T
    weights, direction = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64), basis[:, 0].contiguous()
    g = eigenvalue * (direction @ weights).item()

    after = after_step(weights, matrix @ weights, ScaledStep(direction, alpha), learning_rate=0.1)

    change = ((after @ matrix @ after) - (weights @ matrix @ weights)).item() / 2
    assert change == pytest.approx((0.1 * alpha * g) ** 2 * eigenvalue / 2 - 0.1 * alpha * g**2)


def rows_of_slices(value, *, unit="step", outside=None, examples_per_step=1, drawn_from=None):
    """The slice of a loss ``value(weights)`` whose gradient is one in the first direction, the sharpest."""
    loss = SimpleNamespace(
        gradient=lambda *_: torch.tensor([1.0, 0.0]), value=lambda weights, *_: torch.tensor(value(weights))
    )
    pairs = SimpleNamespace(eigenvectors=torch.eye(2), eigenvalues=torch.tensor([3.0]), residuals=torch.tensor([0.0]))

    def batches(_, *, num_examples):
        if drawn_from is not None:
            drawn_from.append(num_examples)
        return itertools.repeat(())

    landscape = SimpleNamespace(
        run=SimpleNamespace(examples_per_step=examples_per_step),
        loss=loss,
        sharpest=lambda *_: pairs,
        batches=batches,
        first_examples=lambda _: (),
        elsewhere=lambda *_, **__: outside,
    )
    checkpoint = SimpleNamespace(step=0, weights=torch.zeros(2), buffers=torch.zeros(0), learning_rate=0.5)
    settings = Slices(
        num_examples=1,
        tolerance=0.1,
        max_products=1,
        loss_examples=1,
        num_batches=1,
        scales=[-2.0, 0.0, 2.0],
        unit=unit,
    )
    return list(settings.rows(landscape, checkpoint, None))


@pytest.mark.parametrize(("examples_per_step", "among"), [(1, 1), (3000, 3000)])
def test_mini_batches_have_the_size_of_the_runs_even_where_the_loss_is_of_fewer_examples(examples_per_step, among):
    drawn_from = []
    rows_of_slices(lambda _: 1.0, examples_per_step=examples_per_step, drawn_from=drawn_from)
    assert drawn_from == [among]


def test_a_checkpoint_whose_own_loss_is_lost_is_lost_as_a_whole():
    with pytest.raises(FloatingPointError, match="loss is not finite"):
        rows_of_slices(lambda weights: float("inf") if weights[0] == 0 else 1.0)


def test_a_loss_that_overflows_far_out_is_a_measured_one():
    # Against the gradient, by half a step of length 0.5 for each k.
    rows = rows_of_slices(lambda weights: float("inf") if weights[0] > 0 else 1.0 + float(weights[0].abs()))
    assert [(row["k"], row["loss"]) for row in rows] == [(-2.0, float("inf")), (0.0, 1.0), (2.0, 2.0)]


@pytest.mark.parametrize(("unit", "k", "distance"), [("step", 2.0, 1.0), ("weights", 4.0, 2.0)])
def test_places_are_told_in_expected_steps_and_in_distance(unit, k, distance):
    # The expected step along the sharpest direction is 0.5; downhill is against the gradient.
    *_, row = rows_of_slices(lambda weights: 3.0 + float(weights[0]), unit=unit)
    assert (row["k"], row["distance"], row["scale"]) == (k, distance, 0.5)
    assert row["loss"] == 3.0 - distance


def test_a_slice_has_the_curvature_of_its_eigenvector_elsewhere():
    outside = elsewhere([torch.diag(torch.tensor([4.0, 0.0]))] * 2, torch.eye(2)[:1], fraction=0.5, num_examples=24)
    assert {(row["elsewhere"], row["elsewhere_error"]) for row in rows_of_slices(lambda _: 1.0, outside=outside)} == {
        (4.0, 0.0)
    }
