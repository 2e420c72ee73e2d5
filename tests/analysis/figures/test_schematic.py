"""The figure ``schematic``, judged by what it has drawn."""

import numpy as np
import pytest
from figures.invented import EPOCHS, curvature, run_fields, saved, slices_frame

from sharpness.analysis.figures.schematic import schematic


def dots(axes):
    """The measurements of the curve to which a panel belongs."""
    (found,) = (line for line in axes.get_lines() if line.get_marker() == "o")
    return found


def test_every_line_has_a_name_and_the_own_one_of_a_panel_is_bold():
    figure = schematic(slices_frame([run_fields()]))

    names = dict(zip(("start", "early", "peak of the curvature", "end"), figure.get_axes(), strict=True))
    (legend,) = figure.subfigs[0].legends
    colours = {line.get_label().split(" (")[0]: line.get_color() for line in legend.get_lines()}
    assert list(colours) == list(names)
    assert len(set(colours.values())) == 4
    for name, axes in names.items():
        drawn = {line.get_color(): line.get_linewidth() for line in axes.get_lines() if len(line.get_xdata()) > 20}
        assert set(drawn) == set(colours.values())
        assert [colour for colour, width in drawn.items() if width == 2] == [colours[name]]


def test_a_curve_is_fine_between_its_measurements_and_goes_through_them():
    for axes in schematic(slices_frame([run_fields()])).get_axes():
        measured = dots(axes)
        (curve,) = (line for line in axes.get_lines() if line.get_linewidth() == 2)
        x, y = measured.get_xdata(), measured.get_ydata()
        np.testing.assert_allclose(np.interp(x, curve.get_xdata(), curve.get_ydata()), y, atol=1e-9)
        assert np.diff(curve.get_xdata()).max() < np.diff(x).max() / 10
        # No extremum of its own: between two measurements it is between their values.
        right = np.searchsorted(x, curve.get_xdata()).clip(1, len(x) - 1)
        low, high = np.minimum(y[right - 1], y[right]), np.maximum(y[right - 1], y[right])
        assert ((curve.get_ydata() >= low - 1e-9) & (curve.get_ydata() <= high + 1e-9)).all()


def test_distances_are_those_of_the_table_where_it_has_them():
    frame = slices_frame([run_fields()])
    measured = frame.assign(distance=3 * frame["k"] * frame["scale"])
    for axes, wide in zip(schematic(frame).get_axes(), schematic(measured).get_axes(), strict=True):
        np.testing.assert_allclose(dots(wide).get_xdata(), 3 * dots(axes).get_xdata())


def test_the_title_names_the_seed():
    assert "seed 3" in schematic(slices_frame([run_fields(3)])).subfigs[0].get_suptitle()


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
    assert f"epoch {EPOCHS[peak]:.3g}, λ₁ = {curvature(fields)[peak]:.3g}" in panels[2].get_title()
    curve = dots(panels[2])
    at_peak = frame[frame["epoch"] == EPOCHS[peak]].set_index("k")
    assert np.interp(0, curve.get_xdata(), curve.get_ydata()) == 0
    assert curve.get_xdata().max() == pytest.approx(16 * at_peak["scale"].iloc[0])
    np.testing.assert_allclose(np.sort(curve.get_ydata()), np.sort(at_peak["loss"] - at_peak.loc[0.0, "loss"]))


def test_two_points_to_each_side_are_in_sight_where_the_steps_grew():
    frame = slices_frame([run_fields()])
    peak = EPOCHS[curvature(run_fields()).argmax()]
    grown = frame.assign(scale=frame["scale"].where(frame["epoch"] != peak, 100 * frame["scale"]))

    panels = schematic(grown).get_axes()

    curve = dots(panels[2])
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
