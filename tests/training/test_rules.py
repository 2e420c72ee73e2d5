"""Optimizers: each step against torch's own, alone and nudged, and the rates of a schedule."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from sharpness.hessian.loss import Loss, flatten
from sharpness.hessian.preconditioner import inverse_root
from sharpness.study.optimizers import OPTIMIZERS, RateSchedule, filled
from sharpness.training.descent import Descent
from sharpness.training.nudge import nudge
from sharpness.training.rules import denominator

RATE = 0.05
SETTINGS = {
    "nesterov": {"momentum": 0.8},
    "adam": {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3},
    "adamw": {"weight_decay": 0.3},
    "rmsprop": {"decay": 0.9, "momentum": 0.7},
}
TORCHS = {
    "nesterov": lambda weights: torch.optim.SGD(weights, RATE, momentum=0.8, nesterov=True),
    "adam": lambda weights: torch.optim.Adam(weights, RATE, betas=(0.8, 0.95), eps=1e-3),
    "adamw": lambda weights: torch.optim.AdamW(weights, RATE, weight_decay=0.3),
    "rmsprop": lambda weights: torch.optim.RMSprop(weights, RATE, alpha=0.9, momentum=0.7),
}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(12):
        yield torch.randn(6, 4, generator=generator).double(), torch.randint(3, (6,), generator=generator)


def descent_of(network, name):
    told = {"name": name, **filled({"name": name, **SETTINGS[name]}, OPTIMIZERS)}
    return Descent(Loss(network, l2=0.0), *flatten(network), learning_rate=RATE, momentum=0.0, optimizer=told)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_optimizer_takes_the_steps_of_torchs(network, name):
    descent, theirs = descent_of(network, name), TORCHS[name](network.parameters())
    for inputs, targets in batches():
        descent.step(inputs, targets, None, gamma=1, gamma_outside=1)
        theirs.zero_grad()
        functional.cross_entropy(network(inputs), targets).backward()
        theirs.step()
        torch.testing.assert_close(descent.weights, flatten(network)[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_velocity_is_nudged_and_the_state_is_not(network, name):
    plain, nudged = descent_of(network, name), descent_of(network, name)
    directions = torch.linalg.qr(torch.randn(len(plain.weights), 2).double())[0].T
    (inputs, targets), start = next(batches()), plain.weights.clone()
    plain.step(inputs, targets, None, gamma=1, gamma_outside=1)
    nudged.step(inputs, targets, directions, gamma=0.1, gamma_outside=1)

    velocity = plain.weights - start
    expected = nudge(velocity, directions, gamma=0.1, gamma_outside=1)
    torch.testing.assert_close(nudged.weights - start, expected)
    for key, tensor in plain.rule.state.items():
        assert torch.equal(tensor, nudged.rule.state[key])


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_a_checkpoint_has_what_the_last_update_was_divided_by(network, name):
    """As the preconditioner of torch's own optimizer, which made the same steps."""
    descent, theirs = descent_of(network, name), TORCHS[name](network.parameters())
    assert descent.snapshot(0).second_moment is None
    for number, (inputs, targets) in enumerate(batches(), start=1):
        descent.step(inputs, targets, None, gamma=1, gamma_outside=1)
        theirs.zero_grad()
        functional.cross_entropy(network(inputs), targets).backward()
        theirs.step()
        snapshot = descent.snapshot(number)
        layout = descent.loss.layout
        expected = inverse_root(theirs, network, layout, torch.float64, torch.device("cpu"))
        told = {"name": name, **filled({"name": name, **SETTINGS[name]}, OPTIMIZERS)}
        found = denominator(told, snapshot.second_moment, snapshot.step)
        torch.testing.assert_close(found.rsqrt(), expected, rtol=1e-9, atol=0)
    kept = snapshot.second_moment.clone()
    descent.step(inputs, targets, None, gamma=1, gamma_outside=1)
    assert torch.equal(snapshot.second_moment, kept)  # a copy, and no view of what goes on


@pytest.mark.parametrize("name", ["nesterov"])
def test_an_optimizer_that_divides_by_nothing_leaves_no_second_moment(network, name):
    descent = descent_of(network, name)
    descent.step(*next(batches()), None, gamma=1, gamma_outside=1)
    assert descent.snapshot(1).second_moment is None


def test_every_optimizer_beside_sgd_and_heavy_ball_is_tried():
    assert set(SETTINGS) == set(TORCHS) == set(OPTIMIZERS) - {"sgd", "heavy_ball"}


@pytest.mark.parametrize("name", ["constant", "cosine", "linear"])
def test_rates_rise_by_equal_steps_and_then_fall_to_their_end(name):
    told = {"name": name, "warmup": 0.5} | ({} if name == "constant" else {"end": 0.1})
    rates = RateSchedule.of(told, steps_per_epoch=8, epochs=3)
    factors = [rates.factor(step) for step in range(25)]

    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1
    halfway = {"constant": 1.0, "cosine": 0.55, "linear": 0.55}[name]
    assert math.isclose(factors[14], halfway)
    assert math.isclose(factors[24], 1.0 if name == "constant" else 0.1)


def test_without_a_schedule_the_rate_is_the_same_to_the_bit():
    rates = RateSchedule.of({}, steps_per_epoch=8, epochs=3)
    assert {rates.factor(step) for step in range(24)} == {1.0}
