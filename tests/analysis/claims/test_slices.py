"""The claims on the loss along the sharpest direction."""

import re

import numpy as np
import pandas as pd
import pytest
from claims.invented import KS, RATES, STRENGTHS, rows_of, slice_rows, together, verdict_of, widths_along
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpness.analysis.claims.slices import at_shared_times, is_bowl

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
@settings(max_examples=50)
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
