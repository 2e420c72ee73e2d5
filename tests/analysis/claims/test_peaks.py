"""The claims on the course of the largest eigenvalues, on courses made by hand."""

import math
import re

import numpy as np
import pytest
from claims.invented import (
    BATCHES,
    RATES,
    STRENGTHS,
    along,
    course,
    declining_courses,
    heights_along,
    rows_of,
    second_peaks,
    spectrum_rows,
    times_along,
    together,
    verdict_of,
)

from sharpness.analysis.claims.collected import collected
from sharpness.analysis.claims.peaks import courses


def course_of(values, epochs=None):
    tables = [("eigenvalues", "spectrum", spectrum_rows(values, epochs=epochs))]
    (row,) = courses(collected(tables).rows("spectrum", "eigenvalues"), rank=0).to_dict("records")
    return row


def test_a_course_is_read_by_its_first_peak_and_by_its_highest_value():
    row = course_of([2, 10, 7, 20, 5, 5, 5], epochs=[0, 0.5, 1, 2, 3, 4, 6])

    assert row["time"] == pytest.approx(math.log10(0.5))
    assert row["height"] == pytest.approx(math.log10(20))
    assert (row["first"], row["end"]) == pytest.approx((math.log10(2), math.log10(5)))
    # From 0.5 to 1: to initialisation the distance in decades has no end.
    assert row["rounding"] == pytest.approx(math.log10(2) / 2)
    assert row["slope"] == pytest.approx(np.polyfit([1, 2, 3, 4, 6], np.log10([7, 20, 5, 5, 5]), 1)[0])


def test_a_course_that_does_not_fall_peaks_after_the_end_and_is_followed_from_its_highest_value():
    row = course_of([1, 9, 10, 9, 9.5, 9, 9.2, 9.1])

    assert row["time"] == math.inf
    assert row["slope"] == pytest.approx(np.polyfit(range(3, 8), np.log10([9, 9.5, 9, 9.2, 9.1]), 1)[0])
    assert math.isnan(course_of([1, 2, 3, 4, 5])["slope"])
    assert course_of([10, 5, 4])["time"] == -math.inf


@pytest.mark.slow
def test_a_flat_and_noisy_plateau_does_not_decline():
    """The line begins behind the highest value: one from it would fall by itself."""
    generator = np.random.default_rng(0)
    flat = [[1.0, *np.exp(generator.normal(scale=0.1, size=29))] for _ in range(200)]
    slopes = np.array([course_of([10 * value for value in values])["slope"] for values in flat])
    slopes = slopes[~np.isnan(slopes)]
    assert abs(slopes.mean()) < 3 * slopes.std() / math.sqrt(len(slopes))


def test_the_rise_and_the_decline_are_parts_of_their_own():
    row = verdict_of(declining_courses(STRENGTHS["does not hold"]), "a")
    assert row["verdict"] == "does not hold"
    assert row["measured"].startswith("rises: holds")
    assert "declines: does not hold" in row["measured"]
    assert "learning rate 0.4, batch size 32: 0.1" in row["measured"]  # each configuration by itself
    flat = along("learning_rate", RATES, [1.0, 1.1, 0.9], lambda s, _: [1.0, 1 + 0.5 * s, *[1.1 - 0.1 * s] * 9])
    assert verdict_of(flat, "a")["measured"].startswith("rises: does not hold")


def test_a_configuration_with_few_checkpoints_after_its_peak_has_no_slope_and_is_counted():
    rows = declining_courses(STRENGTHS["holds"])[0][2]
    late = together(*(spectrum_rows(course(99, at=9), learning_rate=7.0, seed=seed) for seed in range(3)))
    row = verdict_of([("eigenvalues", "spectrum", together(rows, late))], "a")

    assert row["verdict"] == "holds"
    assert "runs with fewer than 5 checkpoints after the peak: 3" in row["measured"]
    only = verdict_of([("eigenvalues", "spectrum", late)], "a")
    assert (only["verdict"], "5 checkpoints" in only["would_decide"]) == ("undecided", True)


