"""The figure ``slices``, judged by what it has drawn."""

import numpy as np
import pandas as pd
import pytest
from figures.invented import EPOCHS, lines, lost, run_fields, slices_frame, titles
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sharpness.analysis.figures.slices import slices, smoothed, turned


def test_the_row_of_a_lost_run_is_a_line_of_text_among_the_slices():
    whole, gone = slices_frame([run_fields()]), lost("slices", [run_fields(learning_rate=0.2)])
    alone, both = slices(whole), slices(pd.concat([gone, whole], ignore_index=True))
    assert both.get_figheight() == pytest.approx(alone.get_figheight() + 0.4)
    assert slices(gone).get_figheight() < 1


def test_the_lowest_panel_of_each_column_of_slices_has_numbers():
    few = slices_frame([run_fields()]).query("step in [0, 1, 2, 4]")
    (row,) = slices(few).subfigs
    panels = [axes for part in row.subfigs for axes in part.axes if axes.axison and "epoch" in axes.get_title()]
    assert len(panels) == 4
    assert all(axes.xaxis.get_tick_params()["labelbottom"] for axes in panels[1:])


def test_a_slice_is_drawn_no_farther_than_it_was_measured_and_turned_only_where_it_is_even():
    frame = slices_frame([run_fields()])
    near = frame[frame["k"].abs() <= 2]
    (surface,) = [axes for part in slices(near).subfigs[0].subfigs for axes in part.axes if axes.name == "3d"]
    for line in surface.get_lines():
        assert np.abs(line.get_data_3d()[0]).max() == 2
    uneven = frame[(frame["k"] >= -1) & (frame["k"] <= 8)]
    losses, _ = turned(uneven)
    measured = uneven.pivot(index="epoch", columns="k", values="loss")
    pd.testing.assert_frame_equal(losses, measured)
    even, _ = turned(frame)
    assert (even.iloc[:, 0] >= even.iloc[:, -1]).all()


def test_the_surface_keeps_to_eight_steps_and_below_its_ceiling():
    frame = slices_frame([run_fields()])
    at_rest = frame.loc[frame["k"] == 0, "loss"].max()

    figure = slices(frame.assign(loss=frame["loss"].where(frame["k"].abs() < 8, 1e9)))

    surface = next(axes for axes in figure.get_axes() if axes.name == "3d")
    assert surface.get_zlim()[1] < 1.6 * at_rest
    assert surface.get_xlim()[1] < 10


@given(losses=arrays(float, (2, 9), elements=st.floats(0, 5, width=16)), overflow=st.booleans())
def test_the_surface_goes_through_every_measurement_and_has_no_minimum_of_its_own(losses, overflow):
    steps = np.array([-8.0, -4, -2, -1, 0, 1, 2, 4, 8])
    losses[0, 0] = np.inf if overflow else losses[0, 0]
    fine = np.linspace(-8, 8, 97)

    curves = smoothed(pd.DataFrame(losses, columns=steps), fine, 4.0)

    np.testing.assert_allclose(curves[:, np.isin(fine, steps)], losses.clip(max=4), atol=1e-9)
    right = np.searchsorted(steps, fine).clip(1)
    low, high = (pick(losses[:, right - 1], losses[:, right]).clip(max=4) for pick in (np.minimum, np.maximum))
    assert ((curves >= low - 1e-9) & (curves <= high + 1e-9)).all()


def test_curves_are_the_losses_with_the_higher_end_on_the_left():
    frame = slices_frame([run_fields()])
    figure = slices(frame)

    panels = [axes for axes in figure.get_axes() if axes.get_title().startswith("epoch")]

    assert panels[0].get_title() == "epoch 0"
    assert panels[-1].get_title() == "epoch 30"
    start = frame[(frame["epoch"] == 0) & (frame["k"].abs() <= 8)]
    for axes in panels:
        drawn = lines(axes)[0].get_ydata()
        assert drawn[0] >= drawn[-1]
    np.testing.assert_allclose(np.sort(lines(panels[0])[0].get_ydata()), np.sort(start["loss"]))


def test_steep_slices_leave_the_flat_ones_their_room():
    frame = slices_frame([run_fields()])

    figure = slices(frame.assign(loss=frame["loss"].where(frame["k"].abs() < 8, 1e3)))

    panels = [axes for axes in figure.get_axes() if axes.get_title().startswith("epoch")]
    bottom, top = panels[0].get_ylim()
    assert -0.1 * top < bottom < 0


def test_what_is_earlier_hides_what_is_later_in_the_surface():
    figure = slices(slices_frame([run_fields()]))

    surface = next(axes for axes in figure.get_axes() if axes.name == "3d")
    curves = [(line.get_data_3d()[1][0], line.get_zorder()) for line in surface.get_lines()]
    strips = [strip.get_zorder() for strip in surface.collections]
    assert not surface.computed_zorder
    assert [order for _, order in sorted(curves)] == sorted((order for _, order in curves), reverse=True)
    assert len(set(strips)) == len(strips) == len(EPOCHS) - 1
    assert min(order for _, order in curves) < min(strips)
    assert max(order for _, order in curves) > max(strips)


def test_the_title_says_when_the_run_diverged():
    assert "diverged after epoch 6" in titles(slices(slices_frame([run_fields()], diverge_after=6)))
