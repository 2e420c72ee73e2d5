"""The claims on the length of SGD's step."""

import math

import numpy as np
import pytest
from claims.invented import parabola, rows_of, scaled_steps, step_rows, together, verdict_of


@pytest.mark.parametrize("best", [0.3, 0.7, 1.6])
def test_the_minimiser_is_that_of_the_parabola_the_losses_lie_on(best):
    tables = scaled_steps(lambda s: parabola(best * s))([1.0, 1.05, 0.95])
    for letter in "gt":
        row = verdict_of(tables, letter)
        assert row["effect"] == pytest.approx(np.mean(np.log10([best * s for s in (1.0, 1.05, 0.95)])))
    assert verdict_of(tables, "g")["verdict"] == ("holds" if best < 0.95 else "does not hold")
    assert verdict_of(tables, "t")["verdict"] == "holds"


def test_a_parabola_that_does_not_open_upwards_enters_with_the_longest_step():
    row = verdict_of(scaled_steps(lambda s: {0.5: -s, 1: -3 * s, 2: -9 * s})([1.0, 1.1, 0.9]), "g")
    assert row["measured"].startswith("minimiser 2.00 (seed 0), 2.00 (seed 1), 2.00 (seed 2)")
    assert row["effect"] == pytest.approx(math.log10(2))
    rising = verdict_of(scaled_steps(lambda s: {0.5: 1.0, 1: 3.0, 2: 9.0 + s})([1.0, 1.1, 0.9]), "g")
    assert rising["measured"].startswith("minimiser 0.0500 (seed 0)")


def test_a_loss_that_overflows_counts_as_the_highest_that_does_not():
    tables = scaled_steps(lambda s: {0.5: -1.0, 1: -1.0, 2: s})([1.0, 1.1, 0.9])
    rows = tables[0][2]
    hit = (rows["seed"] == 2) & (rows["alpha"] == 2) & (rows["batch"] == 1) & (rows["step"] == 10)
    highest = rows.loc[~hit & (rows["direction"] == "top"), "loss_after"].max()
    at_highest = verdict_of([("steps", "steps", rows.assign(loss_after=rows["loss_after"].mask(hit, highest)))], "h")

    for lost in (np.inf, np.nan):
        row = verdict_of([("steps", "steps", rows.assign(loss_after=rows["loss_after"].mask(hit, lost)))], "h")
        assert row == pytest.approx(at_highest, nan_ok=True)


def test_a_run_whose_loss_is_lost_is_no_argument_for_another_step():
    tables = scaled_steps(lambda s: parabola(0.5 * s))([1.0, 1.1])
    lost = step_rows({0.5: 0.0}, seed=2).query("direction == 'top'").head(1)
    lost = lost.assign(loss_before=np.nan, loss_after=np.nan, diverged=True)

    found = {letter: verdict_of([*tables, ("steps", "steps", lost)], letter) for letter in "ght"}

    logs = np.log10([0.5, 0.55])
    twice = [parabola(0.5 * s)[2] for s in (1.0, 1.1)]
    assert {letter: row["effect"] for letter, row in found.items()} == pytest.approx(
        {"g": np.mean([*logs, math.log10(2)]), "t": np.mean([*logs, 0.0]), "h": np.mean([*twice, 0.0])}
    )
    assert all((row["seeds"], row["diverged"]) == (3, 1) for row in found.values())


def test_steps_without_alpha_two_are_not_what_the_claims_are_about():
    rows = together(*(step_rows({0.5: -1.0, 1: -1.0}, seed=seed) for seed in range(3)))

    assert not any(rows_of([("steps", "steps", rows)], letter) for letter in "ght")
