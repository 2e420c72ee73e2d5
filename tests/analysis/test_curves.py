"""Where curves do something: hand-made courses, closed forms, and what may not change an answer."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpness.analysis.curves import FALL, RISE, distance_of_rise, first_peak

COURSES = {
    "rises and falls": ([1, 5, 3, 2], 1, True),
    "a later and higher one does not count": ([1, 5, 3.9, 9, 1], 1, True),
    "a dip to less than a fifth is none": ([1, 5, 4.1, 6, 4], 3, True),
    "falls to just four fifths": ([1, 5, 4], 1, True),
    "does not fall so far": ([1, 5, 4.1, 4.5], 1, False),
    "still rises": ([1, 2, 3], 2, False),
    "falls from the beginning": ([5, 4, 3], 0, True),
    "one value": ([5], 0, False),
    "begins below zero": ([-3, -2, 1, 0.5], 2, True),
    "the first of equals": ([1, 5, 5, 2], 1, True),
}


@pytest.mark.parametrize("name", COURSES)
def test_the_peak_is_the_highest_value_before_the_first_fall_to_four_fifths(name):
    values, index, is_over = COURSES[name]
    found = first_peak(values)
    assert (found.index, found.is_over) == (index, is_over)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=12), st.floats(0.5, 20))
def test_a_peak_is_one_of_the_course_up_to_its_fall_in_any_unit(values, unit):
    found, scaled = first_peak(values), first_peak([unit * value for value in values])

    falls = [end for end in range(1, len(values)) if values[end] <= FALL * max(values[:end])]
    before = values[: falls[0]] if falls else values
    assert (found.index, found.is_over) == (int(np.argmax(before)), bool(falls))
    # Rounding may decide on a value at four fifths exactly.
    if not any(abs(low / high - FALL) < 1e-9 for low in values for high in values):
        assert scaled == found


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
