"""The update inside and outside a subspace equals its formula, and plain SGD is one case of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpness.measurements.along import expected_step
from sharpness.training.nudge import nudge, project

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


@st.composite
def updates_with_directions(draw):
    """An update [P] and orthonormal rows [K, P], K up to P, in double precision."""
    size = draw(st.integers(1, 12))
    num_directions = draw(st.integers(1, size))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    basis, _ = np.linalg.qr(numbers.standard_normal((size, size)))
    return torch.from_numpy(numbers.standard_normal(size)), torch.from_numpy(basis[:, :num_directions].T.copy())


factors = st.floats(-2, 8)
cases = settings(max_examples=60)


@cases
@given(updates_with_directions(), st.sampled_from([torch.float32, torch.float64]), st.sampled_from([1e-20, 1.0, 1e20]))
def test_factors_of_one_give_the_update_bit_for_bit(case, dtype, size):
    update, directions = (case[0] * size).to(dtype), case[1].to(dtype)
    assert torch.equal(nudge(update, directions, gamma=1.0, gamma_outside=1.0), update)


@cases
@given(updates_with_directions(), factors, factors)
def test_equals_the_formula_with_the_projector_written_out(case, gamma, gamma_outside):
    update, directions = case
    projector = directions.numpy().T @ directions.numpy()
    expected = (gamma * projector + gamma_outside * (np.eye(len(update)) - projector)) @ update.numpy()
    nudged = nudge(update, directions, gamma=gamma, gamma_outside=gamma_outside)
    np.testing.assert_allclose(nudged.numpy(), expected, rtol=0, atol=1e-12)


@cases
@given(updates_with_directions(), factors)
def test_every_variant_is_the_update_that_its_name_says(case, gamma):
    gradient, directions = case
    along = sum((gradient @ row) * row for row in directions)  # one direction after another
    variants = {
        "sgd": ((1.0, 1.0), gradient),
        "top_only": ((1.0, 0.0), along),
        "top_removed": ((0.0, 1.0), gradient - along),
        "scaled": ((gamma, 1.0), gradient - along + gamma * along),
    }
    for name, ((inside, outside), expected) in variants.items():
        nudged = nudge(gradient, directions, gamma=inside, gamma_outside=outside)
        torch.testing.assert_close(nudged, expected, rtol=0, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


@cases
@given(updates_with_directions())
def test_the_projection_is_idempotent_orthogonal_and_inside(case):
    vector, directions = case
    inside = project(vector, directions)
    torch.testing.assert_close(project(inside, directions), inside, rtol=0, atol=1e-12)
    np.testing.assert_allclose((directions @ (vector - inside)).numpy(), 0, atol=1e-12)
    assert inside.square().sum() + (vector - inside).square().sum() == pytest.approx(vector.square().sum().item())
    # Inside the span: a least-squares fit by the directions leaves nothing.
    fit, *_ = np.linalg.lstsq(directions.numpy().T, inside.numpy(), rcond=None)
    np.testing.assert_allclose(directions.numpy().T @ fit, inside.numpy(), atol=1e-12)


@cases
@given(updates_with_directions())
def test_signs_of_the_directions_do_not_matter(case):
    update, directions = case
    flipped = directions * torch.where(torch.arange(len(directions)) % 2 == 0, -1.0, 1.0)[:, None]
    one, other = (nudge(update, rows, gamma=0.1, gamma_outside=1.0) for rows in (directions, flipped))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


def test_directions_that_span_everything_scale_everything():
    update = torch.tensor([1.0, -2.0, 3.0])
    assert torch.equal(nudge(update, torch.eye(3), gamma=0.5, gamma_outside=1.0), 0.5 * update)


def test_the_update_given_is_not_changed():
    update, directions = torch.ones(3), torch.eye(3)[:1]
    nudge(update, directions, gamma=0.0, gamma_outside=1.0)
    assert torch.equal(update, torch.ones(3))


def test_what_is_left_of_a_long_update_inside_is_right_to_single_precision():
    # As long as VGG-11's weights: what matrix products sum in one piece is off by some 1e-3 there.
    row = torch.randn(9_000_000, generator=torch.Generator().manual_seed(0))
    row /= torch.linalg.vector_norm(row, dtype=torch.float64).float()

    def inside(vector):
        return float(row.double() @ vector.double())

    assert inside(nudge(5 * row, row[None], gamma=0.01, gamma_outside=1.0)) == pytest.approx(0.05, rel=1e-4)
    assert inside(project(5 * row, row[None])) == pytest.approx(5, rel=1e-6)
    assert expected_step([5 * row, -5 * row], row, learning_rate=0.1) == pytest.approx(0.5, rel=1e-6)
