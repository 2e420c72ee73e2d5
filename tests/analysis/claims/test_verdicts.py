"""The rules by which a verdict is reached, against scipy's tests."""

import numpy as np
import pandas as pd
import pytest
from claims.invented import ANSWERS, RATES
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sharpness.analysis.claims import intervals, verdicts
from sharpness.analysis.claims.subjects import Cells

NUMBERS = st.lists(st.integers(-300, 300), min_size=2, max_size=8).map(lambda numbers: [n / 100 for n in numbers])


def cells_of(rows, columns=RATES, lost=()):
    values = pd.DataFrame(rows, columns=list(columns), dtype=float)
    is_lost = pd.DataFrame(False, values.index, values.columns)
    for seed, setting in lost:
        is_lost.loc[seed, setting] = True
    return Cells(values, is_lost)


def ordered(rows, *, rises=True, columns=RATES, lost=(), **others):
    cells = cells_of(rows, columns, lost)
    return verdicts.ordered(cells, rises=rises, setting="learning_rate", measured="", **others)


def parts_of(answers):
    """Parts of a claim with these answers, the effect of each larger than that before it."""
    parts = []
    for index, answer in enumerate(answers):
        effect = intervals.Interval(index, index - 1, index + 1, 3)
        wanted, needed = ("more", 5.0 + index) if answer == "undecided" else ("", np.nan)
        parts.append((f"part {index}", verdicts.Verdict(answer, "", effect, "t", 0.01 * index, wanted, needed)))
    return parts


@given(NUMBERS, st.floats(-3, 3), st.booleans())
def test_a_mean_answers_as_the_two_sided_t_test_does(numbers, threshold, above):
    if np.ptp(numbers) == 0:
        return
    expected = stats.ttest_1samp(numbers, threshold)
    if abs(expected.pvalue - 0.05) < 1e-6:
        return
    side = "holds" if (np.mean(numbers) > threshold) == above else "does not hold"

    verdict = verdicts.differs(numbers, above=above, threshold=threshold, measured="")

    assert verdict.answer == (side if expected.pvalue < 0.05 else "undecided")
    assert verdict.p == pytest.approx(expected.pvalue)
    assert (verdict.would_decide != "") == (verdict.answer == "undecided")
    mirrored = verdicts.differs([-n for n in numbers], above=not above, threshold=-threshold, measured="")
    assert mirrored.answer == verdict.answer
    either = verdicts.differs(numbers, above=None, threshold=threshold, measured="")
    assert either.answer == ("holds" if expected.pvalue < 0.05 else "undecided")


@given(NUMBERS)
def test_the_same_holds_by_two_one_sided_tests_and_fails_by_the_two_sided_interval(numbers):
    if np.ptp(numbers) == 0:
        return
    inside = max(
        stats.ttest_1samp(numbers, -1, alternative="greater").pvalue,
        stats.ttest_1samp(numbers, 1, alternative="less").pvalue,
    )
    nearer = np.copysign(1, np.mean(numbers))
    outside = stats.ttest_1samp(numbers, nearer).pvalue if abs(np.mean(numbers)) > 1 else 1.0
    if min(abs(inside - 0.05), abs(outside - 0.05)) < 1e-6:
        return

    found = verdicts.alike(numbers, 1.0, measured="")

    assert found.answer == ("holds" if inside < 0.05 else "does not hold" if outside < 0.05 else "undecided")
    assert found.p == pytest.approx(inside)


@pytest.mark.parametrize(
    ("numbers", "answer"),
    [
        ([0.5, 0.52, 0.48], "holds"),
        ([-0.5, -0.52, -0.48], "does not hold"),
        ([0.01, -0.01, 0.0], "does not hold"),
        ([0.05, 0.051, 0.049], "does not hold"),  # above zero for sure, and the same for all that matters
        ([0.5, -0.5, 0.1], "undecided"),
    ],
)
def test_where_the_same_means_that_a_claim_does_not_hold_the_margin_comes_first(numbers, answer):
    assert verdicts.differs(numbers, above=True, same=0.1, measured="").answer == answer


