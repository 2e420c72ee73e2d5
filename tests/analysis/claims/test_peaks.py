"""The claims on the course of the largest eigenvalues."""

import re

import numpy as np
import pytest
from claims.invented import (
    BATCHES,
    FOLLOWS,
    RATES,
    STRENGTHS,
    course,
    peaks_along,
    runs_of_courses,
    spectrum_rows,
    together,
    verdict_of,
)

BREAKS = {
    "does not double": [1.0, 1.9, 1.2, 1.1, 1.0],
    "peaks in the second half": [1.0, 1.5, 2.0, 4.0, 2.0],
    "ends at its peak": [1.0, 1.5, 4.0, 2.0, 4.0],
    "grows to the end": [1.0, 2.0, 3.0, 4.0, 5.0],
}


def test_courses_that_rise_peak_and_fall_are_the_posters_pattern():
    row = verdict_of(runs_of_courses([FOLLOWS] * 6), "a")

    assert row["verdict"] == "holds"
    assert row["effect"] == 1
    assert row["low"] == pytest.approx(6 / (6 + 1.959964**2))  # Wilson's, all of six
    assert row["seeds"] == 2
    assert row["measured"].startswith("6 of 6 runs")


@pytest.mark.parametrize("name", [name for name in BREAKS if name != "ends at its peak"])
def test_courses_that_break_one_part_of_the_pattern_do_not_follow_it(name):
    row = verdict_of(runs_of_courses([BREAKS[name]] * 6), "a")

    assert (row["verdict"], row["effect"]) == ("does not hold", 0)


def test_a_course_that_ends_as_high_as_its_peak_does_not_fall():
    assert verdict_of(runs_of_courses([[1.0, 4.0, 2.0, 3.0, 4.0]] * 6), "a")["effect"] == 0


def test_half_of_the_runs_leave_the_pattern_undecided():
    row = verdict_of(runs_of_courses([FOLLOWS, FOLLOWS, FOLLOWS, *list(BREAKS.values())[:3]]), "a")

    assert (row["verdict"], row["effect"]) == ("undecided", 0.5)
    assert "covers 0.5" in row["would_decide"]


def test_the_pattern_counts_a_run_of_two_grids_once_and_leaves_out_what_diverged():
    tables = runs_of_courses([FOLLOWS] * 6)
    again = [(kind, name, table.assign(grid="batch_size")) for kind, name, table in tables]
    lost = [("eigenvalues", "spectrum", spectrum_rows([1.0, 9.0, np.nan], grid="batch_size", batch_size="8"))]
    unmeasured = spectrum_rows([4.0, 3.0], epochs=[1, 2], grid="batch_size", batch_size="16")

    row = verdict_of([*tables, *again, *lost, ("eigenvalues", "spectrum", unmeasured)], "a")

    assert row["measured"].startswith("6 of 6 runs")
    assert "1 without a value at initialisation" in row["measured"]
    assert row["diverged"] == 1


def test_the_second_peaks_claim_has_four_parts_and_fails_if_one_is_reversed():
    good = peaks_along("learning_rate", RATES, [1, 1, 1], quantity=("height", "time"))
    for strengths, answer in (([1, 1, 1], "holds"), ([-1, -1, -1], "does not hold"), ([1, -1, 0.2], "undecided")):
        row = verdict_of([*good, *peaks_along("batch_size", BATCHES, strengths, quantity=("height", "time"))], "p")
        assert row["verdict"] == answer
        assert row["measured"].count("lower") == row["measured"].count("earlier") == 2
    alone = verdict_of(good, "p")
    assert alone["verdict"] == "undecided"
    assert "batch_size" in alone["would_decide"]


def test_the_second_peak_is_that_of_the_second_eigenvalue():
    # The first eigenvalue rises with the rate, its share in the second falls faster.
    parts = [
        spectrum_rows(
            course(100 * 2**index, at=6 - index), share=8.0**-index, seed=seed, **{"grid": setting, setting: value}
        )
        for setting, values in (("learning_rate", RATES), ("batch_size", BATCHES))
        for index, value in enumerate(values)
        for seed in range(3)
    ]
    tables = [("eigenvalues", "spectrum", together(*parts))]

    assert verdict_of(tables, "p")["verdict"] == "holds"
    assert verdict_of(tables, "b")["verdict"] == "does not hold"


def test_a_rate_at_which_all_seeds_diverge_is_left_out_and_counted():
    tables = peaks_along("learning_rate", RATES, STRENGTHS["holds"], quantity="height")
    lost = together(
        *(spectrum_rows([1.0, np.nan], grid="learning_rate", learning_rate=9.0, seed=seed) for seed in range(3))
    )

    with_lost = verdict_of([*tables, ("eigenvalues", "spectrum", lost)], "b")

    assert with_lost["diverged"] == 3
    assert with_lost | {"diverged": 0} == verdict_of(tables, "b")


def test_batch_sizes_are_ordered_as_numbers_the_full_batch_last():
    row = verdict_of(peaks_along("batch_size", BATCHES, STRENGTHS["holds"], quantity="height"), "d")

    assert re.match(r"batch size full: 100\.?0* ± 0.*, 128: .*, 8: ", row["measured"])
