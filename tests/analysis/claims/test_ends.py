"""The claims on where runs end."""

import numpy as np
import pytest
from claims.invented import FOLLOWS, ends_of_runs, history_rows, runs_of_courses, table_of_results, together, verdict_of
from scipy import stats

from sharpness.analysis.claims.collected import collected
from sharpness.analysis.claims.deciding import decide


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
