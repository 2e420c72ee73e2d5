"""What the claims see of the collected tables."""

import pandas as pd
import pytest
from claims.invented import (
    RATES,
    STRENGTHS,
    final_eigenvalues,
    heights_along,
    history_rows,
    rows_of,
    verdict_of,
    whole_study,
)

from sharpness.analysis.claims.collected import collected
from sharpness.analysis.claims.deciding import decide


def test_a_run_that_only_its_history_says_diverged_speaks_against_its_claims():
    tables = final_eigenvalues(STRENGTHS["holds"])
    run = tables[0][2]["run"].iloc[0]
    history = history_rows([1, 2], [1, 2], diverged=True).assign(run=run)

    row = verdict_of([*tables, ("eigenvalues", "history", history)], "o")

    assert (row["diverged"], row["seeds"]) == (1, 3)
    assert row["p"] > verdict_of(tables, "o")["p"]


def test_claims_go_by_the_kind_of_an_experiment():
    tables = heights_along("learning_rate", RATES, STRENGTHS["holds"])
    others = [("spectrum", name, table) for _, name, table in tables]

    assert rows_of(others, "b") == []
    renamed = [(kind, name, table.assign(experiment="slices")) for kind, name, table in tables]
    assert verdict_of(renamed, "b")["verdict"] == "holds"


@pytest.mark.slow
def test_tables_without_a_row_decide_nothing(tmp_path):
    """As a file has them where every run had stopped before its checkpoints: names of columns, of no type."""
    tables = []
    for kind, measurement, table in whole_study():
        path = tmp_path / "table.csv"
        table.iloc[:0].to_csv(path, index=False)
        tables.append((kind, measurement, pd.read_csv(path)))
    found = decide(collected(tables))
    assert found.empty
    # Beside experiments that have rows, they take nothing away.
    both = decide(collected([*whole_study(), *tables]))
    pd.testing.assert_frame_equal(both, decide(collected(whole_study())))