def test_one_seed_equal_seeds_and_missing_ones_decide_nothing_and_say_so():
    one = verdicts.differs([5.0], above=True, measured="")
    assert (one.answer, one.would_decide) == ("undecided", "a second seed")
    none = verdicts.differs([np.nan, np.nan], above=True, measured="x")
    assert (none.answer, none.would_decide, none.num_seeds) == (
        "undecided",
        "seeds with all values that are compared",
        0,
    )
    assert none.measured == "x (2 of 2 seeds without a value)"
    equal = verdicts.differs([2.0, 2.0], above=True, measured="")
    assert (equal.answer, "seeds that differ" in equal.would_decide) == ("undecided", True)
    assert verdicts.differs([2.0, 2.0], above=True, rounding=0.5, measured="").answer == "holds"
    infinite = verdicts.alike([0.0, np.inf], 1.0, measured="")
    assert (infinite.answer, "do not diverge" in infinite.would_decide) == ("undecided", True)


def test_an_undecided_mean_says_how_many_seeds_would_decide_it():
    found = verdicts.differs([0.0, 1.0, 2.0], above=True, measured="")
    assert (found.answer, found.seeds_needed) == ("undecided", 10)  # Cohen's d of one
    assert "10 seeds like these would decide it with 80 % power" in found.would_decide
    assert np.isnan(verdicts.differs([1.0, 1.1, 0.9], above=True, measured="").seeds_needed)


def tables_of_settings():
    shapes = st.tuples(st.integers(2, 4), st.integers(3, 4))
    return shapes.flatmap(
        lambda shape: st.lists(st.integers(1, 6), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]).map(
            lambda numbers: np.array(numbers, dtype=float).reshape(shape)
        )
    )


@pytest.mark.slow
@given(tables_of_settings())
def test_an_order_is_one_of_ranks_and_turns_with_its_settings(table):
    columns = 10.0 ** np.arange(table.shape[1])
    verdict = ordered(table, columns=columns)

    trend = intervals.trend(table)
    side = "holds" if trend.rising < trend.falling else "does not hold"
    assert verdict.answer == (side if 2 * min(trend.rising, trend.falling) < 0.05 else "undecided")
    slopes = [np.polyfit(np.arange(table.shape[1]), of_seed, 1)[0] for of_seed in table]
    assert verdict.effect.estimate == pytest.approx(np.mean(slopes), abs=1e-9)
    if np.ptp(slopes) > 1e-6:
        interval = stats.ttest_1samp(slopes, 0).confidence_interval()
        assert (verdict.effect.low, verdict.effect.high) == pytest.approx((interval.low, interval.high))
    # Any increasing function of each seed's values leaves the ranks alone, and the reverse order the answer.
    assert ordered(table**3 + 7, columns=columns).answer == verdict.answer
    assert ordered(table[:, ::-1], rises=False, columns=columns).answer == verdict.answer


def test_a_seed_without_all_settings_has_no_part_in_an_order():
    verdict = ordered([[4.0, 2.0, 1.0], [5.0, 3.0, 1.5], [1.0, np.nan, 100.0]], rises=False)

    assert (verdict.answer, verdict.num_seeds) == ("undecided", 2)
    assert verdict.p == pytest.approx(2 / 36)  # twice (1 / 3!) ** 2
    assert verdict.seeds_needed >= 3


def test_what_lies_beyond_the_end_ranks_last_and_has_no_slope():
    found = ordered([[1.0, 2.0, np.inf], [1.0, 3.0, np.inf], [1.0, 2.0, 3.0]])
    assert (found.answer, found.p) == ("holds", pytest.approx(2 / 216))
    slope = np.polyfit(np.log10(RATES), [1, 2, 3], 1)[0]
    assert (found.effect.estimate, found.num_seeds) == (pytest.approx(slope), 3)


@pytest.mark.parametrize("setting", RATES)
@pytest.mark.parametrize("rises", [True, False])
def test_a_diverged_run_ranks_where_it_speaks_most_against_the_order(setting, rises):
    rows = [[1.0, 2.0, 3.0] if rises else [3.0, 2.0, 1.0]] * 4
    place = RATES.index(setting)

    found = ordered(rows, rises=rises, lost=[(0, setting)])

    # No other rank of that run has a larger p-value.
    def p_with(value):
        changed = [list(row) for row in rows]
        changed[0][place] = value
        trend = intervals.trend(changed)
        return trend.rising if rises else trend.falling

    worst = max(p_with(value) for value in (0.0, 1.5, 2.5, 9.0))
    assert found.p == pytest.approx(2 * worst)
    assert found.num_seeds == 4
    # Its seed has no slope.
    slope = np.polyfit(np.log10(RATES), rows[1], 1)[0]
    assert found.effect.estimate == pytest.approx(0.75 * slope)


