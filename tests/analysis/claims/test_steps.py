"""The claims on the length of SGD's step."""

import numpy as np
import pytest
from claims.invented import scaled_steps, step_rows, together, verdict_of


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
    lost = step_rows({0.5: 0.0}, seed=7).query("direction == 'top'").head(1)
    lost = lost.assign(loss_before=np.nan, loss_after=np.nan, diverged=True)

    row = verdict_of([*tables, ("steps", "steps", lost)], "h")

    assert (row["verdict"], row["seeds"], row["diverged"]) == ("holds", 3, 1)


def test_steps_without_alpha_two_leave_the_claims_undecided():
    rows = together(*(step_rows({0.5: -1.0, 1: -1.0}, seed=seed) for seed in range(3)))

    assert "alpha 2" in verdict_of([("steps", "steps", rows)], "h")["would_decide"]
