"""The peak of a curve, of curves whose peaks are known by hand."""

import numpy as np
import pytest
from figures.invented import spectrum_frame, sweep
from hypothesis import given
from hypothesis import strategies as st

from sharpness.analysis.peak import Peak, peak_of, peaks_of_runs


@pytest.mark.parametrize(
    ("values", "peak"),
    [
        ([1, 5, 3, 4], Peak(5, 1, has_fallen=True)),
        ([1, 5, 3, 9, 1], Peak(5, 1, has_fallen=True)),  # the first one, though a later one is higher
        ([1, 5, 4.5, 6, 4.8], Peak(6, 3, has_fallen=True)),  # a dip to 90 % ends nothing
        ([1, 5, 4], Peak(5, 1, has_fallen=True)),  # to 80 % exactly
        ([1, 5, 4.1], Peak(5, 2, has_fallen=False)),
        ([9, 5, 9, 1], Peak(9, 0, has_fallen=True)),
        ([5, 5, 5], Peak(5, 2, has_fallen=False)),
        ([1, 5, 5, 1], Peak(5, 1, has_fallen=True)),  # the first of equals
        ([1, 5, np.nan, np.inf, 3], Peak(5, 1, has_fallen=True)),
        ([1, 5, np.nan], Peak(5, 1, has_fallen=False)),
        ([-5, -9, 2, 1], Peak(2, 2, has_fallen=True)),  # below zero there is no share to fall to
        ([-5, -9], Peak(-5, 1, has_fallen=False)),
        ([3], Peak(3, 0, has_fallen=False)),
    ],
)
def test_the_peak_is_the_first_maximum_followed_by_a_fall_to_eighty_per_cent(values, peak):
    assert peak_of(range(len(values)), values) == peak


def test_a_curve_without_a_finite_value_has_no_peak():
    peak = peak_of([0, 1], [np.nan, np.inf])
    assert np.isnan([peak.value, peak.epoch]).all()
    assert not peak.has_fallen


@pytest.mark.parametrize("epochs", [[0, 0, 1], [0, 2, 1], [0, 1]])
def test_epochs_that_do_not_ascend_are_refused(epochs):
    with pytest.raises(ValueError, match="epochs must ascend"):
        peak_of(epochs, [1, 2, 3])


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=30), st.floats(1.5, 10))
def test_what_comes_after_the_fall_changes_nothing_and_units_do_not_matter(values, factor):
    peak = peak_of(range(len(values)), values)
    # By its own definition, one value after the other.
    highest, place = values[0], 0
    for index, value in enumerate(values):
        if value > highest:
            highest, place = value, index
        if value <= 0.8 * highest:
            assert peak == Peak(highest, place, has_fallen=True)
            assert peak_of(range(index + 2), [*values[: index + 1], 1e9]) == peak
            break
    else:
        assert peak == Peak(max(values), len(values) - 1, has_fallen=False)
    exact = 2.0 ** round(factor)
    assert peak_of(range(len(values)), [exact * value for value in values]).value == exact * peak.value


@pytest.mark.parametrize("rank", [0, 1])
def test_each_run_has_the_peak_of_its_own_curve(rank):
    frame = spectrum_frame(sweep(seeds=(0, 1)))
    found = peaks_of_runs(frame.sample(frac=1, random_state=0), rank=rank)
    assert len(found) == frame[["grid", "run"]].drop_duplicates().shape[0]
    for row in found.itertuples():
        curve = frame[(frame["grid"] == row.grid) & (frame["run"] == row.run) & (frame["which"] == "largest")]
        curve = curve[curve["rank"] == rank].sort_values("epoch")
        expected = peak_of(curve["epoch"], curve["eigenvalue"])
        assert Peak(row.peak_eigenvalue, row.peak_epoch, has_fallen=row.has_fallen) == expected
        assert row.seed == curve["seed"].iloc[0]


def test_a_run_that_diverged_is_marked_and_has_the_peak_that_it_reached():
    frame = spectrum_frame(sweep(seeds=(0,)), diverge_after=0.4)
    found = peaks_of_runs(frame)
    assert found["diverged"].all()
    assert (found["peak_epoch"] <= 0.4).all()
