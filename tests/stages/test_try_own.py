"""What a user's own network and loss are refused for before anything trains."""

from __future__ import annotations

import re
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import yaml

from sharpness.runtime.definitions import OwnError
from sharpness.stages.prepare_data import prepare_data
from sharpness.stages.try_own import try_own
from sharpness.study.trial import trial_of

NETWORK = """
import torch
from torch import nn


class Alone(nn.Linear):
    def __init__(self):
        super().__init__(6, 3)
        self.register_buffer("count", torch.zeros(()))


class CountingInTraining(Alone):
    def forward(self, inputs):
        if self.training:
            self.count += 1
        return super().forward(inputs)


class Counting(Alone):
    def forward(self, inputs):
        self.count += 1
        return super().forward(inputs)


class Mixing(Alone):
    def forward(self, inputs):
        return super().forward(inputs - inputs.mean(0))
"""
LOSS = """
import torch
from torch.nn.functional import cross_entropy


def alone(outputs, targets):
    return cross_entropy(outputs, targets, reduction="none")


def shared(outputs, targets):
    return cross_entropy(outputs, targets, reduction="sum").expand(len(outputs))


def normalised(outputs, targets):
    terms = cross_entropy(outputs, targets, reduction="none")
    return terms / terms.sum()


def lost(outputs, targets):
    return alone(outputs, targets) * float("nan")


def noisy(outputs, targets):
    return alone(outputs + torch.randn_like(outputs), targets)
"""


@pytest.fixture
def tried(own_folder, run):
    """Try a class of networks with a loss; returns what was written down."""
    generator = np.random.default_rng(0)
    (own_folder / "nets.py").write_text(textwrap.dedent(NETWORK))
    (own_folder / "losses.py").write_text(textwrap.dedent(LOSS))
    np.savez(own_folder / "blobs.npz", inputs=generator.normal(size=(40, 6)), targets=np.arange(40) % 3)
    prepare_data("blobs.npz", own_folder / "prepared.safetensors")

    def made(network="Alone", loss="cross_entropy"):
        loss = loss if loss == "cross_entropy" else f"losses.py:{loss}"
        asked = trial_of(replace(run, data="blobs.npz", model=f"nets.py:{network}", num_training=30, loss=loss))
        try_own(asked, own_folder / "prepared.safetensors", own_folder / "trial.yaml")
        return yaml.safe_load((own_folder / "trial.yaml").read_text())

    return made


@pytest.mark.parametrize("network", ["Alone", "CountingInTraining"])
@pytest.mark.parametrize("loss", ["cross_entropy", "alone"])
def test_a_function_of_the_weights_is_written_down(tried, network, loss):
    told = tried(network, loss)
    assert told["num_parameters"] == 21
    assert abs(told["initial_loss"] - np.log(3)) < 0.5


REFUSED = {
    ("Counting", "cross_entropy"): "an evaluation changes the buffer count",
    ("Mixing", "cross_entropy"): "in evaluation the output of an example depends on the other examples",
    ("Alone", "shared"): "the loss of an example depends on the other examples",
    ("Alone", "normalised"): "the loss of an example depends on the other examples",
    ("Alone", "lost"): "the loss before training is nan",
    ("Alone", "noisy"): "nets.py:Alone with losses.py:noisy is random in training",
}


@pytest.mark.parametrize(("network", "loss"), REFUSED)
def test_what_is_no_mean_over_examples_of_a_function_of_the_weights_is_refused(tried, network, loss):
    with pytest.raises(OwnError, match=re.escape(REFUSED[network, loss])):
        tried(network, loss)
