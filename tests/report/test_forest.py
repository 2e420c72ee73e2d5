"""Where effects lie in the forest plot: the picture says what the numbers say."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpness.report.forest import marks, threshold_in_words

FINITE = st.floats(-100, 100).map(lambda value: round(value, 3))


def row(effect, low, high, side="above", threshold=0.0, unit="decades"):
    return {"effect": effect, "low": low, "high": high, "side": side, "threshold": threshold, "unit": unit}


def mark_of(*rows):
    return marks(pd.DataFrame(rows))


@given(st.lists(st.tuples(FINITE, FINITE, FINITE), min_size=1, max_size=6), st.sampled_from(["above", "below"]), FINITE)
def test_right_of_the_middle_is_as_claimed(intervals, side, threshold):
    rows = [row(*np.take(sorted(interval), [1, 0, 2]), side=side, threshold=threshold) for interval in intervals]

    for mark, each in zip(mark_of(*rows), rows, strict=True):
        beyond = (each["effect"] - threshold) * (1 if side == "above" else -1)
        assert np.sign(round(mark.effect - 50, 9)) == np.sign(round(beyond, 9))
        is_claimed = min((end - threshold) * (1 if side == "above" else -1) for end in (each["low"], each["high"])) > 0
        assert (mark.low > 50 or (mark.is_cut_low and is_claimed)) == is_claimed
        assert 0 <= mark.low <= mark.effect <= mark.high <= 100 or not mark.has_interval
        assert mark.claimed == (50, 100)


def test_effects_of_one_unit_have_one_scale_and_others_their_own():
    small, large, percent = mark_of(row(0.1, 0.0, 0.2), row(1.0, 0.9, 1.1), row(50.0, 40, 60, unit="%"))

    assert (large.effect - 50) == pytest.approx(10 * (small.effect - 50))
    assert percent.effect == pytest.approx(50 + 50 / 1.3)


def test_an_interval_that_reaches_farther_is_cut_and_says_so():
    wide, narrow, other = mark_of(row(0.5, -9, 9), row(0.4, 0.3, 0.5), row(0.6, 0.5, 0.7))

    assert (wide.is_cut_low, wide.is_cut_high, wide.low, wide.high) == (True, True, 0, 100)
    assert not (narrow.is_cut_low)
    assert not (narrow.is_cut_high)
    assert not (other.is_cut_low)
    assert not (other.is_cut_high)


def test_of_a_claim_that_two_are_alike_the_shade_is_the_margin_around_zero():
    (mark,) = mark_of(row(0.5, -2, 3, side="within", threshold=1.0, unit="points"))

    low, high = mark.claimed
    assert (low + high) / 2 == 50
    assert (high - 50) / (mark.effect - 50) == pytest.approx(2)
    assert mark.zero is None


def test_where_the_threshold_is_not_zero_no_effect_has_a_place_of_its_own():
    (mark,) = mark_of(row(0.9, 0.6, 1.2, threshold=0.5))

    assert mark.zero == pytest.approx(50 - (mark.effect - 50) * 0.5 / 0.4)


def test_what_was_not_compared_has_no_mark_and_one_seed_no_interval():
    nothing = row(np.nan, np.nan, np.nan, side="", threshold=np.nan, unit="")
    absent, one_seed = mark_of(nothing, row(0.5, np.nan, np.nan))

    assert absent is None
    assert not one_seed.has_interval
    assert 50 < one_seed.effect <= 100


@pytest.mark.parametrize(
    ("side", "threshold", "words"),
    [
        ("above", 0.0, "claimed: above 0"),
        ("below", -0.5, "claimed: below -0.500"),
        ("within", 1.0, "claimed: within ±1"),
        ("either side", 0.0, "claimed: other than 0"),
        ("", np.nan, ""),
    ],
)
def test_a_threshold_in_words(side, threshold, words):
    assert threshold_in_words(row(0, 0, 0, side=side, threshold=threshold)) == words
