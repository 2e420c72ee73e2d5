"""The claim on changes of the learning rate."""

import numpy as np
import pytest
from claims.invented import STRENGTHS, rows_of, schedules_of, verdict_of


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


@pytest.mark.parametrize(
    ("strengths", "answer"), [([0.01, -0.02, 0.01], "does not hold"), ([0.2, -0.2, 0.1], "undecided")]
)
def test_changes_that_do_the_same_early_and_late_show_that_the_claim_does_not_hold(strengths, answer):
    assert verdict_of(schedules_of(strengths), "r")["verdict"] == answer


def test_a_change_at_one_time_only_or_without_the_steady_run_decides_nothing():
    (_, _, rows), *_ = schedules_of(STRENGTHS["holds"])
    for part in (rows[rows["learning_rate_epochs"] != "7"], rows[rows["learning_rate_epochs"] != ""]):
        assert rows_of([("schedules", "spectrum", part)], "r") == []


@pytest.mark.parametrize("epochs", ["", "1", "7"])
def test_a_run_that_diverges_makes_a_seed_without_a_difference(epochs):
    (_, _, rows), *_ = schedules_of([1.0, 1.1, 5.0])
    hit = (rows["seed"] == 2) & (rows["learning_rate_epochs"] == epochs) & (rows["epoch"] == 3)

    row = verdict_of(
        [("schedules", "spectrum", rows.assign(eigenvalue=rows["eigenvalue"].where(~hit), diverged=hit))], "r"
    )

    assert (row["seeds"], row["diverged"]) == (3, 1)
    assert row["effect"] == pytest.approx(np.mean([1.0, 1.1, 0.0]))
