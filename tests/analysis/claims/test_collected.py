"""What the claims see of the collected tables."""

import pandas as pd
from claims.invented import (
    LETTERS,
    RATES,
    STRENGTHS,
    final_eigenvalues,
    history_rows,
    peaks_along,
    verdict_of,
    whole_study,
)

from sharpness.analysis.claims.collected import collected
from sharpness.analysis.claims.deciding import decide


def test_a_run_that_only_its_history_says_diverged_is_left_out():
    tables = final_eigenvalues(STRENGTHS["holds"])
    run = tables[0][2]["run"].iloc[0]
    history = history_rows([1, 2], [1, 2], diverged=True).assign(run=run)

    row = verdict_of([*tables, ("eigenvalues", "history", history)], "o")

    assert row["diverged"] == 1
    # The other rate is now the flattest of the others, and was before.
    assert row["verdict"] == "holds"


def test_claims_go_by_the_kind_of_an_experiment():
    tables = peaks_along("learning_rate", RATES, STRENGTHS["holds"], quantity="height")
    others = [("spectrum", name, table) for _, name, table in tables]

    assert verdict_of(others, "b")["verdict"] == "undecided"
    renamed = [(kind, name, table.assign(experiment="slices")) for kind, name, table in tables]
    assert verdict_of(renamed, "b")["verdict"] == "holds"


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
