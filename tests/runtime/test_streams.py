"""One random stream for each purpose, and none of them is the global one."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpness.runtime.streams import stream

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


def draw(seed, purpose):
    return torch.randn(50, generator=stream(seed, purpose))


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.text(max_size=20))
def test_the_same_purpose_gives_the_same_numbers(seed, purpose):
    assert torch.equal(draw(seed, purpose), draw(seed, purpose))
    assert stream(seed, purpose).device == torch.device("cpu")


def test_another_purpose_or_seed_gives_other_numbers():
    purposes = ["weights", "order of epoch 1", "order of epoch 11", "lanczos at step 0", ""]
    drawn = [draw(seed, purpose) for seed in (0, 1, 11) for purpose in purposes]
    for one, other in itertools.combinations(drawn, 2):
        assert not torch.isin(one, other).any()


def test_drawing_from_one_stream_shifts_no_other():
    first, second = stream(0, "weights"), stream(0, "order of epoch 1")
    torch.randn(1000, generator=first)
    assert torch.equal(torch.randn(50, generator=second), draw(0, "order of epoch 1"))


def test_numbers_of_different_streams_are_uncorrelated():
    numbers = torch.stack([torch.randn(10_000, generator=stream(0, f"order of epoch {epoch}")) for epoch in range(20)])
    off_diagonal = torch.corrcoef(numbers) - torch.eye(20)
    assert off_diagonal.abs().max() < 5 / 10_000**0.5  # five standard errors, of 190 pairs
    assert numbers.mean(dim=1).abs().max() < 5 / 10_000**0.5
