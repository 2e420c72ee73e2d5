"""The figure ``steps``, judged by what it has drawn."""

import numpy as np
import pandas as pd
from figures.invented import STEPS_PER_EPOCH, crosses, legend_labels, lost, run_fields, steps_frame

from sharpness.analysis.figures.palette import BLUE, GREEN, RED
from sharpness.analysis.figures.steps import steps


def test_a_run_that_was_lost_later_has_its_cross_in_every_panel_of_steps():
    """The stage writes one row where a run was lost, of one direction and alpha."""
    frame = steps_frame([run_fields()])
    end = lost("steps", [run_fields()]).assign(epoch=7.0, step=7 * STEPS_PER_EPOCH)
    figure = steps(pd.concat([frame[frame["epoch"] <= 6], end], ignore_index=True))
    for axes in figure.get_axes():
        assert [x for x, _ in crosses(axes)] == [6, 6, 6]
    assert legend_labels(figure)[-1] == "diverged"


def test_steps_of_any_length_are_drawn():
    frame = steps_frame([run_fields()])
    longer = frame.assign(alpha=frame["alpha"].replace({0.5: 3.0}))
    assert {"α = 3", "SGD's step (α = 1)"} <= set(legend_labels(steps(longer)))


def test_points_are_mean_changes_in_percent_and_bars_their_standard_errors():
    fields = {**run_fields(), "step": 0, "epoch": 0.0, "direction": "top", "alpha": 2.0, "loss_before": 2.0}
    fields["diverged"] = False
    frame = pd.DataFrame([{**fields, "batch": 0, "loss_after": 2.2}, {**fields, "batch": 1, "loss_after": 2.6}])

    axes = steps(frame).get_axes()[0]

    points, _, (bars,) = axes.containers[0]
    # Changes of 10 and 30 %: mean 20, deviation 20 / sqrt 2, standard error 10.
    np.testing.assert_allclose(points.get_ydata().astype(float), [20])
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [10, 30])


def test_blue_is_half_green_the_step_itself_and_red_its_double():
    figure = steps(steps_frame([run_fields()]))

    colours = [container[0].get_color() for container in figure.get_axes()[0].containers]

    assert colours == [BLUE, GREEN, RED]
    assert legend_labels(figure) == ["half the step (α = 0.5)", "SGD's step (α = 1)", "twice the step (α = 2)"]
    assert [axes.get_title() for axes in figure.get_axes()] == [
        "along the top eigenvector",
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
