"""How many seeds would decide, against simulated studies and published tables of power."""

import math

import numpy as np
import pytest
from scipy import stats

from sharpness.analysis.claims.intervals import Mean, mean_of
from sharpness.analysis.claims.power import seeds_for_mean, seeds_for_same


@pytest.mark.parametrize(("effect", "num"), [(0.5, 34), (0.8, 15), (1.0, 10), (1.5, 6)])
def test_a_mean_of_such_a_size_needs_as_many_as_in_cohens_tables(effect, num):
    # Cohen's d against zero, two-sided at 5 %, 80 %: as in G*Power.
    mean = Mean(effect, 1.0, 3, 0.0)
    assert seeds_for_mean(mean) == num
    assert seeds_for_mean(Mean(-3 * effect, 3.0, 3, 0.0)) == num
    assert seeds_for_mean(Mean(effect + 7, 1.0, 3, 0.0), 7.0) == num


@pytest.mark.parametrize(("estimate", "deviation"), [(0.0, 0.5), (0.3, 0.4), (-0.02, 0.55)])
def test_so_many_seeds_are_within_a_margin_in_four_studies_of_five(estimate, deviation):
    num = int(seeds_for_same(Mean(estimate, deviation, 3, 0.0), 1.0))
    generator = np.random.default_rng(0)

    def share(size):
        draws = generator.normal(estimate, deviation, size=(20_000, size))
        half = stats.t.ppf(0.95, size - 1) * draws.std(axis=1, ddof=1) / math.sqrt(size)
        return (np.abs(draws.mean(axis=1)) + half < 1).mean()

    assert share(num) > 0.79
    assert share(num - 1) < 0.81


def test_a_mean_outside_a_margin_needs_as_many_as_tell_it_from_the_margin():
    assert seeds_for_same(Mean(3.0, 1.0, 3, 0.0), 2.0) == seeds_for_mean(Mean(1.0, 1.0, 3, 0.0))


def test_a_tiny_effect_needs_more_than_anybody_trains_and_none_is_told_without_a_spread():
    assert seeds_for_mean(Mean(1e-4, 1.0, 3, 0.0)) == math.inf
    assert seeds_for_mean(Mean(1e4, 1.0, 3, 0.0)) == 2
    for numbers in ([1.0], [1.0, 1.0], [], [1.0, np.inf]):
        assert math.isnan(seeds_for_mean(mean_of(numbers)))