def test_two_settings_are_compared_by_the_slopes_t_test():
    table = np.array([[4.0, 2.0], [5.0, 2.4], [9.0, 4.4]])

    found = ordered(table, rises=False, columns=(0.1, 1.0))

    expected = stats.ttest_1samp(table[:, 1] - table[:, 0], 0)
    assert (found.answer, found.p) == ("undecided", pytest.approx(expected.pvalue))
    assert found.effect.high == pytest.approx(expected.confidence_interval().high)


def test_two_settings_with_one_beyond_the_end_are_compared_by_their_ranks():
    found = ordered([[1.0, np.inf]] * 7, columns=(0.1, 1.0))
    assert (found.answer, found.p) == ("holds", pytest.approx(2 / 2**7))


def test_the_slope_is_rounded_as_its_values_are():
    rows, half = [[0.0, 0.0, 0.0]] * 3, 0.1
    found = ordered(rows, columns=(1, 10, 100), rounding=cells_of([[half] * 3] * 3, (1, 10, 100)))
    # Of three settings the middle one has no weight, the others a half each.
    assert (found.effect.low, found.effect.high) == pytest.approx((-half, half))


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([[1.0, 2.0, 3.0]], "a second seed with all settings"),
        ([[1.0, np.nan, 3.0], [1.0, 2.0, np.nan]], "two seeds with all settings"),
        ([[2.0, 2.0, 2.0]] * 3, "seeds that differ"),
    ],
)
def test_an_order_that_cannot_be_told_is_undecided_and_says_why(rows, wanted):
    verdict = ordered(rows)
    assert verdict.answer == "undecided"
    assert wanted in verdict.would_decide


def test_one_setting_is_no_order():
    assert ordered([[1.0]], columns=(0.1,)).would_decide == "a second learning rate with a value"


@given(st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=4))
def test_a_claim_of_parts_holds_if_all_do_and_fails_if_one_does(answers):
    parts = parts_of(answers)

    whole = verdicts.all_of(parts)

    expected = "does not hold" if "does not hold" in answers else "undecided" if "undecided" in answers else "holds"
    places = [place for place, answer in enumerate(answers) if answer == expected]
    assert whole.answer == expected
    assert whole.effect == parts[places[0]][1].effect
    assert whole.p == pytest.approx(0.01 * places[-1])
    assert (whole.would_decide != "") == (expected == "undecided")
    assert np.isnan(whole.seeds_needed) == (expected != "undecided")
    assert expected != "undecided" or whole.seeds_needed == 5 + places[-1]


@given(NUMBERS, st.floats(-3, 3), st.sampled_from([True, False, None]))
def test_a_verdict_on_a_mean_can_be_read_off_its_interval_and_its_threshold(numbers, threshold, above):
    verdict = verdicts.differs(numbers, above=above, threshold=threshold, measured="")

    assert verdict.side == {True: "above", False: "below", None: "either side"}[above]
    assert verdict.threshold == threshold
    low, high = verdict.effect.low - threshold, verdict.effect.high - threshold
    claimed = {"above": low > 0, "below": high < 0, "either side": low > 0 or high < 0}[verdict.side]
    assert (verdict.answer == "holds") == claimed


@given(NUMBERS, st.floats(0.1, 2))
def test_of_a_claim_that_two_are_alike_the_threshold_is_the_margin(numbers, margin):
    verdict = verdicts.alike(numbers, margin, measured="")

    assert (verdict.side, verdict.threshold) == ("within", margin)
    assert verdict.answer != "holds" or abs(verdict.effect.estimate) < margin


def test_of_several_parts_the_threshold_is_that_of_the_part_whose_effect_is_shown():
    rises = verdicts.differs([0.9, 1.0, 1.1], above=True, threshold=0.3, measured="")
    declines = verdicts.differs([0.1, -0.1], above=False, measured="")

    whole = verdicts.all_of([("rises", rises), ("declines", declines)])

    assert (whole.answer, whole.part, whole.side, whole.threshold) == ("undecided", "declines", "below", 0.0)
    assert whole.effect == declines.effect


@given(NUMBERS, st.floats(0.05, 3))
def test_the_test_that_is_told_is_the_one_that_decides(numbers, same):
    verdict = verdicts.differs(numbers, above=True, same=same, measured="")

    plain = verdicts.differs(numbers, above=True, measured="")
    if verdict.answer == plain.answer:
        assert (verdict.test, repr(verdict.p)) == (plain.test, repr(plain.p))
    else:
        assert verdict.answer == "does not hold"
        assert verdict.test == f"{verdicts.SAME}, margin {verdicts.number(same)}"
        assert verdict.p < 0.05
