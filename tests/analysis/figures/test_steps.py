"""The figure ``steps``, judged by what it has drawn."""

import numpy as np
import pandas as pd
import pytest
from figures.invented import STEPS_PER_EPOCH, crosses, legend_labels, lost, run_fields, steps_frame

from sharpness.analysis.figures.palette import BLUE, GREEN, GREY, RED
from sharpness.analysis.figures.steps import steps


def test_a_run_that_was_lost_later_has_its_cross_in_every_panel_of_steps():
    """The stage writes one row where a run was lost, of one direction and alpha."""
    frame = steps_frame([run_fields()])
    end = lost("steps", [run_fields()]).assign(epoch=7.0, step=7 * STEPS_PER_EPOCH)
    figure = steps(pd.concat([frame[frame["epoch"] <= 6], end], ignore_index=True))
    top, _, random, full = figure.get_axes()
    for axes in (top, random, full):
        assert [x for x, _ in crosses(axes)] == [6, 6, 6]
    assert legend_labels(figure)[-1] == "diverged"


def test_steps_of_any_length_are_drawn():
    frame = steps_frame([run_fields()])
    longer = frame.assign(alpha=frame["alpha"].replace({0.5: 3.0}))
    assert {"α = 3", "SGD's step (α = 1)"} <= set(legend_labels(steps(longer)))


def table_of(after, epochs=(1.0, 2.0)):
    """Steps along e1 from a loss of 2, at each epoch with the same two batches, by seed and alpha."""
    place = {"direction": "top", "loss_before": 2.0, "diverged": False}
    return pd.DataFrame(
        [
            {
                **run_fields(seed),
                **place,
                "step": 10 * epoch,
                "epoch": epoch,
                "alpha": alpha,
                "batch": batch,
                "loss_after": loss,
            }
            for (seed, alpha), losses in after.items()
            for epoch in epochs
            for batch, loss in enumerate(losses)
        ]
    )


def marks(axes, marker):
    return [
        (float(x), float(y))
        for line in axes.get_lines()
        if line.get_marker() == marker
        for x, y in zip(np.atleast_1d(line.get_xdata()), np.atleast_1d(line.get_ydata()), strict=True)
    ]


# In per cent: seed 0 changes by 10 (2.1 and 2.3), seed 1 by 30 (2.5 and 2.7).
SEEDS = {(0, 2.0): (2.1, 2.3), (1, 2.0): (2.5, 2.7)}


def test_a_mark_is_the_mean_over_the_batches_of_one_seed_and_the_line_is_over_seeds():
    axes = steps(table_of(SEEDS)).get_axes()[0]

    assert sorted(marks(axes, "^")) == [pytest.approx(place) for place in [(1, 10), (1, 30), (2, 10), (2, 30)]]
    (mean,) = (line for line in axes.get_lines() if line.get_color() == RED and line.get_linestyle() == "-")
    np.testing.assert_allclose(mean.get_ydata(), [20, 20])


def test_the_star_of_a_seed_is_the_minimum_of_its_parabola():
    # 4 α² - 4 α per cent has its minimum of -1 at 0.5, 4 α² - 8 α of -4 at 1.
    changes = {0: lambda alpha: 4 * alpha**2 - 4 * alpha, 1: lambda alpha: 4 * alpha**2 - 8 * alpha}
    after = {
        (seed, alpha): [2 * (1 + of(alpha) / 100)] * 2 for seed, of in changes.items() for alpha in (0.5, 1.0, 2.0)
    }

    axes = steps(table_of(after)).get_axes()[1]

    assert marks(axes, "*") == [pytest.approx((0.5, -1)), pytest.approx((1, -4))]
    assert axes.get_title() == "mean over the checkpoints: α* = 0.50 to 1.00"
    assert marks(axes, "v") == [pytest.approx((0.5, of(0.5))) for of in changes.values()]
    curves = [line for line in axes.get_lines() if line.get_color() == GREY and line.get_linestyle() == "-"]
    for curve, of in zip(curves, changes.values(), strict=True):
        np.testing.assert_allclose(curve.get_ydata(), of(np.asarray(curve.get_xdata())), atol=1e-9)


def test_a_checkpoint_that_lost_a_loss_has_no_part_in_the_parabola():
    after = {(0, alpha): [2 * (1 + (4 * alpha**2 - 4 * alpha) / 100)] for alpha in (0.5, 1.0, 2.0)}
    frame = table_of(after)
    frame.loc[(frame["epoch"] == 2) & (frame["alpha"] == 2), "loss_after"] = np.inf
    frame.loc[(frame["epoch"] == 2) & (frame["alpha"] < 2), "loss_after"] = 50.0

    assert marks(steps(frame).get_axes()[1], "*") == [pytest.approx((0.5, -1))]


def test_blue_is_half_green_the_step_itself_and_orange_its_double():
    figure = steps(steps_frame([run_fields()]))

    colours = [line.get_color() for line in figure.get_axes()[0].get_lines() if len(line.get_xdata()) > 2]

    assert list(dict.fromkeys(colours)) == [BLUE, GREEN, RED]
    assert legend_labels(figure)[:3] == ["half the step (α = 0.5)", "SGD's step (α = 1)", "twice the step (α = 2)"]
    assert [axes.get_title().split(":")[0] for axes in figure.get_axes()] == [
        "along the top eigenvector",
        "mean over the checkpoints",
        "along a random direction",
        "full step",
    ]


def test_an_outlier_makes_the_axis_symmetric_logarithmic():
    frame = steps_frame([run_fields()])
    outlier = frame["loss_after"].where(frame["epoch"] > 0, 50 * frame["loss_after"])

    assert steps(frame).get_axes()[0].get_yscale() == "linear"
    assert steps(frame.assign(loss_after=outlier)).get_axes()[0].get_yscale() == "symlog"


def test_a_diverged_run_ends_in_a_cross():
    figure = steps(steps_frame([run_fields()], diverge_after=6))

    assert [x for x, _ in crosses(figure.get_axes()[0])] == [6, 6, 6]
    assert legend_labels(figure)[-1] == "diverged"
