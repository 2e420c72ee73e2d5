"""Estimates and their intervals, against closed forms, enumeration and scipy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sharpness.analysis.claims import intervals


def test_students_interval_of_two_numbers_is_the_closed_form():
    found = intervals.of_mean([1.0, 3.0])

    # The 97.5 % quantile of Cauchy's distribution, Student's with one degree of freedom.
    half = math.tan(math.pi * 0.475)
    assert (found.estimate, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))
    assert found.num == 2


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9), st.floats(-100, 100))
def test_students_interval_is_scipys_and_moves_with_its_numbers(numbers, shift):
    found, moved = intervals.of_mean(numbers), intervals.of_mean([number + shift for number in numbers])

    deviation = np.std(numbers, ddof=1) / math.sqrt(len(numbers))
    low, high = np.mean(numbers) + np.array(stats.t(len(numbers) - 1).interval(0.95)) * deviation
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9)
    assert (moved.low, moved.high) == pytest.approx((low + shift, high + shift), rel=1e-6, abs=1e-6)


def test_numbers_that_are_not_finite_have_no_part_in_an_interval():
    assert intervals.of_mean([1.0, np.nan, 3.0, np.inf]) == intervals.of_mean([1.0, 3.0])
    assert intervals.of_mean([np.nan]).num == 0
    assert np.isnan(intervals.of_mean([5.0]).low)


@given(st.integers(1, 60).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_wilsons_interval_is_the_closed_form(counts):
    num_true, total = counts
    found = intervals.of_fraction(num_true, total)

    z, p = 1.959963984540054, num_true / total
    centre = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    assert (found.estimate, found.low, found.high) == pytest.approx((p, centre - half, centre + half), abs=1e-9)


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
    perfect = intervals.trend(np.tile(places, (num_seeds, 1)))
    assert perfect.rising == pytest.approx(1 / math.factorial(num_settings) ** num_seeds)


@pytest.mark.parametrize("num_settings", [3, 5])
def test_the_trend_without_ties_is_that_of_scipy(num_settings):
    values = np.random.default_rng(num_settings).normal(size=(4, num_settings))
    assert intervals.trend(values).rising == pytest.approx(stats.page_trend_test(values, method="exact").pvalue)


def test_ten_settings_are_tested_without_listing_their_orders():
    assert intervals.trend(np.tile(np.arange(10.0), (2, 1))).rising < 1e-4


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=5, max_size=20))
def test_the_rank_correlation_is_scipys_inside_an_interval_that_never_changes(pairs):
    first, second = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    alone = range(len(first))
    found = intervals.of_rank_correlation(first, second, alone)

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert np.isnan(found.estimate)
        return
    assert found.estimate == pytest.approx(stats.spearmanr(first, second).statistic)
    assert -1 - 1e-9 <= found.low <= found.high <= 1 + 1e-9
    assert intervals.of_rank_correlation(first, second, alone) == found


def test_the_interval_of_a_rank_correlation_is_that_of_fishers_transformation():
    generator = np.random.default_rng(3)
    first = generator.normal(size=400)
    second = -first + generator.normal(size=400)
    found = intervals.of_rank_correlation(first, second, range(400))

    # Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and Spearman correlations", 2000.
    half = 1.96 * math.sqrt((1 + found.estimate**2 / 2) / (400 - 3))
    expected = np.tanh(np.arctanh(found.estimate) + np.array([-half, half]))
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.02)


def test_copies_of_a_run_make_no_rank_correlation_surer():
    generator = np.random.default_rng(5)
    first = generator.normal(size=40)
    second = -first + generator.normal(size=40)
    alone = intervals.of_rank_correlation(first, second, range(40))
    copied = intervals.of_rank_correlation(np.repeat(first, 4), np.repeat(second, 4), np.repeat(range(40), 4))

    assert copied.estimate == pytest.approx(alone.estimate)
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.05)
    taken_for_independent = intervals.of_rank_correlation(np.repeat(first, 4), np.repeat(second, 4), range(160))
    assert taken_for_independent.high - taken_for_independent.low < 0.7 * (alone.high - alone.low)


def test_one_configuration_has_a_rank_correlation_without_an_interval():
    found = intervals.of_rank_correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], ["same"] * 3)

    assert (found.estimate, np.isnan(found.low), np.isnan(found.high)) == (-1, True, True)
