"""Colours of settings."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from sharpness.analysis.figures.palette import LIGHTEST, SCALES, colour_of


def luminance(colour):
    """Relative luminance, as the Web Content Accessibility Guidelines define it."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("learning_rate", (0.001, 0.01, 0.1)),
        ("learning_rate", (0.005, 0.01, 0.03, 0.1)),
        ("learning_rate", (0.02, 0.05, 0.1)),
        ("batch_size", ("8", "32", "128", "1024", "full")),
        ("gamma", (0.01, 0.1, 1, 5, 10)),
    ],
)
def test_values_of_one_study_can_be_told_apart(setting, values):
    colours = [to_rgb(colour_of(setting, value)) for value in values]
    assert min(np.linalg.norm(np.subtract(a, b)) for a, b in itertools.combinations(colours, 2)) > 0.13


@given(st.floats(1e-6, 10), st.floats(1e-6, 10))
def test_a_larger_rate_or_batch_is_lighter(first, second):
    for setting, unit in (("learning_rate", 1), ("batch_size", 1000)):
        dark, light = (colour_of(setting, unit * value) for value in sorted((first, second)))
        assert luminance(dark) <= luminance(light) + 0.01


@pytest.mark.parametrize("setting", SCALES)
@pytest.mark.parametrize("value", [1e-9, 1e-3, 1, 1e9])
def test_no_value_is_too_light_for_a_white_page(setting, value):
    assert luminance(colour_of(setting, value)) < luminance("#B5DE2B")  # viridis at 0.88
    assert 0 < LIGHTEST < 0.88


def test_a_batch_size_is_a_number_or_its_text():
    assert colour_of("batch_size", 128) == colour_of("batch_size", "128") != colour_of("batch_size", "full")
