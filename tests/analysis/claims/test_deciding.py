"""The verdicts on every claim: invented tables, and answers by closed forms and scipy's tests."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from claims.invented import (
    ANSWERS,
    BATCHES,
    LETTERS,
    RATES,
    STRENGTHS,
    bowls,
    declining_courses,
    final_eigenvalues,
    flat_runs_generalise,
    heights_along,
    nudged_accuracies,
    nudged_norms,
    parabola,
    peak_time,
    scaled_steps,
    schedules_of,
    second_peaks,
    times_along,
    variants_of,
    verdict_of,
    whole_study,
    widths_along,
    with_seeds,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sharpness.analysis.claims.collected import collected
from sharpness.analysis.claims.deciding import as_markdown, decide
from sharpness.analysis.claims.poster import CLAIMS

RATE, BATCH = math.log10(2), math.log10(8)  # decades from one setting to the next


def slopes_of_times(strengths, step):
    """Slopes of log epoch over the settings, by least squares."""
    epochs = [[peak_time(-s, place) for place in range(3)] for s in strengths]
    return np.array([np.polyfit(step * np.arange(3), np.log10(of_seed), 1)[0] for of_seed in epochs])


# From strengths to tables, and from strengths to the number of each seed.
COMPARISONS = {
    "b": (lambda s: heights_along("learning_rate", RATES, s), lambda s: -s / RATE),
    "c": (lambda s: times_along("learning_rate", RATES, s), lambda s: slopes_of_times(-s, RATE)),
    "d": (lambda s: heights_along("batch_size", BATCHES, s, rises=True), lambda s: s / BATCH),
    "e": (lambda s: times_along("batch_size", BATCHES, s, rises=True), lambda s: slopes_of_times(s, BATCH)),
    "f": (bowls, lambda s: np.where(s > 0, 0.0, 8.0)),
    "g": (scaled_steps(lambda s: parabola(10 ** (-0.2 * s))), lambda s: -0.2 * s),
    "h": (scaled_steps(lambda s: {0.5: -1.0, 1: -1.0, 2: s}), lambda s: s),
    "i": (variants_of("top_only", -1), lambda s: -s),
    "j": (variants_of("top_removed", 1, losses=(1.0, 1.05, 0.95)), lambda s: s),
    "k": (nudged_norms((0.01, 0.1), lambda s: 0.5 + s), lambda s: 0.5 + s),
    "l": (nudged_norms((10.0, 5.0), lambda s: -0.5 - s), lambda s: -0.5 - s),
    "n": (nudged_accuracies(early=lambda s: s), lambda s: s),
    "o": (final_eigenvalues, lambda s: -s / RATE),
    "q": (widths_along, lambda s: s / RATE),
    "r": (schedules_of, lambda s: s),
    "t": (scaled_steps(lambda s: parabola(10 ** (-0.2 * s))), lambda s: -0.2 * s),
}
ROUNDED = "cefn"  # whose intervals are wider than Student's


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("claim", COMPARISONS)
def test_a_claim_holds_does_not_or_stays_undecided_as_its_table_was_made(claim, answer):
    tables, numbers = COMPARISONS[claim]
    strengths = np.array(STRENGTHS[answer])

    row = verdict_of(tables(strengths), claim)

    # A step that is too long and one that is too short are both not the best.
    assert row["verdict"] == ("holds" if claim == "t" and answer == "does not hold" else answer), row
    assert (row["seeds"], row["seeds_are"], row["diverged"]) == (3, "exploring", 0)
    assert (row["model"], row["data"], row["exploring"]) == ("simple_cnn", "digits", "")
    values = numbers(strengths)
    assert row["effect"] == pytest.approx(values.mean())
    if np.ptp(values) > 0:
        interval = stats.ttest_1samp(values, 0).confidence_interval()
        if claim in ROUNDED:
            assert row["low"] < interval.low < interval.high < row["high"]
        else:
            assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert row["low"] < row["high"]
    assert bool(row["would_decide"]) == (row["verdict"] == "undecided")


@pytest.mark.parametrize(
    ("claim", "tables"), [("a", declining_courses), ("s", flat_runs_generalise), ("p", second_peaks)]
)
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_claim_of_parts_or_of_all_runs_is_decided_as_its_table_was_made(claim, tables, answer):
    strengths = np.array(STRENGTHS[answer])

    row = verdict_of(tables(strengths), claim)

    assert row["verdict"] == answer, row
    if claim == "a" and answer != "holds":
        assert row["effect"] == pytest.approx(-0.1 * strengths.mean())


@pytest.mark.parametrize("claim", COMPARISONS)
def test_one_seed_decides_nothing_and_shows_its_value(claim):
    tables, numbers = COMPARISONS[claim]

    row = verdict_of(tables([1.0]), claim)

    assert row["verdict"] == "undecided"
    assert "second seed" in row["would_decide"]
    assert row["effect"] == pytest.approx(numbers(np.array([1.0]))[0])
    assert np.isnan(row["low"])
    assert np.isnan(row["p"])
    assert row["seeds"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("claim", ["b", "h", "q", "t"])
def test_seeds_from_three_on_decide_and_what_the_others_say_stands_beside_it(claim):
    tables, _ = COMPARISONS[claim]
    explored = tables(STRENGTHS["does not hold"])
    confirmed = with_seeds(tables(STRENGTHS["holds"]), 3)

    row = verdict_of([*explored, *confirmed], claim)

    alone = verdict_of(confirmed, claim)
    assert (row["verdict"], row["seeds"], row["seeds_are"]) == ("holds", 3, "confirming")
    assert {**row, "exploring": ""} == pytest.approx(alone, nan_ok=True)
    assert row["exploring"].startswith(verdict_of(explored, claim)["verdict"] + " by 3 seeds: ")


def test_one_confirming_seed_is_not_helped_by_those_that_explored():
    tables, _ = COMPARISONS["h"]
    row = verdict_of([*tables(STRENGTHS["holds"]), *with_seeds(tables([1.0]), 7)], "h")

    assert (row["verdict"], row["seeds"], row["seeds_are"]) == ("undecided", 1, "confirming")
    assert row["exploring"].startswith("holds by 3 seeds: 1.0")


def test_a_claim_that_only_exploring_seeds_have_is_decided_beside_one_that_is_confirmed():
    steps, _ = COMPARISONS["h"]
    heights, _ = COMPARISONS["b"]
    table = decide(collected([*steps(STRENGTHS["holds"]), *with_seeds(heights(STRENGTHS["holds"]), 3)]))

    known = table[table["seeds"] > 0].groupby("claim")["seeds_are"].unique().map(list)
    assert known[["b", "h"]].tolist() == [["confirming"], ["exploring"]]


ELSEWHERE = [("b", heights_along, ("learning_rate", RATES)), ("d", heights_along, ("batch_size", BATCHES))]


def with_elsewhere(tables, change):
    """The tables with eigenvalues on other examples: those of the largest, times a factor of the run."""
    return [
        (
            kind,
            name,
            table.assign(
                elsewhere=(table["eigenvalue"] * table.apply(change, axis=1)).where(table["which"] == "largest")
            ),
        )
        for kind, name, table in tables
    ]


@pytest.mark.slow
def test_a_claim_on_eigenvalues_is_decided_at_both_ends_of_the_bracket():
    tables = heights_along("learning_rate", RATES, STRENGTHS["holds"])
    alone = verdict_of(tables, "b")
    assert "by the measured examples alone" in alone["test"]

    lower = verdict_of(with_elsewhere(tables, lambda _: 0.8), "b")
    assert (lower["verdict"], lower["effect"]) == ("holds", pytest.approx(alone["effect"]))

    steeper = verdict_of(with_elsewhere(tables, lambda row: row["learning_rate"] ** -1.0), "b")
    assert steeper["verdict"] == "holds"
    assert "at both ends of the bracket" in steeper["test"]
    shown = float(re.search(r"; (-?[\d.]+) \(.*\(holds\) by the same eigenvectors", steeper["measured"]).group(1))
    assert shown == pytest.approx(alone["effect"] - 1, rel=5e-3)

    turned = verdict_of(with_elsewhere(tables, lambda row: row["learning_rate"] ** 9.0), "b")
    assert (turned["verdict"], turned["effect"]) == ("undecided", alone["effect"])
    assert "holds by the eigenvalues of the measured examples, does not hold by those" in turned["would_decide"]
    assert np.isnan(turned["seeds_needed"])


@pytest.mark.slow
def test_what_was_measured_on_all_examples_has_a_bracket_without_width():
    tables = heights_along("learning_rate", RATES, STRENGTHS["holds"])
    whole = [(kind, name, table.assign(elsewhere=np.nan, elsewhere_examples=0)) for kind, name, table in tables]

    assert verdict_of(whole, "b")["verdict"] == "holds"
    assert verdict_of(whole, "b")["effect"] == verdict_of(tables, "b")["effect"]


@pytest.mark.slow
def test_a_study_without_experiments_has_a_table_without_rows():
    table = decide(collected([]))

    assert table.empty
    assert sorted(CLAIMS) == LETTERS
    assert list(table) == list(decide(collected(whole_study())))
    assert as_markdown(table).count("\n| ") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "other",
    [{"optimizer": '{"name": "adam"}'}, {"loss_function": "mse"}, {"schedule": '{"name": "cosine"}'}],
    ids=["optimizer", "loss", "schedule"],
)
def test_claims_about_sgd_are_not_listed_of_what_was_trained_otherwise(other):
    tables = [(kind, name, table.assign(**other)) for kind, name, table in whole_study()]

    assert decide(collected(tables)).empty
    # Beside runs of SGD they change nothing.
    both = decide(collected([*whole_study(), *tables]))
    pd.testing.assert_frame_equal(both, decide(collected(whole_study())))


@pytest.mark.parametrize("measurement", ["spectrum", "slices", "steps", "variants"])
def test_claims_without_their_measurement_are_not_listed(measurement):
    """What is listed without it is what other measurements decide."""
    tables = [table for table in whole_study() if table[1] != measurement]

    found = set(decide(collected(tables))["claim"])

    of = {"spectrum": "abcdeoprskl", "slices": "fq", "steps": "ght", "variants": "ij"}
    assert found == set(LETTERS) - set(of[measurement])


@pytest.mark.slow
def test_names_of_grids_are_free():
    """A claim goes along what the runs of a grid differ in."""
    renamed = [
        (kind, name, table.assign(grid=table["grid"].map(lambda grid: f"my_{grid}")))
        for kind, name, table in whole_study()
    ]

    pd.testing.assert_frame_equal(decide(collected(renamed)), decide(collected(whole_study())))


def test_every_verdict_is_an_answer_with_a_reason_where_there_is_none():
    table = decide(collected(whole_study()))

    assert sorted(set(table["claim"])) == LETTERS
    assert table["claim"].is_monotonic_increasing
    assert set(table["verdict"]) <= set(ANSWERS)
    assert ((table["would_decide"] != "") == (table["verdict"] == "undecided")).all()
    assert (table["finding"] != "").all()
    assert (table["quantity"] != "").all()
    decided = table[table["verdict"] == "holds"]
    assert len(decided) >= 15
    assert (decided["p"] < 0.05).all()


WHOLE = whole_study()


MEASURED = ("eigenvalue", "loss", "loss_before", "loss_after", "scale", "test_accuracy", "validation_accuracy")
MEASURED += ("training_loss", "distance", "epoch")


@pytest.mark.slow
@settings(max_examples=25)
@given(st.data())
def test_no_missing_or_diverged_value_stops_the_verdicts(data):
    # A part of the study is decided sooner than the whole.
    chosen = data.draw(st.sets(st.integers(0, len(WHOLE) - 1), min_size=1, max_size=3))
    tables = [WHOLE[place] for place in sorted(chosen)]
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(tables) - 1))
        kind, name, table = tables[place]
        rows = np.random.default_rng(data.draw(st.integers(0, 99))).random(len(table)) < data.draw(st.floats(0, 1))
        damage = data.draw(st.sampled_from(("value", "rows", "column", "one run", "diverged")))
        # A column that was taken away before is not there to be damaged.
        columns = [column for column in MEASURED if column in table]
        column = data.draw(st.sampled_from(columns)) if columns else None
        damage = damage if columns or damage not in ("value", "column") else "rows"
        bad = data.draw(st.sampled_from((np.nan, np.inf, 0.0, -1.0)))
        if damage == "value":
            table = table.assign(**{column: table[column].astype(float).where(~rows, bad)})
        elif damage == "rows":
            table = table[~rows]
        elif damage == "column":
            table = table.drop(columns=column)
        elif damage == "diverged":
            table = table.assign(diverged=table["diverged"] | rows)
        else:
            table = table[table["run"] == table["run"].iloc[0]] if len(table) else table
        tables[place] = (kind, name, table)

    found = decide(collected(tables))

    assert set(found["claim"]) <= set(LETTERS)
    assert set(found["verdict"]) <= set(ANSWERS)
    assert ((found["would_decide"] != "") == (found["verdict"] == "undecided")).all()
    assert as_markdown(found).count("\n| ") == len(found) + 2


@pytest.mark.parametrize("claim", COMPARISONS)
def test_a_run_that_diverged_never_makes_a_claim_hold_and_is_counted(claim):
    tables, _ = COMPARISONS[claim]
    made = tables(STRENGTHS["holds"])
    found = []
    for seeds in ([2], [0, 1, 2]):
        lost = [(kind, name, table.assign(diverged=table["seed"].isin(seeds))) for kind, name, table in made]
        found.append(verdict_of(lost, claim))
    one, all_of_them = found
    assert one["diverged"] > 0
    assert one["seeds"] == 3  # none is dropped
    assert all_of_them["verdict"] != "holds"
    assert all_of_them["diverged"] == 3 * one["diverged"]


@pytest.mark.slow
def test_the_markdown_is_one_table_with_the_verdict_after_the_letter():
    table = decide(collected(whole_study()))

    lines = as_markdown(table).splitlines()

    start = lines.index("") + 1
    assert lines[0].startswith("Every claim of the poster")
    assert "docs/claims.md" in lines[0]
    assert lines[start].startswith("| Claim | Verdict |")
    rows = lines[start + 2 :]
    assert len(rows) == len(table)
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines[start:]}) == 1
    assert all(re.match(r"\| [a-t] \| \*\*(holds|does not hold|undecided)\*\* \| ", row) for row in rows)
    assert all("| 3 exploring |" in row or "| 0 |" in row or "| 2 exploring |" in row for row in rows)


def test_every_effect_has_its_unit_and_its_threshold():
    table = decide(collected(whole_study()))

    compared = table[table["effect"].notna()]
    assert set(compared["claim"]) == set(CLAIMS)
    assert (compared["unit"] != "").all()
    assert compared["threshold"].notna().all()
    units = {(row.claim, row.part): row.unit for row in table.itertuples()}
    assert units["h", ""] == "%"
    assert units["m", "at the best epoch"] == "points"
    (text,) = {line for line in as_markdown(table).splitlines() if line.startswith("| Claim")}
    assert text.startswith("| Claim | Verdict | Decided by | p |")  # the test stands beside the verdict
