"""The gradient beside the step before, of a softmax regression whose gradient is known in closed form."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sharpness.data.datasets import Dataset, Split
from sharpness.hessian.loss import Loss, flatten
from sharpness.measurements.gradient_statistics import degrees_between
from sharpness.measurements.gradient_step import GradientStep
from sharpness.measurements.landscape import Landscape
from sharpness.training.checkpoints import Snapshot

SETTINGS = GradientStep(loss_examples=20)


@pytest.fixture
def regression(run):
    """A softmax regression on 30 examples of 6 numbers in 3 classes, and its gradient on the first 20."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(30, 1, 2, 3, generator=generator)
    targets = torch.randint(3, (30,), generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    split = Split(inputs, targets)

    def gradient(weights):
        """The mean of (p - y) xᵀ, the bias's last, in float64."""
        matrix, bias = weights[:18].double().reshape(3, 6), weights[18:].double()
        images = inputs[:20].double().flatten(1)
        excess = torch.softmax(images @ matrix.T + bias, dim=1) - nn.functional.one_hot(targets[:20], 3)
        return torch.cat([(excess.T @ images / 20).flatten(), excess.mean(dim=0)])

    weights, buffers = flatten(model)
    landscape = Landscape(replace(run, num_training=30), Loss(model, l2=0.0), Dataset(split, split, split, 3))
    return landscape, Snapshot(7, weights.detach(), buffers, 0.1), gradient


def test_the_norm_and_the_angle_are_those_of_the_closed_form(regression):
    landscape, before, gradient = regression
    moved = before.weights + torch.randn(21, generator=torch.Generator().manual_seed(1))
    here = replace(before, step=9, weights=moved)
    expected, step = gradient(moved), (moved - before.weights).double()

    (row,) = SETTINGS.rows(landscape, here, before)

    assert row["gradient_norm"] == pytest.approx(float(expected.norm()), rel=1e-5)
    assert row["step_norm"] == pytest.approx(float(step.norm()), rel=1e-5)
    cosine = float(expected @ step / expected.norm() / step.norm())
    assert row["angle"] == pytest.approx(math.degrees(math.acos(cosine)), rel=1e-5)
    assert row["since_step"] == 7


@pytest.mark.parametrize(("rate", "angle"), [(-0.01, 0.0), (0.01, 180.0)])
def test_a_step_of_sgd_so_short_that_the_gradient_stays_is_at_180_degrees(regression, rate, angle):
    landscape, before, gradient = regression
    here = replace(before, step=8, weights=before.weights - rate * gradient(before.weights).float())
    (row,) = SETTINGS.rows(landscape, here, before)
    assert row["angle"] == pytest.approx(angle, abs=1.0)


def test_the_first_checkpoint_and_one_that_did_not_move_have_no_angle(regression):
    landscape, before, gradient = regression
    (first,) = SETTINGS.rows(landscape, before, None)
    assert first["gradient_norm"] == pytest.approx(float(gradient(before.weights).norm()), rel=1e-5)
    assert first["step_norm"] is first["angle"] is first["since_step"] is None
    (still,) = SETTINGS.rows(landscape, replace(before, step=8), before)
    assert still["step_norm"] == 0
    assert math.isnan(still["angle"])


def test_its_work_is_the_gradient_in_mini_batches(run):
    assert SETTINGS.work(run).gradients == 5  # of 4 examples
    assert SETTINGS.work(run).products == ()


@given(degrees=st.floats(0, 180), size=st.integers(2, 5), length=st.floats(1e-3, 1e3))
def test_the_angle_between_two_vectors_of_any_length(degrees, size, length):
    first, second = torch.zeros(2, size, dtype=torch.float64)
    first[0] = 1
    second[0], second[1] = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    assert degrees_between(first, length * second) == pytest.approx(degrees, abs=1e-9)
    assert degrees_between(length * second, -first) == pytest.approx(180 - degrees, abs=1e-9)
