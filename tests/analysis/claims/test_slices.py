"""The claims on the loss along the sharpest direction."""

import re

import numpy as np
import pandas as pd
import pytest
from claims.invented import KS, RATES, STRENGTHS, bowls, rows_of, slice_rows, together, verdict_of, widths_along
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpness.analysis.claims.collected import collected
from sharpness.analysis.claims.slices import at_shared_times, bowl, slices
from sharpness.analysis.rise import RISE

BOWLS = {
    "parabola": ([1 + k**2 for k in KS], 0, 6400),
    "off centre by two": ([1 + abs(k - 2) for k in KS], 2, 100 * (7 / 3 - 1)),
    "the lower wall counts": ([9, 1, 1, 1, 1, 1, 1, 1, 3], 8, None),
    "slope": ([10 - k for k in KS], 8, -80),
    "overflows outside": ([np.inf, 9, 3, 2, 1, 2, 3, 9, np.nan], 0, 800),
}


@pytest.mark.parametrize("name", BOWLS)
def test_a_bowl_is_told_by_where_it_is_lowest_and_by_its_lower_wall(name):
    losses, distance, rise = BOWLS[name]
    found = bowl(np.array(KS), np.array(losses, dtype=float))
    if rise is None:
        assert found[2] == pytest.approx(200)
    else:
        assert (found[0], found[2]) == pytest.approx((distance, rise))


def test_what_lies_beyond_eight_steps_does_not_matter_to_a_bowl():
    losses = [1.0 + k**2 for k in KS]
    assert bowl(np.array([-16, *KS, 16]), np.array([0.0, *losses, -5.0])) == bowl(np.array(KS), np.array(losses))


@given(st.floats(-6, 6), st.floats(0.1, 5))
def test_the_minimum_of_a_parabola_is_found_as_exactly_as_the_grid_is_fine(centre, curvature):
    ks = np.array(sorted({*KS, -6, 6, -3, 3}), dtype=float)
    distance, half, _ = bowl(ks, 1 + curvature * (ks - centre) ** 2)
    assert abs(distance - abs(centre)) <= half + 1e-9


def test_slices_say_how_far_out_they_were_looked_at_and_how_finely():
    losses = [[4 + 0.1 * seed, 2, 1, 2, 4 + 0.1 * seed] for seed in (0, 1)]
    rows = together(
        *(slice_rows(of_seed, ks=(-2, -1, 0, 1, 2), epoch=3, seed=seed) for seed, of_seed in enumerate(losses))
    )

    row = verdict_of([("slices", "slices", rows)], "f")

    assert row["verdict"] == "holds"
    assert "out to k = ±2" in row["measured"]
    # All minima are at zero, on a grid of one step.
    assert (row["effect"], row["low"], row["high"]) == (0, -0.5, 0.5)


def test_a_run_that_diverged_had_no_bowl():
    ((kind, name, rows),) = bowls([1.0, 1.1, 0.9])
    hit = (rows["seed"] == 2) & (rows["epoch"] == 4)
    row = verdict_of([(kind, name, rows.assign(diverged=hit))], "f")
    assert (row["verdict"], row["seeds"], row["diverged"]) == ("undecided", 3, 1)
    assert row["effect"] == pytest.approx(8 / 3)


def test_a_slice_whose_middle_has_no_late_epoch_is_no_late_slice():
    ((kind, name, rows),) = bowls(STRENGTHS["holds"])
    without = rows.assign(epoch=rows["epoch"].astype(float).where(rows["k"] != 0, 0.0))
    assert rows_of([(kind, name, without)], "f") == []


@pytest.mark.parametrize("epoch", [np.inf, np.nan])
def test_a_slice_of_an_unknown_epoch_has_no_time(epoch):
    rows = pd.DataFrame({"run": ["a", "a", "b"], "step": [0, 1, 1], "epoch": [0.0, 1.0, 1.0]})
    known = at_shared_times(rows)
    assert list(known["time"]) == [1.0, 1.0]
    beside = pd.DataFrame({"run": ["a", "b"], "step": [2, 2], "epoch": [epoch, epoch]})
    pd.testing.assert_frame_equal(at_shared_times(pd.concat([rows, beside], ignore_index=True)), known)
    assert at_shared_times(rows.assign(epoch=epoch)).empty


