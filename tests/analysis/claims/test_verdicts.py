"""The rules by which a verdict is reached, against scipy's tests."""

import math

import numpy as np
import pandas as pd
import pytest
from claims.invented import ANSWERS, RATES
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sharpness.analysis.claims import intervals, verdicts


@settings(max_examples=30)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=6))
def test_any_of_two_alternatives_decides_by_an_interval_that_is_wider(numbers):
    found = verdicts.paired(pd.Series(numbers), above=True, measured="", alternatives=2)

    expected = intervals.of_mean(numbers, level=0.975)
    assert (found.effect, found.test) == (expected, "97.5 % Student interval over seeds")


def parts_of(answers):
    """Parts of a claim with these answers, the effect of each larger than that before it."""
    return [
        (f"part {index}", verdicts.Verdict(answer, "", intervals.of_mean([index, index + 1]), "t", 3, "more" * (
            answer == "undecided")))
        for index, answer in enumerate(answers)
    ]  # fmt: skip


@given(st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=4))
def test_a_claim_of_alternatives_holds_if_one_does_and_fails_if_none_does(answers):
    parts = parts_of(answers)

    whole = verdicts.any_of(parts)

    expected = "holds" if "holds" in answers else "undecided" if "undecided" in answers else "does not hold"
    assert whole.answer == expected
    last = len(answers) - 1 - answers[::-1].index(expected)
    assert whole.effect == parts[last][1].effect
    assert (whole.would_decide != "") == (expected == "undecided")


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8), st.floats(-50, 50), st.booleans())
def test_a_paired_comparison_answers_as_the_t_test_does_on_either_side(numbers, threshold, above):
    if np.std(numbers) < 1e-3:
        return
    side = {alternative: stats.ttest_1samp(numbers, threshold, alternative=alternative).pvalue for alternative in
            ("greater", "less")}  # fmt: skip
    predicted, reverse = ("greater", "less") if above else ("less", "greater")
    if min(abs(p - 0.025) for p in side.values()) < 1e-6:
        return

    verdict = verdicts.paired(numbers, above=above, threshold=threshold, measured="")

    expected = "holds" if side[predicted] < 0.025 else "does not hold" if side[reverse] < 0.025 else "undecided"
    assert verdict.answer == expected
    assert (verdict.would_decide != "") == (expected == "undecided")
    mirrored = verdicts.paired([-number for number in numbers], above=not above, threshold=-threshold, measured="")
    assert mirrored.answer == verdict.answer


def test_equal_numbers_decide_unless_they_lie_on_the_threshold():
    assert verdicts.paired([2.0, 2.0], above=True, threshold=1.0, measured="").answer == "holds"
    assert verdicts.paired([2.0, 2.0], above=False, threshold=1.0, measured="").answer == "does not hold"
    assert verdicts.paired([1.0, 1.0], above=True, threshold=1.0, measured="").answer == "undecided"


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=8))
def test_being_within_a_bound_is_two_one_sided_tests(numbers):
    if np.std(numbers) < 1e-3:
        return
    p = {
        (bound, alternative): stats.ttest_1samp(numbers, bound, alternative=alternative).pvalue
        for bound in (-1, 1)
        for alternative in ("greater", "less")
    }
    if min(abs(value - 0.025) for value in p.values()) < 1e-6:
        return
    inside = p[-1, "greater"] < 0.025 and p[1, "less"] < 0.025
    outside = p[1, "greater"] < 0.025 or p[-1, "less"] < 0.025

    answer = verdicts.within(numbers, 1.0, measured="").answer

    assert answer == ("holds" if inside else "does not hold" if outside else "undecided")


def tables_of_settings(min_settings=3):
    shapes = st.tuples(st.integers(2, 4), st.integers(min_settings, 4))
    return shapes.flatmap(
        lambda shape: st.lists(st.integers(1, 6), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]).map(
            lambda numbers: pd.DataFrame(np.array(numbers, dtype=float).reshape(shape))
        )
    )


@given(tables_of_settings())
def test_an_order_is_one_of_ranks_and_turns_with_its_settings(table):
    verdict = verdicts.ordered(table, rises=True, setting="learning_rate")

    found = intervals.trend(table)
    p, turned = found.rising, found.falling
    assert verdict.answer == ("holds" if p < 0.05 else "does not hold" if turned < 0.05 else "undecided")
    ratios = np.log(table.iloc[:, -1] / table.iloc[:, 0])
    assert verdict.effect.estimate == pytest.approx(stats.gmean(np.exp(ratios)))
    # Any increasing function of each seed's values leaves the ranks alone, and the reverse order the answer.
    assert verdicts.ordered(table**3 + 7, rises=True, setting="").answer == verdict.answer
    assert verdicts.ordered(table.iloc[:, ::-1], rises=False, setting="").answer == verdict.answer


def test_a_seed_without_all_settings_has_no_part_in_an_order_but_is_shown():
    rows = [[4.0, 2.0, 1.0], [5.0, 3.0, 2.0], [1.0, np.nan, 100.0]]

    verdict = verdicts.ordered(pd.DataFrame(rows, columns=list(RATES)), rises=False, setting="learning_rate")

    assert (verdict.answer, verdict.num_seeds) == ("holds", 2)
    assert verdict.effect.estimate == pytest.approx(math.sqrt(1 / 4 * 2 / 5))
    assert "p = 0.0278" in verdict.test  # (1 / 3!) ** 2
    assert verdict.measured == "learning rate 0.1: 3.33 ± 2.08, 0.2: 2.50 ± 0.71, 0.4: 34.3 ± 56.9"


def test_two_settings_are_compared_in_pairs():
    table = pd.DataFrame([[4.0, 2.0], [5.0, 2.4], [9.0, 4.4]], columns=[0.1, 0.2])

    verdict = verdicts.ordered(table, rises=False, setting="learning_rate")

    ratios = np.log(table[0.2] / table[0.1])
    assert verdict.answer == "holds"
    assert verdict.test == verdicts.STUDENT
    assert verdict.effect.high == pytest.approx(np.exp(stats.ttest_1samp(ratios, 0).confidence_interval().high))


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([[1.0, 2.0, 3.0]], "a second seed with all settings"),
        ([[1.0, np.nan, 3.0], [1.0, 2.0, np.nan]], "two seeds with all settings"),
        ([[1.0, np.nan, np.nan]], "a second learning rate with a value"),
        ([[2.0, 2.0, 2.0]] * 3, "more seeds"),
    ],
)
def test_an_order_that_cannot_be_told_is_undecided_and_says_why(rows, wanted):
    verdict = verdicts.ordered(pd.DataFrame(rows, columns=list(RATES)), rises=True, setting="learning_rate")

    assert verdict.answer == "undecided"
    assert wanted in verdict.would_decide


def test_a_peak_at_initialisation_has_a_rank_but_no_ratio():
    table = pd.DataFrame([[3.0, 1.0, 0.0], [4.0, 2.0, 0.0]], columns=list(RATES))

    verdict = verdicts.ordered(table, rises=False, setting="learning_rate")

    assert verdict.answer == "holds"
    assert np.isnan(verdict.effect.estimate)


@given(st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=4))
def test_a_claim_of_parts_holds_if_all_do_and_fails_if_one_does(answers):
    parts = parts_of(answers)

    whole = verdicts.all_of(parts)

    expected = "does not hold" if "does not hold" in answers else "undecided" if "undecided" in answers else "holds"
    assert whole.answer == expected
    assert whole.effect == parts[answers.index(expected)][1].effect
    assert (whole.would_decide != "") == (expected == "undecided")
