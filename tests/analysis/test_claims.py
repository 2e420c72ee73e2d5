"""The verdicts on the poster's claims: invented tables, and answers by closed forms, enumeration and scipy's tests."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sharpness.analysis.claims import intervals, verdicts, wording
from sharpness.analysis.claims.collected import collected
from sharpness.analysis.claims.deciding import as_markdown, decide
from sharpness.analysis.claims.poster import CLAIMS
from sharpness.analysis.claims.slices import at_shared_times, is_bowl
from sharpness.analysis.tables import first_change
from sharpness.runtime.closure import sources
from sharpness.stages.claims import claims
from sharpness.study.planned import epochs_of_verdicts

RUN = {
    "experiment": "invented",
    "grid": "run",
    "data": "digits",
    "num_training": 1300,
    "augment": False,
    "model": "simple_cnn",
    "padding": "alternating",
    "init_scale": np.nan,
    "learning_rate": 0.1,
    "learning_rate_epochs": "[]",
    "learning_rate_factor": 0.0,
    "batch_size": "32",
    "momentum": 0.0,
    "l2": 0.0,
    "precision": "float32",
    "gamma": 1.0,
    "gamma_outside": 1.0,
    "epochs": 10,
    "seed": 0,
}
RATES = (0.1, 0.2, 0.4)
BATCHES = ("full", "128", "8")  # from the largest to the smallest
KS = (-8, -4, -2, -1, 0, 1, 2, 4, 8)
LETTERS = list("abcdefghijklmnopqrst")
ANSWERS = ("holds", "does not hold", "undecided")

# How strongly each seed shows a claim: a positive number is what the poster says.
STRENGTHS = {"holds": [1.0, 1.1, 0.9], "does not hold": [-1.0, -1.1, -0.9], "undecided": [1.0, -1.0, 0.2]}


def fields(**changed):
    run = {**RUN, **changed}
    named = {key: value for key, value in changed.items() if key not in ("grid", "experiment", "epochs")}
    return run | {"run": "-".join(f"{key}{value}" for key, value in sorted(named.items())) or "run"}


def spectrum_rows(largest, *, epochs=None, share=0.5, checkpoint="planned", settings="leading", **run):
    """The largest eigenvalue at some epochs, by default 0, 1, 2, ...; the second is a share of it, the smallest -1."""
    rows = []
    for epoch, value in zip(range(len(largest)) if epochs is None else epochs, largest, strict=True):
        place = {"settings": settings, "checkpoint": checkpoint, "step": round(10 * epoch), "epoch": float(epoch)}
        values = [("largest", 0, value)]
        # Where a run diverged, its table has one row.
        values += [("largest", 1, share * value), ("smallest", 0, -1.0)] if np.isfinite(value) else []
        rows += [{**place, "which": which, "rank": rank, "eigenvalue": number} for which, rank, number in values]
    return pd.DataFrame([fields(**run) | row for row in rows])


def history_rows(validation, test, *, diverged=False, **run):
    """Accuracies in per cent at epochs 0, 1, 2, ...; the rate falls after the first epoch, as at a plateau."""
    rows = [
        {
            "step": 10 * epoch,
            "epoch": epoch,
            "validation_accuracy": accuracy / 100,
            "test_accuracy": tested / 100,
            "training_loss": 0.1,
            "diverged": diverged and epoch == len(test) - 1,
        }
        for epoch, (accuracy, tested) in enumerate(zip(validation, test, strict=True))
    ]
    made = fields(**run)
    return pd.DataFrame([made | row | {"learning_rate": made["learning_rate"] / (1 + row["epoch"])} for row in rows])


def slice_rows(losses, *, epoch, ks=KS, scale=1.0, **run):
    place = {"settings": "top", "checkpoint": "planned", "step": round(10 * epoch), "epoch": float(epoch)}
    rows = [{**place, "k": k, "loss": loss, "scale": scale} for k, loss in zip(ks, losses, strict=True)]
    return pd.DataFrame([fields(**run) | row for row in rows])


def step_rows(changes, **run):
    """Changes in per cent by alpha, as the mean over two checkpoints and two batches; other directions say else."""
    rows = [
        {
            "step": 10 * epoch,
            "epoch": float(epoch),
            "settings": "scaled",
            "checkpoint": "planned",
            "direction": direction,
            "alpha": alpha,
            "batch": batch,
            "loss_before": 2.0,
            "loss_after": 2 * (1 + (change + offset) / 100) if direction == "top" else 77.0,
        }
        for alpha, change in changes.items()
        for direction in ("random", "top", "full")
        for epoch, batch, offset in ((1, 0, -3.0), (1, 1, 1.0), (2, 0, 0.5), (2, 1, 1.5))
    ]
    return pd.DataFrame([fields(**run) | row for row in rows])


def variant_rows(name, eigenvalue, loss, *, diverged=False, **run):
    """Measured anew at every tenth of a hundred steps: over the last quarter the values are means, before it 99."""
    place = {"settings": name, "checkpoint": "planned", "start_step": 40, "epoch": 4.0, "diverged": False}
    factors = {80: 2.0, 90: 0.5, 100: 0.5}
    rows = [
        {
            **place,
            "step": step,
            "eigenvalue": eigenvalue * factors[step] if step > 75 else 99.0,
            "loss": loss * factors[step] if step > 75 else 99.0,
        }
        for step in range(0, 101, 10)
    ]
    # In between the eigenvector is followed, and the loss is not looked at.
    rows += [{**place, "step": 85, "eigenvalue": 1e6, "loss": np.nan}]
    if diverged:
        rows = [*rows[:3], {**place, "step": 31, "eigenvalue": np.nan, "loss": np.nan, "diverged": True}]
    return pd.DataFrame([fields(**run) | row for row in rows])


def together(*parts):
    return pd.concat(parts, ignore_index=True)


def course(height, *, at=3, num=11):
    """From a fifth of the peak to it, at the epoch ``at``, and to a third of it."""
    return [0.2 * height if epoch == 0 else height if epoch == at else 0.3 * height for epoch in range(num)]


def peaks_along(setting, values, strengths, *, quantity):
    """Peaks that become lower, or earlier, by the strength from one setting to the next, in both eigenvalues."""
    parts = []
    for seed, strength in enumerate(strengths):
        for index, value in enumerate(values):
            height = 100 * math.exp(-strength * index) if "height" in quantity else 100
            at = 5 - 2 * round(strength) * index if "time" in quantity else 3
            parts.append(spectrum_rows(course(height, at=at), grid=setting, seed=seed, **{setting: value}))
    return [("eigenvalues", "spectrum", together(*parts))]


def second_peaks(strengths):
    parts = []
    for setting, values in (("learning_rate", RATES), ("batch_size", BATCHES)):
        parts += peaks_along(setting, values, strengths, quantity=("height", "time"))
    return parts


def bowls(strengths):
    """In every seed four slices after epoch 2, bowls where the strength is positive; before it, there are none."""
    bowl, slope = [k**2 for k in KS], [-k for k in KS]
    return [
        (
            "slices",
            "slices",
            together(
                *(slice_rows(slope if strength > 0 else bowl, epoch=epoch, seed=seed) for epoch in (0, 1)),
                *(slice_rows(bowl if strength > 0 else slope, epoch=epoch, seed=seed) for epoch in (2, 2.5, 3, 4)),
            ),
        )
        for seed, strength in enumerate(strengths)
    ]


def scaled_steps(changes):
    return lambda strengths: [
        ("steps", "steps", together(*(step_rows(changes(value), seed=seed) for seed, value in enumerate(strengths))))
    ]


def variants_of(name, sign, *, losses=(1.0, 1.0, 1.0)):
    def tables(strengths):
        parts = []
        for seed, strength in enumerate(strengths):
            parts.append(variant_rows("sgd", 10.0, 0.5, seed=seed))
            parts.append(variant_rows(name, 10 * math.exp(sign * strength), 0.5 * losses[seed], seed=seed))
        return [("variants", "variants", together(*parts))]

    return tables


def nudged_norms(gammas, log_ratio):
    """Norms at gamma 1 and at others; the one that counts is the first, at the last of three epochs."""

    def tables(strengths):
        parts = []
        for seed, strength in enumerate(strengths):
            parts.append(spectrum_rows([1.0, 50.0, 20.0], gamma=1.0, grid="gamma", seed=seed))
            for gamma in gammas:
                value = 20 * math.exp(log_ratio(strength)) if gamma == gammas[0] else 21.0
                parts.append(spectrum_rows([1.0, 3.0, value], gamma=gamma, grid="gamma", seed=seed))
        return [("nudged", "spectrum", together(*parts))]

    return tables


def nudged_accuracies(*, tested=lambda _: 0.0, early=lambda _: 0.0):
    """Accuracies of gamma 0.01, 0.1 and 1; the best validation accuracy is in the middle, the early one at epoch 1."""

    def tables(strengths):
        parts = []
        for seed, strength in enumerate(strengths):
            for gamma in (0.01, 0.1, 1.0):
                test = 80 + seed + (tested(strength) if gamma == 0.01 else 0)
                first = 50 + seed + (early(strength) if gamma == 0.01 else 0)
                rows = history_rows([9, first, 90, 90], [9, 9, test, 1], gamma=gamma, grid="gamma", seed=seed)
                parts.append(rows)
        return [("nudged", "history", together(*parts))]

    return tables


def final_eigenvalues(strengths):
    """The largest rate ends below the flattest of the others by the strength."""
    parts = []
    for seed, strength in enumerate(strengths):
        for rate, value in zip(RATES, (12.0, 10.0, 10 * math.exp(-strength)), strict=True):
            parts.append(spectrum_rows([1.0, 100.0, value], grid="learning_rate", learning_rate=rate, seed=seed))
    return [("eigenvalues", "spectrum", together(*parts))]


def widths_along(strengths):
    """Slices that have risen by half at k = 1, so that the width is the expected step."""
    vees = [1 + 0.5 * abs(k) for k in KS]
    parts = []
    for setting, values in (("learning_rate", RATES), ("batch_size", BATCHES)):
        for seed, strength in enumerate(strengths):
            for index, value in enumerate(values):
                scale = math.exp(strength * index)
                run = {"grid": setting, "seed": seed, "learning_rate": 0.3, setting: value}
                parts += [slice_rows(vees, epoch=epoch, scale=scale, **run) for epoch in (2, 3)]
                parts.append(slice_rows(vees, epoch=1, scale=100.0, **run))
    return [("widths", "slices", together(*parts))]


def schedules_of(strengths, *, factor=10.0, late=2.0):
    """A change at 1 or at 7 of 10 epochs: for three epochs the eigenvalue is off by 2 + strength, and by 2 decades."""
    parts = []
    for seed, strength in enumerate(strengths):
        run = {"seed": seed, "learning_rate_factor": factor}
        parts.append(spectrum_rows([10.0] * 11, seed=seed))
        away = {1: late + strength, 7: late}
        for change, decades in away.items():
            sign = 1 if seed % 2 else -1
            courses = [
                10.0 if epoch <= change else 10.0 ** (1 + sign * decades) if epoch <= change + 3 else 1e30
                for epoch in range(11)
            ]
            parts.append(spectrum_rows(courses, learning_rate_epochs=f"[{change}]", **run))
    return [("schedules", "spectrum", together(*parts))]


def ends_of_runs(accuracies):
    """Twelve runs of two seeds whose last eigenvalue doubles from run to run, with the given test accuracies."""
    spectra, histories = [], []
    for index, accuracy in enumerate(accuracies):
        run = {"grid": "learning_rate", "learning_rate": 0.1 / 2 ** (index // 2), "seed": index % 2}
        spectra.append(spectrum_rows([1.0, 2.0**index], **run))
        histories.append(history_rows([10, 10], [5, accuracy], **run))
    return [("eigenvalues", "spectrum", together(*spectra)), ("eigenvalues", "history", together(*histories))]


def rows_of(tables, claim, *, validation_epoch=1):
    table = decide(collected(tables), validation_epoch=validation_epoch)
    return table[table["claim"] == claim].to_dict("records")


def verdict_of(tables, claim, **settings):
    (row,) = rows_of(tables, claim, **settings)
    return row


ABOUT_TEN = math.log(10) / 2
# From strengths to tables; from strengths to what is averaged over seeds; and from its unit to that of the effect.
COMPARISONS = {
    "b": (
        lambda strengths: peaks_along("learning_rate", RATES, strengths, quantity="height"),
        lambda s: -2 * s,
        np.exp,
    ),
    "c": (
        lambda strengths: peaks_along("learning_rate", RATES, strengths, quantity="time"),
        lambda s: np.log((5 - 4 * np.round(s)) / 5),
        np.exp,
    ),
    "d": (lambda strengths: peaks_along("batch_size", BATCHES, strengths, quantity="height"), lambda s: -2 * s, np.exp),
    "e": (
        lambda strengths: peaks_along("batch_size", BATCHES, strengths, quantity="time"),
        lambda s: np.log((5 - 4 * np.round(s)) / 5),
        np.exp,
    ),
    "f": (bowls, lambda s: (s > 0).astype(float), float),
    "g": (scaled_steps(lambda s: {0.5: -1 - s, 1: -1.0, 2: 4.0}), lambda s: -s, float),
    "h": (scaled_steps(lambda s: {0.5: -1.0, 1: -1.0, 2: s}), lambda s: s, float),
    "i": (variants_of("top_only", -1), lambda s: -s, np.exp),
    "j": (variants_of("top_removed", 1, losses=(1.0, 1.05, 0.95)), lambda s: s, np.exp),
    "k": (nudged_norms((0.01, 0.1), lambda s: ABOUT_TEN + s), lambda s: ABOUT_TEN + s, np.exp),
    "l": (nudged_norms((10.0, 5.0), lambda s: -ABOUT_TEN - s), lambda s: -ABOUT_TEN - s, np.exp),
    "n": (nudged_accuracies(early=lambda s: s), lambda s: s, float),
    "o": (final_eigenvalues, lambda s: -s, np.exp),
    "q": (widths_along, lambda s: 2 * s, np.exp),
    "r": (schedules_of, lambda s: s, float),
    "t": (scaled_steps(lambda s: {0.5: 1 - s, 1: 1.0, 2: 5.0}), lambda s: s, float),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("claim", COMPARISONS)
def test_a_claim_holds_does_not_or_stays_undecided_as_its_table_was_made(claim, answer):
    tables, numbers, scale = COMPARISONS[claim]
    strengths = np.array(STRENGTHS[answer])

    row = verdict_of(tables(strengths), claim)

    assert row["verdict"] == answer, row
    assert (row["seeds"], row["diverged"], row["model"], row["data"]) == (3, 0, "simple_cnn", "digits")
    values = numbers(strengths)
    assert row["effect"] == pytest.approx(scale(values.mean()))
    if np.ptp(values) > 0:
        # Either of two alternatives decides on a step that is too long or too short.
        interval = stats.ttest_1samp(values, 0).confidence_interval(0.975 if claim == "t" else 0.95)
        assert (row["low"], row["high"]) == pytest.approx((scale(interval.low), scale(interval.high)))
    assert bool(row["would_decide"]) == (answer == "undecided")


@pytest.mark.parametrize("claim", COMPARISONS)
def test_one_seed_decides_nothing_and_shows_its_value(claim):
    tables, numbers, scale = COMPARISONS[claim]

    row = verdict_of(tables([1.0]), claim)

    assert row["verdict"] == "undecided"
    assert "second seed" in row["would_decide"]
    assert row["effect"] == pytest.approx(scale(numbers(np.array([1.0]))[0]))
    assert np.isnan(row["low"])
    assert row["seeds"] == 1


def test_a_study_without_experiments_leaves_every_claim_undecided_and_says_what_is_missing():
    table = decide(collected([]), validation_epoch=3)

    assert table["claim"].tolist() == LETTERS == sorted(CLAIMS)
    assert (table["verdict"] == "undecided").all()
    assert table["would_decide"].str.contains("experiments? of kind").all()
    assert (table["seeds"] == 0).all()


# The numbers behind the verdicts.


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
def test_the_trends_p_value_counts_all_orders_that_are_at_least_as_well_ordered(num_seeds, num_settings):
    generator = np.random.default_rng(1)
    values = generator.normal(size=(num_seeds, num_settings))
    places = np.arange(1, num_settings + 1)
    observed = (stats.rankdata(values, axis=1) @ places).sum()
    of_row = [np.dot(order, places) for order in itertools.permutations(places)]
    sums = np.array([sum(rows) for rows in itertools.product(of_row, repeat=num_seeds)])
    middle = num_seeds * num_settings * (num_settings + 1) ** 2 / 4

    found = intervals.trend(values)

    assert found.rising == pytest.approx((sums >= observed).mean())
    assert found.falling == pytest.approx((sums >= 2 * middle - observed).mean())
    perfect = intervals.trend(np.tile(places, (num_seeds, 1)))
    assert perfect.rising == pytest.approx(1 / math.factorial(num_settings) ** num_seeds)


def test_ten_settings_are_tested_without_listing_their_orders():
    assert intervals.trend(np.tile(np.arange(10.0), (2, 1))).rising < 1e-4


@settings(deadline=None, max_examples=15)
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


@settings(deadline=None, max_examples=30)
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


# The rules.


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


@settings(deadline=None)
@given(tables_of_settings())
def test_an_order_is_one_of_ranks_and_turns_with_its_settings(table):
    verdict = verdicts.ordered(table, rises=True, setting="learning_rate")

    p = stats.page_trend_test(table.to_numpy(), method="exact").pvalue
    turned = stats.page_trend_test(table.to_numpy()[:, ::-1], method="exact").pvalue
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


@given(st.floats(-1e300, 1e300))
def test_a_number_is_written_with_three_digits(value):
    text = wording.number(value)

    assert float(text.replace(",", "")) == pytest.approx(value, rel=5.1e-3, abs=0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (np.False_, "false"), ("SGD(0.1)", "SGD(0.1)"), (0.05, "0.05"), (128.0, "128"), (np.inf, "full")],
)
def test_a_setting_is_written_as_in_the_config_and_a_name_as_it_is(value, text):
    assert wording.setting_text(value) == text


# The claims that are no comparison of seeds.


def runs_of_courses(courses):
    """A run for each course of the largest eigenvalue, at three learning rates in turn, and two seeds."""
    parts = [
        spectrum_rows(values, grid="learning_rate", learning_rate=RATES[index % 3] * (1 + index // 6), seed=index % 2)
        for index, values in enumerate(courses)
    ]
    return [("eigenvalues", "spectrum", together(*parts))]


FOLLOWS = [1.0, 4.0, 3.0, 2.0, 2.0]
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


@pytest.mark.parametrize(
    ("numbers", "answer"),
    [([0.2, -0.1, 0.1], "holds"), ([3.0, 3.1, 2.9], "does not hold"), ([2.0, -0.5, 0.3], "undecided")],
)
def test_test_accuracies_are_alike_where_they_are_within_a_point(numbers, answer):
    row = verdict_of(nudged_accuracies(tested=lambda s: s)(numbers), "m")

    assert row["verdict"] == answer
    # The rate falls during training; the run's own is that of its beginning.
    assert row["configuration"] == "learning rate 0.1, batch size 32"
    assert row["effect"] == pytest.approx(np.mean(numbers))
    assert row["low"] == pytest.approx(stats.ttest_1samp(numbers, 0).confidence_interval().low)
    # The test accuracy is that at the best validation accuracy.
    assert "gamma 0.01: 8" in row["measured"]


@pytest.mark.parametrize(
    ("accuracies", "answer"),
    [
        (np.linspace(90, 60, 12), "holds"),
        (np.linspace(60, 90, 12), "does not hold"),
        ([70, 70, 75, 75] * 3, "undecided"),
        ([70] * 12, "undecided"),
    ],
)
def test_flat_runs_generalise_where_accuracy_falls_with_the_eigenvalue(accuracies, answer):
    row = verdict_of(ends_of_runs(accuracies), "s")

    assert row["verdict"] == answer
    assert row["seeds"] == 2
    if np.ptp(accuracies):
        assert row["effect"] == pytest.approx(stats.spearmanr(np.arange(12), accuracies).statistic)
    else:
        assert row["would_decide"] == "runs that differ"


@pytest.mark.parametrize("claim", ["a", "s"])
def test_many_runs_of_one_seed_decide_nothing(claim):
    runs = [*runs_of_courses([FOLLOWS] * 6), *ends_of_runs(np.linspace(90, 60, 12))]
    one = [(kind, name, table.assign(seed=4)) for kind, name, table in runs]

    row = verdict_of(one, claim)

    assert (row["verdict"], row["seeds"], row["would_decide"]) == ("undecided", 1, "a second seed")
    assert np.isfinite(row["low"])


def test_the_correlation_is_that_of_the_last_checkpoint_of_a_table_too():
    ends = {("gamma", gamma): gamma for gamma in (1.0, 2.0, 4.0, 8.0, 16.0)}
    histories = [
        history_rows([10, 10], [50 + gamma, 90 - gamma], grid="gamma", gamma=gamma, seed=seed)
        for _, gamma in ends
        for seed in range(3)
    ]
    tables = [*table_of_results(ends), ("table", "history", together(*histories))]

    row = verdict_of(tables, "s")

    assert row["verdict"] == "holds"
    assert "largest eigenvalue 1.00 to" in row["measured"]


def test_each_distinct_run_counts_once_in_the_correlation_over_kinds():
    tables = ends_of_runs(np.linspace(90, 60, 12))
    twice = [*tables, *(("nudged", name, table.assign(grid="gamma")) for _, name, table in tables)]
    elsewhere = [("agreement", name, table.assign(seed=9, run="other")) for _, name, table in tables]

    assert verdict_of([*twice, *elsewhere], "s")["measured"].startswith("12 runs")


# What each claim looks at.


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


def test_a_run_that_only_its_history_says_diverged_is_left_out():
    tables = final_eigenvalues(STRENGTHS["holds"])
    run = tables[0][2]["run"].iloc[0]
    history = history_rows([1, 2], [1, 2], diverged=True).assign(run=run)

    row = verdict_of([*tables, ("eigenvalues", "history", history)], "o")

    assert row["diverged"] == 1
    # The other rate is now the flattest of the others, and was before.
    assert row["verdict"] == "holds"


def test_batch_sizes_are_ordered_as_numbers_the_full_batch_last():
    row = verdict_of(peaks_along("batch_size", BATCHES, STRENGTHS["holds"], quantity="height"), "d")

    assert re.match(r"batch size full: 100\.?0* ± 0.*, 128: .*, 8: ", row["measured"])


def test_models_and_what_is_fixed_make_rows_of_their_own():
    tables = []
    for model, answer in (("simple_cnn", "holds"), ("resnet8", "does not hold")):
        made = peaks_along("learning_rate", RATES, STRENGTHS[answer], quantity="height")
        tables += [(kind, name, table.assign(model=model, run=model + table["run"])) for kind, name, table in made]
    made = peaks_along("learning_rate", RATES, STRENGTHS["undecided"], quantity="height")
    tables += [(kind, name, table.assign(momentum=0.9, run="m" + table["run"])) for kind, name, table in made]

    rows = {(row["model"], row["configuration"]): row["verdict"] for row in rows_of(tables, "b")}

    assert rows == {
        ("simple_cnn", "momentum 0, batch size 32"): "holds",
        ("resnet8", "batch size 32"): "does not hold",
        ("simple_cnn", "momentum 0.9, batch size 32"): "undecided",
    }


def test_claims_go_by_the_kind_of_an_experiment():
    tables = peaks_along("learning_rate", RATES, STRENGTHS["holds"], quantity="height")
    others = [("spectrum", name, table) for _, name, table in tables]

    assert verdict_of(others, "b")["verdict"] == "undecided"
    renamed = [(kind, name, table.assign(experiment="slices")) for kind, name, table in tables]
    assert verdict_of(renamed, "b")["verdict"] == "holds"


BOWLS = {
    "parabola": ([k**2 for k in KS], True),
    "off centre by two": ([abs(k - 2) for k in KS], True),
    "off centre by four": ([abs(k - 4) for k in KS], False),
    "flat at the bottom": ([4, 1, 0, 0, 0, 0, 0, 1, 4], True),
    "flat": ([1] * 9, False),
    "flat on one side": ([4, 3, 2, 1, 0, 0, 0, 0, 0], False),
    "with a step back": ([4, 1, 2, 1, 0, 1, 2, 3, 4], False),
    "slope": (list(range(9)), False),
    "hill": ([-(k**2) for k in KS], False),
    "overflows outside": ([np.inf, 9, 2, 1, 0, 1, 2, np.inf, np.nan], True),
    "lost": ([np.nan] * 9, False),
}


@pytest.mark.parametrize("name", BOWLS)
def test_a_bowl_has_its_minimum_within_two_steps_and_rises_on_both_sides(name):
    losses, expected = BOWLS[name]
    assert is_bowl(np.array(KS), np.array(losses, dtype=float)) is expected


def test_what_lies_beyond_eight_steps_does_not_matter_to_a_bowl():
    assert is_bowl(np.array([-16, *KS, 16]), np.array([0.0, *(1 + k**2 for k in KS), -5.0]))


@given(st.lists(st.floats(0, 10), min_size=4, max_size=4), st.lists(st.floats(0, 10), min_size=4, max_size=4))
def test_any_rises_from_zero_make_a_bowl_and_mirror_to_one(left, right):
    losses = [*np.cumsum(left)[::-1], 0.0, *np.cumsum(right)]
    rises = sum(left) > 0 and sum(right) > 0
    # A bottom that is flat beyond two steps reaches zero all the same: the minimum is at k = 0 too.
    assert is_bowl(np.array(KS), np.array(losses)) is rises
    assert is_bowl(np.array(KS), np.array(losses[::-1])) is rises


def test_slices_say_how_far_out_they_were_looked_at():
    rows = together(*(slice_rows([4, 1, 0, 1, 4], ks=(-2, -1, 0, 1, 2), epoch=3, seed=seed) for seed in (0, 1)))

    row = verdict_of([("slices", "slices", rows)], "f")

    assert row["verdict"] == "holds"
    assert "out to k = ±2" in row["measured"]


def test_the_width_needs_both_settings_and_counts_open_slices():
    rows = widths_along(STRENGTHS["holds"])[0][2]
    rates = rows[rows["grid"] == "learning_rate"]
    row = verdict_of([("widths", "slices", rates)], "q")
    assert row["verdict"] == "undecided"
    assert "batch_size" in row["would_decide"]
    # The third rate's slices of one seed stay flat: that seed has no part in the order.
    flat = (rows["learning_rate"] == 0.4) & (rows["seed"] == 0)
    row = verdict_of([("widths", "slices", rows.assign(loss=rows["loss"].where(~flat, 1.0)))], "q")
    assert row["verdict"] == "holds"
    assert row["seeds"] == 2
    assert "2 of 18 slices open" in row["measured"]


def test_a_widths_experiment_may_be_one_of_kind_slices():
    (_, name, rows), *_ = widths_along(STRENGTHS["holds"])

    assert verdict_of([("slices", name, rows.assign(grid="any"))], "q")["verdict"] == "holds"


def test_a_step_after_which_the_loss_overflows_has_no_mean_and_its_seed_is_named():
    tables = scaled_steps(lambda s: {0.5: -1.0, 1: -1.0, 2: s})([1.0, 1.1, 0.9, 1.0])
    rows = tables[0][2]
    hit = (rows["seed"] == 3) & (rows["alpha"] == 2) & (rows["batch"] == 1) & (rows["step"] == 10)
    rows = rows.assign(loss_after=rows["loss_after"].where(~hit, np.inf))

    row = verdict_of([("steps", "steps", rows)], "h")

    assert (row["verdict"], row["seeds"]) == ("holds", 3)
    assert "1 of 4 seeds without a finite value" in row["measured"]


def test_a_seed_that_lacks_the_change_of_one_alternative_counts_for_the_other():
    tables = scaled_steps(lambda s: {0.5: 1 - s, 1: 1.0, 2: 5.0})([1.0, 1.1, 0.9])
    rows = tables[0][2]
    lost = (rows["seed"] == 2) & (rows["alpha"] == 2)

    row = verdict_of([("steps", "steps", rows.assign(loss_after=rows["loss_after"].where(~lost, np.inf)))], "t")

    assert (row["verdict"], row["seeds"]) == ("holds", 2)
    assert row["effect"] == pytest.approx(1.0)
    assert "less half the step" in row["test"]


def test_a_run_whose_loss_is_lost_has_no_steps():
    tables = scaled_steps(lambda s: {0.5: -1.0, 1: -1.0, 2: s})([1.0, 1.1, 0.9])
    lost = (
        step_rows({0.5: 0.0}, seed=7).query("direction == 'top'").head(1).assign(loss_before=np.nan, loss_after=np.nan)
    )

    row = verdict_of([*tables, ("steps", "steps", lost)], "h")

    assert (row["verdict"], row["seeds"], row["diverged"]) == ("holds", 3, 1)


def test_steps_without_alpha_two_leave_the_claims_undecided():
    rows = together(*(step_rows({0.5: -1.0, 1: -1.0}, seed=seed) for seed in range(3)))

    assert "alpha 2" in verdict_of([("steps", "steps", rows)], "h")["would_decide"]


@pytest.mark.parametrize(
    ("losses", "answer"),
    [((1.0, 1.1, 0.95), "holds"), ((2.0, 2.1, 1.9), "does not hold"), ((1.0, 2.0, 0.5), "undecided")],
)
def test_a_sharper_region_counts_only_at_a_similar_loss(losses, answer):
    row = verdict_of(variants_of("top_removed", 1, losses=losses)(STRENGTHS["holds"]), "j")

    assert row["verdict"] == answer
    assert row["measured"].startswith("sharper: holds")
    assert f"loss within 25 %: {answer}" in row["measured"]


def test_a_variant_is_averaged_over_the_last_quarter_where_it_was_measured_anew():
    row = verdict_of(variants_of("top_only", -1)([math.log(2)] * 2), "i")

    # Twice, half and half: the mean is the value itself.
    assert "top_only 5.00 ± 0.00, sgd 10.0 ± 0.0" in row["measured"]


def test_a_variant_that_diverged_takes_its_seed_along():
    tables = variants_of("top_removed", 1)([1.0, 1.1, 0.9])
    lost = together(
        variant_rows("sgd", 10.0, 0.5, seed=3), variant_rows("top_removed", 1.0, 1.0, seed=3, diverged=True)
    )
    # Later in its own training this run diverged, after the switch.
    later = history_rows([1, 2], [1, 2], diverged=True, seed=0)

    row = verdict_of([*tables, ("variants", "variants", lost), ("variants", "history", later)], "j")

    assert (row["verdict"], row["seeds"], row["diverged"]) == ("holds", 3, 1)


def test_variants_without_plain_sgd_leave_the_claims_undecided():
    rows = together(*(variant_rows("top_only", 1.0, 1.0, seed=seed) for seed in range(3)))

    row = verdict_of([("variants", "variants", rows)], "i")
    assert (row["verdict"], row["would_decide"]) == ("undecided", "runs of the variant sgd that do not diverge")


def test_nudging_says_whether_it_is_sharper_at_all():
    row = verdict_of(nudged_norms((0.1,), lambda s: s)([0.5, 0.55, 0.45]), "k")

    assert row["verdict"] == "does not hold"  # a factor of 1.6 is not about ten
    assert "gamma 0.1 sharper at all: holds" in row["measured"]
    assert verdict_of(nudged_norms((0.1,), lambda s: s)([0.5, 0.55, 0.45]), "l")["verdict"] == "undecided"


def test_the_norm_is_that_of_the_tracked_eigenvalues_at_the_last_checkpoint():
    row = verdict_of(nudged_norms((0.1,), lambda s: s)([0.0, 0.0]), "k")

    assert f"gamma 0.1: {20 * math.sqrt(1.25):.1f} ± 0.0" in row["measured"]


def test_of_two_settings_that_measured_the_same_runs_the_one_with_more_eigenvalues_counts():
    (_, _, rows), *_ = nudged_norms((0.1,), lambda s: s)([2.0, 2.1])
    fewer = rows[(rows["which"] == "largest") & (rows["rank"] == 0)].assign(settings="fewer", eigenvalue=1.0)

    both = [("nudged", "spectrum", fewer), ("nudged", "spectrum", rows)]
    assert verdict_of(both, "k") == verdict_of([("nudged", "spectrum", rows)], "k")


def table_of_results(ends, seeds=(0, 1, 2)):
    """Norms of plain SGD at three rates and of three gammas, at the last checkpoint of a table of results."""
    parts = []
    for seed in seeds:
        for (grid, setting), value in ends.items():
            run = {"grid": grid, "learning_rate": setting} if grid == "sgd" else {"grid": grid, "gamma": setting}
            value = value * (1 + 0.01 * seed * (1 + setting))
            parts += [
                spectrum_rows([99.0], epochs=[2], checkpoint="best", seed=seed, **run),
                spectrum_rows([value], epochs=[8], checkpoint="last", seed=seed, **run),
            ]
    return [("table", "spectrum", together(*parts))]


def test_the_largest_rate_of_a_table_is_compared_with_all_its_rows():
    ends = {("sgd", 0.5): 1.0, ("sgd", 0.05): 9.0, ("gamma", 1.0): 5.0, ("gamma", 0.1): 20.0, ("gamma", 10.0): 2.0}
    row = verdict_of(table_of_results(ends), "o")
    assert row["verdict"] == "holds"
    expected = [(1 + 0.015 * seed) / (2 * (1 + 0.11 * seed)) for seed in range(3)]
    assert row["effect"] == pytest.approx(stats.gmean(expected))
    row = verdict_of(table_of_results(ends | {("gamma", 10.0): 0.2}), "o")
    assert row["verdict"] == "does not hold"
    # The rows of gamma are compared too, each with that of the same seed.
    assert verdict_of(table_of_results(ends), "k")["verdict"] == "holds"


def test_an_early_epoch_that_no_history_has_leaves_speed_undecided():
    row = verdict_of(nudged_accuracies(early=lambda s: s)(STRENGTHS["holds"]), "n", validation_epoch=50)

    assert (row["verdict"], row["seeds"]) == ("undecided", 0)
    assert "50 epochs" in row["would_decide"]


@pytest.mark.parametrize(
    ("value", "expected"), [("[]", None), ("[3]", 3), ("[7, 2]", 2), (np.nan, None), ([], None), ((4,), 4)]
)
def test_the_epoch_of_a_change_is_read_from_text(value, expected):
    found = first_change(value)
    assert np.isnan(found) if expected is None else found == expected


def test_raising_and_lowering_the_rate_are_rows_of_their_own():
    raised = schedules_of(STRENGTHS["holds"])
    lowered = [
        (kind, name, table.assign(learning_rate=1.0, run="lowered" + table["run"]))
        for kind, name, table in schedules_of(STRENGTHS["does not hold"], factor=0.1)
    ]
    rows = rows_of([*raised, *lowered], "r")

    found = {row["configuration"]: row["verdict"] for row in rows}
    assert found == {
        "learning rate 0.1, batch size 32, the rate raised by a factor 10": "holds",
        "learning rate 1, batch size 32, the rate lowered by a factor 0.1": "does not hold",
    }
    assert all("in 3 epochs" in row["measured"] for row in rows)


def test_a_change_at_one_time_only_or_without_the_steady_run_decides_nothing():
    (_, _, rows), *_ = schedules_of(STRENGTHS["holds"])
    for part in (rows[rows["learning_rate_epochs"] != "[7]"], rows[rows["learning_rate_epochs"] != "[]"]):
        row = verdict_of([("schedules", "spectrum", part)], "r")
        assert row["verdict"] == "undecided"
        assert "early, late and never" in row["would_decide"]


def test_a_run_that_diverges_after_its_change_is_left_out():
    (_, _, rows), *_ = schedules_of([1.0, 1.1, 0.9, 5.0])
    hit = (rows["seed"] == 3) & (rows["learning_rate_epochs"] == "[1]") & (rows["epoch"] == 3)

    row = verdict_of([("schedules", "spectrum", rows.assign(eigenvalue=rows["eigenvalue"].where(~hit)))], "r")

    assert (row["verdict"], row["seeds"], row["diverged"]) == ("holds", 3, 1)


# The whole.


def whole_study():
    return [
        *peaks_along("learning_rate", RATES, STRENGTHS["holds"], quantity=("height", "time")),
        *peaks_along("batch_size", BATCHES, STRENGTHS["holds"], quantity=("height", "time")),
        *bowls(STRENGTHS["holds"]),
        *widths_along(STRENGTHS["holds"]),
        *scaled_steps(lambda s: {0.5: -s, 1: -0.5, 2: s})(STRENGTHS["holds"]),
        *variants_of("top_only", -1)(STRENGTHS["holds"]),
        *variants_of("top_removed", 1)(STRENGTHS["holds"]),
        *nudged_norms((0.1, 10.0), lambda s: 2 * s)(STRENGTHS["holds"]),
        *nudged_accuracies(early=lambda s: s)(STRENGTHS["holds"]),
        *schedules_of(STRENGTHS["holds"]),
        *ends_of_runs(np.linspace(90, 60, 12)),
        *table_of_results({("sgd", 0.5): 1.0, ("sgd", 0.05): 9.0, ("gamma", 1.0): 5.0, ("gamma", 0.1): 20.0}),
    ]


def test_every_verdict_is_an_answer_with_a_reason_where_there_is_none():
    table = decide(collected(whole_study()), validation_epoch=1)

    assert sorted(set(table["claim"])) == LETTERS
    assert table["claim"].is_monotonic_increasing
    assert set(table["verdict"]) <= set(ANSWERS)
    assert ((table["would_decide"] != "") == (table["verdict"] == "undecided")).all()
    assert (table["finding"] != "").all()
    assert (table["quantity"] != "").all()


WHOLE = whole_study()
MEASURED = ("eigenvalue", "loss", "loss_before", "loss_after", "scale", "test_accuracy", "validation_accuracy")


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_no_missing_or_diverged_value_stops_the_verdicts(data):
    tables = list(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(tables) - 1))
        kind, name, table = tables[place]
        rows = np.random.default_rng(data.draw(st.integers(0, 99))).random(len(table)) < data.draw(st.floats(0, 1))
        damage = data.draw(st.sampled_from(("value", "rows", "column", "one run")))
        # A column that was taken away before is not there to be damaged.
        columns = [column for column in MEASURED if column in table] or ["epoch"]
        column = data.draw(st.sampled_from(columns))
        bad = data.draw(st.sampled_from((np.nan, np.inf, 0.0, -1.0)))
        if damage == "value":
            table = table.assign(**{column: table[column].astype(float).where(~rows, bad)})
        elif damage == "rows":
            table = table[~rows]
        elif damage == "column":
            table = table.drop(columns=column)
        else:
            table = table[table["run"] == table["run"].iloc[0]] if len(table) else table
        tables[place] = (kind, name, table)

    found = decide(collected(tables), validation_epoch=1)

    assert set(found["claim"]) == set(LETTERS)
    assert set(found["verdict"]) <= set(ANSWERS)
    assert ((found["would_decide"] != "") == (found["verdict"] == "undecided")).all()
    assert as_markdown(found).count("\n| ") >= len(LETTERS)


def test_the_stage_reads_collected_tables_and_writes_the_same_verdicts(tmp_path):
    tables = whole_study()
    paths = [tmp_path / f"{index}.csv" for index in range(len(tables))]
    for path, (_, _, table) in zip(paths, tables, strict=True):
        table.assign(code="1a2b3c", torch="2.14.1", device="cpu AVX512", threads=1).to_csv(path, index=False)

    claims(
        kinds=[kind for kind, _, _ in tables],
        measurements=[name for _, name, _ in tables],
        tables=paths,
        settings="{}",
        validation_epoch=1,
        markdown=tmp_path / "claims.md",
        csv=tmp_path / "claims.csv",
    )

    expected = decide(collected(tables), validation_epoch=1)
    written = pd.read_csv(tmp_path / "claims.csv", keep_default_na=False)
    assert written["verdict"].tolist() == expected["verdict"].tolist()
    assert written["measured"].tolist() == expected["measured"].tolist()
    source = "code 1a2b3c; torch 2.14.1; cpu AVX512; threads 1"
    assert set(written["made_by"]) == {source}
    assert (tmp_path / "claims.md").read_text() == f"{as_markdown(expected)}\nComputed by {source}.\n"


def test_the_markdown_is_one_table_with_the_verdict_after_the_letter():
    table = decide(collected(whole_study()), validation_epoch=1)

    lines = as_markdown(table).splitlines()

    start = lines.index("") + 1
    assert lines[0].startswith("Every claim of the poster")
    assert lines[start].startswith("| Claim | Verdict |")
    rows = lines[start + 2 :]
    assert len(rows) == len(table)
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines[start:]}) == 1
    assert all(re.match(r"\| [a-t] \| \*\*(holds|does not hold|undecided)\*\* \| ", row) for row in rows)


def test_the_claims_depend_on_no_module_that_imports_torch_or_draws():
    paths = sources("sharpness.stages.claims")

    assert not any(
        re.search(r"^\s*(import|from) torch", Path(path).read_text(encoding="utf-8"), re.MULTILINE) for path in paths
    )
    assert not any("/figures/" in path for path in paths)


# What a claim takes together.


def widths_growing(times, *, settings, rates=RATES, kind="widths", per_epoch=10, **run):
    """Slices whose width is the epoch times the rate: a mean over other epochs is another mean."""
    vee = [1 + 0.5 * abs(k) for k in KS]
    rows = together(
        *(
            slice_rows(vee, epoch=epoch, scale=epoch * rate, learning_rate=rate, seed=seed, **run).assign(
                settings=settings, step=round(per_epoch * epoch), epoch=round(per_epoch * epoch) / per_epoch
            )
            for rate in rates
            for seed in (0, 1, 2)
            for epoch in times
        )
    )
    return kind, "slices", rows


def widths_by_rate(row):
    (text,) = re.findall(r"\(learning rate ([^)]*)\)", row["measured"])
    cells = dict(cell.split(": ") for cell in text.split(", "))
    assert all(cell.split(" ± ")[1].strip("0.") == "" for cell in cells.values())
    return {float(rate): float(cell.split()[0]) for rate, cell in cells.items()}


def test_widths_are_compared_as_they_were_measured():
    # The middle rate was measured oftener too, and later: in the mean of both it would be the widest.
    tables = [
        widths_growing((2, 4), settings="widths"),
        widths_growing((2, 4, 20, 30, 40), settings="top", kind="slices", rates=RATES[1:2]),
    ]
    row = verdict_of(tables, "q")
    assert row["configuration"] == "settings widths"
    assert widths_by_rate(row) == pytest.approx({rate: 3 * rate for rate in RATES}, rel=5e-3)
    assert "0 of 18 slices open" in row["measured"]


def test_widths_are_compared_at_the_checkpoints_that_all_runs_have():
    # One rate has longer runs, in steps that do not fall on the same fractions of an epoch.
    tables = [
        widths_growing((2, 2.5, 4), settings="widths", rates=RATES[:2]),
        widths_growing((2, 2.5, 4, 8, 16), settings="widths", rates=RATES[2:], per_epoch=39, epochs=16),
    ]
    row = verdict_of(tables, "q")
    times = np.mean([2, 2.5, 4])
    assert widths_by_rate(row) == pytest.approx(
        {rate: times * rate for rate in RATES}, rel=5e-3
    )  # printed to three digits
    apart = [
        widths_growing((2, 4), settings="widths", rates=RATES[:2]),
        widths_growing((3, 5), settings="widths", rates=RATES[2:]),
    ]
    rows = rows_of(apart, "q")
    assert all("at the same epochs of all runs" in row["would_decide"] for row in rows)


@given(
    st.lists(st.integers(8, 200), min_size=1, max_size=3, unique=True),
    st.lists(st.sampled_from([2 + quarter / 4 for quarter in range(40)]), min_size=1, max_size=6, unique=True),
    st.data(),
)
@settings(deadline=None, max_examples=50)
def test_planned_epochs_that_all_runs_have_are_found_again_from_their_steps(per_epochs, shared, data):
    planned, rows = {}, []
    for per_epoch in per_epochs:
        others = data.draw(st.lists(st.integers(20, 40), max_size=3, unique=True))  # whole epochs after the shared ones
        planned[per_epoch] = {*shared, *others}
        steps = sorted({round(epoch * per_epoch) for epoch in planned[per_epoch]})
        rows += [{"run": str(per_epoch), "step": step, "epoch": step / per_epoch} for step in steps]
    found = at_shared_times(pd.DataFrame(rows))
    wanted = set.intersection(*planned.values())
    for per_epoch in per_epochs:
        steps = {round(epoch * per_epoch) for epoch in wanted}
        assert set(found.loc[found["run"] == str(per_epoch), "step"]) == steps


def two_settings(name, factor):
    """The tables of claim b, and the same runs measured again: eigenvalues times a factor that turns their order."""
    (first,) = peaks_along("learning_rate", RATES, STRENGTHS["holds"], quantity="height")
    again = first[2].assign(settings=name)
    again["eigenvalue"] *= again["learning_rate"].map(dict(zip(RATES, factor, strict=True)))
    return [first, (*first[:2], again)]


@pytest.mark.parametrize("order", [1, -1])
def test_a_block_of_the_hessian_decides_no_claim_on_its_largest_eigenvalue(order):
    whole = {"num_examples": 65, "resample": False, "augment": False, "parameters": "*"}
    known = {"leading": whole, "first_layer": {**whole, "parameters": "0.*"}}
    tables = two_settings("first_layer", (1, 100, 10_000))[::order]
    table = decide(collected(tables, known), validation_epoch=1)
    (row,) = table[table["claim"] == "b"].to_dict("records")
    (alone,) = rows_of(two_settings("first_layer", (1, 1, 1))[:1], "b")
    assert (row["verdict"], row["measured"], row["configuration"]) == ("holds", alone["measured"], "batch size 32")


@pytest.mark.parametrize("order", [1, -1])
def test_runs_that_were_measured_twice_are_judged_twice(order):
    rows = rows_of(two_settings("resampled", (1, 100, 10_000))[::order], "b")
    assert {row["configuration"]: row["verdict"] for row in rows} == {
        "settings leading, batch size 32": "holds",
        "settings resampled, batch size 32": "does not hold",
    }


def test_runs_of_two_lengths_are_judged_apart_where_a_seed_has_both():
    (short,) = peaks_along("learning_rate", RATES, STRENGTHS["holds"], quantity="height")
    (long,) = peaks_along("learning_rate", RATES, STRENGTHS["does not hold"], quantity="height")
    longer = long[2].assign(epochs=20, run=long[2]["run"] + "-e20")
    rows = rows_of([short, ("eigenvalues", "spectrum", longer)], "b")
    assert {row["configuration"]: row["verdict"] for row in rows} == {
        "batch size 32, epochs 10": "holds",
        "batch size 32, epochs 20": "does not hold",
    }
    # A length that goes with the setting is no reason to compare nothing.
    mixed = short[2].assign(epochs=np.where(short[2]["learning_rate"] == RATES[0], 20, 10))
    assert verdict_of([("eigenvalues", "spectrum", mixed)], "b")["verdict"] == "holds"


def test_nudged_runs_of_other_directions_are_judged_apart_beside_the_same_sgd():
    ((_, _, rows),) = nudged_norms((0.01,), lambda s: ABOUT_TEN + s)(STRENGTHS["holds"])
    rows = rows.assign(num_directions=np.where(rows["gamma"] == 1, 0, 5))
    nudged_more = rows[rows["gamma"] != 1]
    more = nudged_more.assign(num_directions=10, run=nudged_more["run"] + "-K10", eigenvalue=1.0)
    found = rows_of([("nudged", "spectrum", together(rows, more))], "k")
    words = {re.search(r"num directions (\d+)", row["configuration"]).group(1): row["verdict"] for row in found}
    assert words == {"5": "holds", "10": "does not hold"}


def test_eigenvalues_of_one_hessian_are_correlated_together_and_of_two_apart():
    tables = ends_of_runs([90 - 5 * index for index in range(12)])
    spectrum = tables[0][2]
    again = spectrum.assign(settings=np.where(spectrum["learning_rate"] < 0.05, "more", "leading"))
    tables[0] = (*tables[0][:2], again)
    whole = {"num_examples": 65, "resample": False, "augment": False, "parameters": "*"}

    def rows(known):
        table = decide(collected(tables, known), validation_epoch=1)
        return table[table["claim"] == "s"].to_dict("records")

    (row,) = rows({"leading": {**whole, "num_eigenvalues": 2}, "more": {**whole, "num_eigenvalues": 9}})
    assert row["verdict"] == "holds"
    assert row["measured"].startswith("12 runs")
    apart = rows({"leading": whole, "more": {**whole, "num_examples": 1300}})
    assert {row["configuration"] for row in apart} == {"settings leading", "settings more"}
    assert sum(int(row["measured"].split()[0]) for row in apart) == 12


def test_bowls_of_two_rates_are_not_averaged():
    parts = [table for _, _, table in bowls(STRENGTHS["holds"])]
    faster = [table for _, _, table in bowls(STRENGTHS["does not hold"])]
    faster = [table.assign(learning_rate=0.7, run=table["run"] + "-faster") for table in faster]
    rows = rows_of([("slices", "slices", together(*parts, *faster))], "f")
    assert {row["configuration"]: row["verdict"] for row in rows} == {
        "learning rate 0.1": "holds",
        "learning rate 0.7": "does not hold",
    }


def test_tables_without_a_row_decide_nothing(tmp_path):
    """As a file has them where every run had stopped before its checkpoints: names of columns, of no type."""
    tables = []
    for kind, measurement, table in whole_study():
        path = tmp_path / "table.csv"
        table.iloc[:0].to_csv(path, index=False)
        tables.append((kind, measurement, pd.read_csv(path)))
    found = decide(collected(tables), validation_epoch=1)
    assert found["claim"].tolist() == LETTERS
    assert (found["verdict"] == "undecided").all()
    # Beside experiments that have rows, they take nothing away.
    both = decide(collected([*whole_study(), *tables]), validation_epoch=1)
    pd.testing.assert_frame_equal(both, decide(collected(whole_study()), validation_epoch=1))


@pytest.mark.parametrize("gammas", [(0.01, 0.1, 1.0), (0.1, 0.01), ()])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_table_of_verdicts_tells_the_early_epoch_wherever_one_was_looked_at(gammas, epoch, tmp_path):
    tables = [(kind, name, table[table["gamma"].isin(gammas)]) for kind, name, table in nudged_accuracies()([0.0, 0.1])]
    decide(collected(tables if gammas else []), validation_epoch=epoch).to_csv(tmp_path / "claims.csv", index=False)
    assert epochs_of_verdicts(tmp_path / "claims.csv") == ({str(epoch)} if gammas else set())
