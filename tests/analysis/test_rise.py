"""The distance of a rise, by closed forms and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpness.analysis.rise import RISE, distance_of_rise


@given(st.floats(0.1, 100), st.floats(-2, 2))
def test_a_parabola_has_risen_where_its_closed_form_says(curvature, least):
    distances = np.linspace(-4, 4, 4001)
    losses = least + curvature * distances**2 / 2

    expected = math.sqrt(2 * RISE / curvature)
    assert distance_of_rise(distances, losses) == pytest.approx(expected, abs=2e-3)
    # The level of the loss moves nothing: the rise is absolute.
    assert distance_of_rise(distances, losses + 3) == pytest.approx(expected, abs=2e-3)


def test_the_rise_is_read_off_between_two_points_ahead_and_the_first_one_counts():
    assert distance_of_rise([-1, 0, 2, 3, 4], [9, 1, 1 + 2 * RISE, 1, 9]) == pytest.approx(1)
    assert distance_of_rise([0, 1, 2], [1, 1 - RISE, 1 + RISE]) == pytest.approx(2)
    assert distance_of_rise([0, 1, 2], [1, 1, math.inf]) == 2
    assert distance_of_rise([0, 1, 2], [1, 1, math.nan]) == 2


def test_a_slice_that_does_not_rise_so_far_is_open_and_one_without_a_middle_is_unknown():
    assert distance_of_rise([0, 1, 2], [1, 1, 1 + RISE / 2]) == math.inf
    assert math.isnan(distance_of_rise([0, 1], [math.nan, 2]))
    assert math.isnan(distance_of_rise([-1, 1], [1, 2]))