def test_a_run_of_two_grids_counts_once_and_one_that_diverged_as_no_rise_and_no_decline():
    tables = declining_courses(STRENGTHS["holds"])
    again = [(kind, name, table.assign(grid="batch_size")) for kind, name, table in tables]
    assert verdict_of([*tables, *again], "a") == pytest.approx(verdict_of(tables, "a"), nan_ok=True)

    lost = spectrum_rows([1.0, 9.0, np.nan], learning_rate=9.0, seed=0)
    row = verdict_of([*tables, ("eigenvalues", "spectrum", lost)], "a")
    assert row["diverged"] == 1
    assert "in 10 runs" in row["measured"]
    assert "learning rate 9, batch size 32: 0.00" in row["measured"]


def test_a_peak_after_the_end_ranks_last_and_decides_all_the_same():
    late = along(
        "learning_rate",
        RATES,
        [1, 1.1, 0.9],
        lambda s, place: [1, 10 * s, 9.9 * s] if place == 0 else course(9, at=4 - place),
    )
    row = verdict_of(late, "c")
    assert (row["verdict"], row["seeds"]) == ("holds", 3)
    assert "0.1: – (3 at or after the end)" in row["measured"]
    assert math.isnan(row["effect"])


def test_equal_times_have_an_interval_as_wide_as_the_checkpoints_are_apart():
    row = verdict_of(times_along("learning_rate", RATES, [1, 1, 1]), "c")

    # Epochs 7, 5 and 3: half the way to the farther neighbour in decades, with the weights of the slope's two ends.
    halves = [math.log10(7 / 6) / 2, math.log10(3 / 2) / 2]
    assert row["high"] - row["effect"] == pytest.approx(sum(halves) / (2 * math.log10(2)))
    assert row["effect"] - row["low"] == pytest.approx(row["high"] - row["effect"])


@pytest.mark.slow
def test_the_second_peaks_claim_has_four_parts_and_fails_if_one_is_reversed():
    good = second_peaks([1, 1.1, 0.9], ["learning_rate"])
    for strengths, answer in (
        ([1, 1.1, 0.9], "holds"),
        ([-1, -1.1, -0.9], "does not hold"),
        ([1, -1, 0.2], "undecided"),
    ):
        row = verdict_of([*good, *second_peaks(strengths, ["batch_size"])], "p")
        assert row["verdict"] == answer
        assert row["measured"].count("lower") == row["measured"].count("earlier") == 2
    assert rows_of(good, "p") == []  # without a grid of batch sizes
    assert verdict_of(second_peaks([-1, -1.1, -0.9], ["learning_rate"]), "p")["verdict"] == "does not hold"


def test_the_second_peak_is_that_of_the_second_eigenvalue():
    # The first eigenvalue rises with the rate, its share in the second falls faster.
    parts = [
        spectrum_rows(
            course(100 * 2**index, at=6 - index), share=8.0**-index, seed=seed, **{"grid": setting, setting: value}
        )
        for setting, values in (("learning_rate", RATES), ("batch_size", BATCHES[::-1]))
        for index, value in enumerate(values)
        for seed in range(3)
    ]
    tables = [("eigenvalues", "spectrum", together(*parts))]

    assert verdict_of(tables, "p")["verdict"] == "holds"
    assert verdict_of(tables, "b")["verdict"] == "does not hold"


def test_a_rate_at_which_all_seeds_diverge_speaks_against_the_order():
    tables = heights_along("learning_rate", RATES, STRENGTHS["holds"])
    lost = together(
        *(spectrum_rows([1.0, np.nan], grid="learning_rate", learning_rate=9.0, seed=seed) for seed in range(3))
    )

    row = verdict_of([*tables, ("eigenvalues", "spectrum", lost)], "b")

    # Ranks 4, 3, 2, 1 would have been the order; the largest rate has the largest of all.
    assert (row["verdict"], row["seeds"], row["diverged"]) == ("undecided", 3, 3)
    assert "9: – (3 diverged)" in row["measured"]


def test_batch_sizes_are_ordered_as_numbers_the_full_batch_last():
    sizes = ("8", "128", "full")
    row = verdict_of(heights_along("batch_size", sizes, STRENGTHS["holds"], rises=True), "d")

    assert row["verdict"] == "holds"
    assert re.match(r"batch size 8: 100.*, 128: .*, full: ", row["measured"])
    assert math.isnan(row["effect"])  # how large a full batch is no slope can say


def test_courses_of_other_settings_are_rows_of_their_own():
    tables = declining_courses(STRENGTHS["holds"])
    again = [(kind, name, table.assign(settings="other")) for kind, name, table in tables]
    assert {row["configuration"] for row in rows_of([*tables, *again], "a")} == {"settings leading", "settings other"}