def test_the_width_needs_both_settings_and_an_open_slice_ranks_last():
    rows = widths_along(STRENGTHS["holds"])[0][2]
    rates = rows[rows["grid"] == "learning_rate"]
    assert rows_of([("widths", "slices", rates)], "q") == []
    # The widest stay flat: where they would be wider is not seen, and does not matter.
    flat = (rows["learning_rate"] == RATES[-1]) & (rows["seed"] == 0)
    row = verdict_of([("widths", "slices", rows.assign(loss=rows["loss"].where(~flat, 1.0)))], "q")
    assert (row["verdict"], row["seeds"]) == ("holds", 3)
    assert "(2 of 6 slices open)" in row["measured"]
    # The narrowest stay flat: they are the widest then.
    flat = (rows["learning_rate"] == RATES[0]) & (rows["grid"] == "learning_rate")
    row = verdict_of([("widths", "slices", rows.assign(loss=rows["loss"].where(~flat, 1.0)))], "q")
    assert row["verdict"] == "undecided"
    assert "0.1: open (6 of 6 slices open)" in row["measured"]


def test_a_width_is_the_distance_and_not_the_number_of_steps():
    """Measured at absolute distances, the column says them; the scale of the expected step is another matter."""
    ((kind, name, rows),) = widths_along(STRENGTHS["holds"])
    absolute = rows.assign(distance=rows["k"] * rows["scale"], scale=1e-3 * rows["scale"], k=1e3 * rows["k"])
    assert verdict_of([(kind, name, absolute)], "q") == pytest.approx(
        verdict_of([(kind, name, rows)], "q"), nan_ok=True
    )


def test_a_run_that_diverged_has_the_width_that_speaks_against_the_claim():
    ((kind, name, rows),) = widths_along(STRENGTHS["holds"])
    hit = (rows["learning_rate"] == RATES[-1]) & (rows["seed"] == 0)
    row = verdict_of([(kind, name, rows.assign(diverged=hit))], "q")
    assert (row["seeds"], row["diverged"]) == (3, 1)
    whole = verdict_of([(kind, name, rows)], "q")
    assert row["p"] > whole["p"]


def test_a_widths_experiment_may_be_one_of_kind_slices():
    (_, name, rows), *_ = widths_along(STRENGTHS["holds"])

    assert verdict_of([("slices", name, rows.assign(grid="any"))], "q")["verdict"] == "holds"


def widths_growing(times, *, settings, rates=RATES, kind="widths", per_epoch=10, **run):
    """Slices whose width is the epoch times the rate: a mean over other epochs is another mean."""
    vee = [1 + RISE * abs(k) for k in KS]
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


def widths_of(tables):
    """What is found of the claim on widths by the learning rate alone, though it is about the batch size too."""
    found = [each for each in slices(collected(tables)) if each.claim == "q"]
    assert not any(each.verdict.is_asked for each in found)
    return next(each for each in found if "(learning rate" in each.verdict.measured)


def widths_by_rate(measured):
    (text,) = re.findall(r"\(learning rate ([^)]*)\)", measured)
    cells = dict(cell.split(": ") for cell in text.split(", "))
    return {float(rate): float(cell) for rate, cell in cells.items()}


def test_widths_are_compared_as_they_were_measured():
    # The middle rate was measured oftener too, and later: in the mean of both it would be the widest.
    tables = [
        widths_growing((2, 4), settings="widths"),
        widths_growing((2, 4, 20, 30, 40), settings="top", kind="slices", rates=RATES[1:2]),
    ]
    found = widths_of(tables)
    assert found.subject.configuration == "settings widths"
    assert widths_by_rate(found.verdict.measured) == pytest.approx({rate: 3 * rate for rate in RATES}, rel=5e-3)


def test_widths_are_compared_at_the_checkpoints_that_all_runs_have():
    # One rate has longer runs, in steps that do not fall on the same fractions of an epoch.
    tables = [
        widths_growing((2, 2.5, 4), settings="widths", rates=RATES[:2]),
        widths_growing((2, 2.5, 4, 8, 16), settings="widths", rates=RATES[2:], per_epoch=39, epochs=16),
    ]
    found = widths_of(tables)
    times = 2.5  # the median of those
    assert widths_by_rate(found.verdict.measured) == pytest.approx(
        {rate: times * rate for rate in RATES}, rel=5e-3
    )  # printed to three digits
    apart = [
        widths_growing((2, 4), settings="widths", rates=RATES[:2]),
        widths_growing((3, 5), settings="widths", rates=RATES[2:]),
    ]
    (found,) = (each for each in slices(collected(apart)) if each.claim == "q")
    assert "at the same epochs of all runs" in found.verdict.would_decide


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
