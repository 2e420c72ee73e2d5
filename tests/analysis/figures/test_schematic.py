"""The figure ``schematic``, judged by what it has drawn."""

import numpy as np
import pytest
from figures.invented import EPOCHS, curvature, run_fields, saved, slices_frame

from sharpness.analysis.figures.schematic import schematic


def test_shows_the_start_the_peak_and_the_end_from_their_own_loss_on():
    fields = run_fields()
    frame = slices_frame([fields])
    peak = curvature(fields).argmax()

    panels = schematic(frame).get_axes()

    assert [axes.get_title().split("\n")[0] for axes in panels] == [
        "start",
        "early",
        "peak of the curvature",
        "end",
    ]
    assert f"epoch {EPOCHS[peak]:.3g}, $\\lambda_1$ = {curvature(fields)[peak]:.3g}" in panels[2].get_title()
    (curve,) = (line for line in panels[2].get_lines() if line.get_linewidth() == 2)
    at_peak = frame[frame["epoch"] == EPOCHS[peak]].set_index("k")
    assert np.interp(0, curve.get_xdata(), curve.get_ydata()) == 0
    assert curve.get_xdata().max() == pytest.approx(16 * at_peak["scale"].iloc[0])
    np.testing.assert_allclose(np.sort(curve.get_ydata()), np.sort(at_peak["loss"] - at_peak.loc[0.0, "loss"]))


def test_two_points_to_each_side_are_in_sight_where_the_steps_grew():
    frame = slices_frame([run_fields()])
    peak = EPOCHS[curvature(run_fields()).argmax()]
    grown = frame.assign(scale=frame["scale"].where(frame["epoch"] != peak, 100 * frame["scale"]))

    panels = schematic(grown).get_axes()

    (curve,) = (line for line in panels[2].get_lines() if line.get_linewidth() == 2)
    left, right = panels[2].get_xlim()
    distance, change = curve.get_xdata(), curve.get_ydata()
    assert ((distance > 0) & (distance < right)).sum() == ((distance < 0) & (distance > left)).sum() == 2
    assert panels[2].get_ylim()[1] > change[(distance > left) & (distance < right)].max()


@pytest.mark.parametrize("lost", [[EPOCHS[-1]], EPOCHS])
def test_steps_without_a_length_leave_the_frame_to_the_others(lost):
    frame = slices_frame([run_fields()])

    figure = schematic(frame.assign(scale=frame["scale"].mask(frame["epoch"].isin(lost))))

    assert saved(figure) > 2000


def test_a_peak_at_the_end_is_shown_once():
    frame = slices_frame([run_fields(learning_rate=0.001)], diverge_after=10)

    panels = schematic(frame).get_axes()

    assert [axes.get_title().split("\n")[0] for axes in panels] == ["start", "early", "peak of the curvature"]
