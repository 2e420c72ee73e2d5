"""The verdicts on every claim: invented tables, and answers by closed forms and scipy's tests."""

import re

import numpy as np
import pytest
from claims.invented import (
    ABOUT_TEN,
    ANSWERS,
    BATCHES,
    LETTERS,
    RATES,
    STRENGTHS,
    bowls,
    final_eigenvalues,
    nudged_accuracies,
    nudged_norms,
    peaks_along,
    scaled_steps,
    schedules_of,
    variants_of,
    verdict_of,
    whole_study,
    widths_along,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sharpness.analysis.claims.collected import collected
from sharpness.analysis.claims.deciding import as_markdown, decide
from sharpness.analysis.claims.poster import CLAIMS
from sharpness.study.planned import epochs_of_verdicts

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


@pytest.mark.parametrize("gammas", [(0.01, 0.1, 1.0), (0.1, 0.01), ()])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_table_of_verdicts_tells_the_early_epoch_wherever_one_was_looked_at(gammas, epoch, tmp_path):
    tables = [(kind, name, table[table["gamma"].isin(gammas)]) for kind, name, table in nudged_accuracies()([0.0, 0.1])]
    decide(collected(tables if gammas else []), validation_epoch=epoch).to_csv(tmp_path / "claims.csv", index=False)
    assert epochs_of_verdicts(tmp_path / "claims.csv") == ({str(epoch)} if gammas else set())
