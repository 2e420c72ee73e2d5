"""The claims on where runs end."""

import math

import numpy as np
import pandas as pd
import pytest
from claims.invented import (
    STRENGTHS,
    ends_of_runs,
    final_eigenvalues,
    flat_runs_generalise,
    rows_of,
    spectrum_rows,
    table_of_results,
    together,
    verdict_of,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sharpness.analysis.claims.collected import collected
from sharpness.analysis.claims.deciding import decide
from sharpness.analysis.claims.ends import at_matched_loss, partial_rank_correlation

RUNS = st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=5, max_size=12)


@given(RUNS)
def test_the_partial_rank_correlation_is_that_of_what_a_regression_on_the_losss_ranks_leaves(runs):
    sharp, losses, accuracies = (stats.rankdata(column) for column in zip(*runs, strict=True))
    rho, z = partial_rank_correlation(pd.DataFrame(runs, columns=["eigenvalue", "training_loss", "test_accuracy"]))

    if np.ptp(losses) == 0:
        assert math.isnan(rho)
        return
    basis = np.stack([np.ones_like(losses), losses], axis=1)
    rests = [ranks - basis @ np.linalg.lstsq(basis, ranks, rcond=None)[0] for ranks in (sharp, accuracies)]
    if min(np.abs(rest).max() for rest in rests) < 1e-6:
        assert math.isnan(rho)
        return
    assert rho == pytest.approx(np.corrcoef(*rests)[0, 1], abs=1e-6)
    # A perfect one counts as half a step of Spearman's less: a step is 12 / (n (n² - 1)).
    bound = 1 - 6 / (len(runs) * (len(runs) ** 2 - 1))
    assert z == pytest.approx(math.atanh(np.clip(rho, -bound, bound)))


