"""Means with their intervals and tests, and the trend, against closed forms, enumeration and scipy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sharpness.analysis.claims import intervals
from sharpness.analysis.claims.intervals import mean_of

NUMBERS = st.lists(st.integers(-1000, 1000), min_size=2, max_size=9).map(lambda numbers: [n / 100 for n in numbers])


def test_students_interval_of_two_numbers_is_the_closed_form():
    found = mean_of([1.0, 3.0]).interval()

    # The 97.5 % quantile of Cauchy's distribution, Student's with one degree of freedom.
    half = math.tan(math.pi * 0.475)
    assert (found.estimate, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))
    assert found.num == 2


@given(NUMBERS, st.floats(-3, 3), st.sampled_from([0.9, 0.95]))
def test_the_mean_is_tested_as_scipy_does(numbers, threshold, level):
    if np.ptp(numbers) == 0:
        return
    mean, expected = mean_of(numbers), stats.ttest_1samp(numbers, threshold)
    interval = expected.confidence_interval(level)

    assert mean.p(threshold) == pytest.approx(expected.pvalue)
    assert (mean.interval(level).low, mean.interval(level).high) == pytest.approx((interval.low, interval.high))


@given(NUMBERS)
def test_being_the_same_within_a_margin_is_the_worse_of_two_one_sided_tests(numbers):
    if np.ptp(numbers) == 0:
        return
    above = stats.ttest_1samp(numbers, -1, alternative="greater").pvalue
    below = stats.ttest_1samp(numbers, 1, alternative="less").pvalue

    assert mean_of(numbers).p_same(1.0) == pytest.approx(max(above, below))
    # Both reject at 5 % where the 90 % interval lies within.
    if abs(max(above, below) - 0.05) > 1e-6:
        interval = mean_of(numbers).interval(0.9)
        assert (interval.low > -1 and interval.high < 1) == (max(above, below) < 0.05)


@given(NUMBERS, st.floats(0.01, 3))
def test_rounding_widens_an_interval_on_both_sides_and_gives_equal_numbers_one(numbers, rounding):
    exact, rounded = mean_of(numbers).interval(), mean_of(numbers, rounding=rounding).interval()
    if np.ptp(numbers) == 0:
        assert np.isnan(exact.low)
        expected = (numbers[0] - rounding, numbers[0] + rounding)
    else:
        expected = (exact.low - rounding, exact.high + rounding)
    assert (rounded.low, rounded.high) == pytest.approx(expected)


@given(NUMBERS, st.sampled_from([0.0, 0.5]), st.floats(-3, 3))
def test_p_is_small_exactly_where_the_interval_lies_beyond(numbers, rounding, threshold):
    mean = mean_of(numbers, rounding=rounding)
    interval = mean.interval()
    if np.isnan(interval.low) or abs(mean.p(threshold) - 0.05) < 1e-6:
        return
    assert (mean.p(threshold) < 0.05) == (interval.low > threshold or interval.high < threshold)


def test_a_seed_without_a_number_has_no_part_and_an_infinite_one_leaves_the_mean_open():
    assert mean_of([1.0, np.nan, 3.0]).interval() == mean_of([1.0, 3.0]).interval()
    assert mean_of([np.nan]).num == 0
    assert np.isnan(mean_of([5.0]).interval().low)
    assert np.isnan(mean_of([5.0]).p())
    infinite = mean_of([1.0, np.inf, 3.0])
    assert (infinite.interval().low, infinite.interval().high, infinite.num) == (-np.inf, np.inf, 3)
    assert (infinite.p(), infinite.p_same(1.0)) == (1.0, 1.0)


def test_numbers_that_are_equal_but_for_their_arithmetic_are_equal():
    assert np.isnan(mean_of([0.1 + 0.2, 0.3, 0.3]).interval().low)


@pytest.mark.parametrize(("num_seeds", "num_settings"), [(2, 3), (3, 3), (2, 4)])
@pytest.mark.parametrize("num_values", [2, 3, 1000])
def test_the_trends_p_value_counts_every_permutation_of_the_ranks_ties_included(num_seeds, num_settings, num_values):
    values = np.random.default_rng(num_values).integers(num_values, size=(num_seeds, num_settings))
    places = np.arange(1, num_settings + 1)
    ranks = stats.rankdata(values, axis=1)
    of_seeds = [[np.dot(order, places) for order in itertools.permutations(of_seed)] for of_seed in ranks]
    sums = np.array([sum(chosen) for chosen in itertools.product(*of_seeds)])
    observed = (ranks @ places).sum()

    found = intervals.trend(values)

    assert found.rising == pytest.approx((sums >= observed).mean())
    assert found.falling == pytest.approx((sums <= observed).mean())
    assert found.p == pytest.approx(min(1, 2 * min((sums >= observed).mean(), (sums <= observed).mean())))
    perfect = intervals.trend(np.tile(places, (num_seeds, 1)))
    assert perfect.rising == pytest.approx(1 / math.factorial(num_settings) ** num_seeds)


@pytest.mark.parametrize("num_settings", [3, 5])
def test_the_trend_without_ties_is_that_of_scipy(num_settings):
    values = np.random.default_rng(num_settings).normal(size=(4, num_settings))
    assert intervals.trend(values).rising == pytest.approx(stats.page_trend_test(values, method="exact").pvalue)


def test_ten_settings_are_tested_without_listing_their_orders():
    assert intervals.trend(np.tile(np.arange(10.0), (2, 1))).rising < 1e-4


@pytest.mark.parametrize("seed", range(3))
def test_more_settings_than_can_be_counted_are_tested_by_the_normal_distribution(seed, monkeypatch):
    values = np.random.default_rng(seed).normal(size=(4, 9)) + 0.05 * np.arange(9)
    exact = intervals.trend(values)
    monkeypatch.setattr(intervals, "MOST_EXACT", 8)
    normal = intervals.trend(values)
    assert (normal.rising, normal.falling) == pytest.approx((exact.rising, exact.falling), abs=5e-3)
    # scipy's own approximation has no correction for continuity.
    many = np.random.default_rng(seed).normal(size=(5, 30))
    expected = stats.page_trend_test(many, method="asymptotic").pvalue
    assert intervals.trend(many).rising == pytest.approx(expected, abs=2e-3)
    assert intervals.trend(np.ones((3, 30))).p == 1
