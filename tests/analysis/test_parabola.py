"""Parabolas whose minimum is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import least_squares

from sharpness.analysis.parabola import LONGEST, SHORTEST, parabola_through


@given(st.floats(0.05, 2), st.floats(0.1, 100))
def test_finds_the_minimum_of_a_parabola_through_its_points(minimum, curvature):
    alphas = np.array([0.5, 1.0, 2.0])
    changes = curvature * ((alphas - minimum) ** 2 - minimum**2)
    parabola = parabola_through(alphas, changes)
    assert parabola.minimiser == pytest.approx(minimum, abs=1e-6)
    np.testing.assert_allclose(parabola.at(alphas), changes, atol=1e-6 * curvature)
    assert parabola.at(0) == 0


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=3))
def test_fits_points_of_no_parabola_by_least_squares(changes):
    alphas = np.array([0.5, 1.0, 2.0])
    parabola = parabola_through(alphas, changes)
    best = least_squares(lambda c: c[0] * alphas**2 + c[1] * alphas - changes, [0.0, 0.0])
    assert [parabola.curvature, parabola.slope] == pytest.approx(best.x, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "minimiser"),
    [
        ([-1, -2, -4], LONGEST),
        ([-1, -2.1, -5], LONGEST),
        ([0, 0, 0], LONGEST),
        ([1, 3, 10], SHORTEST),
        ([-5, -9, -14], LONGEST),
    ],
)
def test_a_minimum_out_of_range_or_none_is_the_end_of_the_range(changes, minimiser):
    assert parabola_through([0.5, 1, 2], changes).minimiser == minimiser