def test_accuracy_that_follows_training_alone_is_no_correlation():
    """Flat and accurate go together over all runs, and not at all given the training loss."""
    losses = np.repeat([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 2)
    swap = np.tile([1, 0, 0, 1], 3)  # which of a pair is the sharper one
    tables = ends_of_runs(
        sharpness=lambda seed: 100 * losses + swap + 0.01 * seed,
        accuracy=lambda seed: 90 - 50 * losses + np.tile([0.0, 0.1], 6) * (1 - 2 * (np.arange(12) == seed)),
        losses=losses,
    )
    row = verdict_of(tables, "s")

    overall = stats.spearmanr(100 * losses + swap, 90 - 50 * losses).statistic
    assert overall < -0.9
    assert row["verdict"] == "undecided"
    assert abs(row["effect"]) < 0.5


def test_many_runs_of_one_seed_decide_nothing():
    row = verdict_of(flat_runs_generalise([1.0]), "s")
    assert (row["verdict"], row["seeds"], row["would_decide"]) == ("undecided", 1, "a second seed")


def test_a_run_that_diverged_enters_as_the_flattest_and_the_worst():
    tables = flat_runs_generalise([1.0, 1.1, 0.9])
    lost = spectrum_rows([1.0, np.nan], grid="run", learning_rate=99.0, seed=1)
    row = verdict_of([*tables, ("eigenvalues", "spectrum", lost)], "s")
    alone = verdict_of(tables, "s")
    assert (row["diverged"], row["seeds"]) == (1, 3)
    assert row["measured"].startswith("49 runs")
    assert row["effect"] > alone["effect"]


def test_each_distinct_run_counts_once_in_the_correlation_over_kinds():
    tables = flat_runs_generalise([1.0, 1.1, 0.9])
    twice = [*tables, *(("nudged", name, table.assign(grid="gamma")) for _, name, table in tables)]
    elsewhere = [("agreement", name, table.assign(seed=9, run="other")) for _, name, table in tables]

    assert verdict_of([*twice, *elsewhere], "s")["measured"].startswith("48 runs")


def test_the_rows_of_plain_sgd_in_a_table_of_results_are_ordered_and_no_others():
    ends = {("sgd", 0.5): 1.0, ("sgd", 0.05): 9.0, ("gamma", 1.0): 5.0, ("gamma", 0.1): 20.0, ("gamma", 10.0): 0.2}
    row = verdict_of(table_of_results(ends), "o")

    # The row of gamma 1 is plain SGD too, at the rate of all others.
    norms = {0.05: 9.0, 0.1: 5.0, 0.5: 1.0}
    tables = {
        rate: [norm * (1 + 0.01 * seed * (2 if rate == 0.1 else 1 + rate)) for seed in range(3)]
        for rate, norm in norms.items()
    }
    slopes = [
        np.polyfit(np.log10(list(norms)), np.log10([tables[rate][seed] for rate in norms]), 1)[0] for seed in range(3)
    ]
    assert row["verdict"] == "holds"
    assert row["effect"] == pytest.approx(np.mean(slopes))
    assert row["p"] == pytest.approx(2 / 216)
    assert "20" not in row["measured"].split(": ", 1)[0]


def test_ends_by_eigenvalues_and_in_a_table_of_results_are_two_rows():
    falling = {("sgd", 0.5): 1.0, ("sgd", 0.1): 3.0, ("sgd", 0.05): 9.0}
    by_eigenvalues = final_eigenvalues(STRENGTHS["does not hold"])
    alone = {row["configuration"]: row["verdict"] for row in rows_of(by_eigenvalues, "o")}

    rows = rows_of([*by_eigenvalues, *table_of_results(falling)], "o")

    assert {row["configuration"]: row["verdict"] for row in rows if "table" not in row["configuration"]} == alone
    assert [row["verdict"] for row in rows if "table of results" in row["configuration"]] == ["holds"]


def test_eigenvalues_of_one_hessian_are_correlated_together_and_of_two_apart():
    tables = flat_runs_generalise([1.0, 1.1, 0.9])
    spectrum = tables[0][2]
    again = spectrum.assign(settings=np.where(spectrum["learning_rate"] < 0.01, "more", "leading"))
    tables[0] = (*tables[0][:2], again)
    whole = {"num_examples": 65, "resample": False, "augment": False, "parameters": "*"}

    def rows(known):
        table = decide(collected(tables, known))
        return table[table["claim"] == "s"].to_dict("records")

    (row,) = rows({"leading": {**whole, "num_eigenvalues": 2}, "more": {**whole, "num_eigenvalues": 9}})
    assert row["verdict"] == "holds"
    assert row["measured"].startswith("48 runs")
    apart = rows({"leading": whole, "more": {**whole, "num_examples": 1300}})
    assert {row["configuration"] for row in apart} == {"settings leading", "settings more"}
    assert sum(int(row["measured"].split()[0]) for row in apart) == 48


def test_a_table_of_one_rate_has_no_order():
    assert rows_of(table_of_results({("sgd", 0.1): 1.0}), "o") == []
    assert len(together(spectrum_rows([1.0]))) == 3


def test_runs_are_matched_at_the_lowest_training_loss_that_all_reach():
    # In decades of the loss. The second gets no lower than -1; the first passes it half-way, from 0 to -2.
    sharp = [np.array([[0.0, 0.0], [-2.0, 2.0]]), np.array([[0.0, 4.0], [-1.0, 4.0]])]
    good = [np.array([[0.0, 0.2], [-2.0, 0.6]]), np.array([[0.0, 0.1], [-0.3, 0.2], [-1.0, 0.7]])]

    level, there = at_matched_loss([sharp, good])

    assert level == -1.0
    assert there == pytest.approx(np.array([[1.0, 0.4], [4.0, 0.7]]))


def test_a_run_without_a_course_leaves_nothing_to_match():
    course, empty = np.array([[0.0, 1.0], [-1.0, 2.0]]), np.empty((0, 2))
    for courses in ([[course, empty]], [[course, np.full((2, 2), np.nan)]], [[]]):
        level, there = at_matched_loss(courses)
        assert np.isnan(level)
        assert len(there) == 0
