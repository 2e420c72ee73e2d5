"""The figure ``slices``, judged by what it has drawn."""

import numpy as np
import pandas as pd
import pytest
from figures.invented import EPOCHS, lines, lost, run_fields, slices_frame, titles
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.collections import QuadMesh

from sharpness.analysis.figures.slices import slices, smoothed, turned


def test_the_row_of_a_lost_run_is_a_line_of_text_among_the_slices():
    whole, gone = slices_frame([run_fields()]), lost("slices", [run_fields(learning_rate=0.2)])
    alone, both = slices(whole), slices(pd.concat([gone, whole], ignore_index=True))
    assert both.get_figheight() == pytest.approx(alone.get_figheight() + 0.5)
    assert slices(gone).get_figheight() < 1


def test_the_lowest_panel_of_each_column_of_slices_has_numbers():
    few = slices_frame([run_fields()]).query("step in [0, 1, 2, 4]")
    (row,) = slices(few).subfigs
    panels = [axes for part in row.subfigs for axes in part.axes if axes.axison and "epoch" in axes.get_title()]
    assert len(panels) == 4
    assert all(axes.xaxis.get_tick_params()["labelbottom"] for axes in panels[1:])


def map_of(figure):
    """The cells of the map: edges along the eigenvector, and the loss in each, [epochs, cells]."""
    (axes,) = [axes for axes in figure.get_axes() if axes.get_ylabel() == "epoch (each checkpoint)"]
    (mesh,) = [each for each in axes.collections if isinstance(each, QuadMesh)]
    return mesh.get_coordinates()[0, :, 0], np.asarray(mesh.get_array())


def test_a_slice_is_drawn_no_farther_than_it_was_measured_and_turned_only_where_it_is_even():
    frame = slices_frame([run_fields()])
    near = frame[frame["k"].abs() <= 2]
    edges, _ = map_of(slices(near))
    assert (edges[0], edges[-1]) == (-2, 2)
    uneven = frame[(frame["k"] >= -1) & (frame["k"] <= 8)]
    losses, _ = turned(uneven)
    measured = uneven.pivot(index="epoch", columns="k", values="loss")
    pd.testing.assert_frame_equal(losses, measured)
    even, _ = turned(frame)
    assert (even.iloc[:, 0] >= even.iloc[:, -1]).all()


def test_the_map_shows_each_checkpoint_as_far_as_eight_steps_and_says_where_its_colours_end():
    frame = slices_frame([run_fields()])
    steep = frame.assign(loss=frame["loss"].where(frame["k"].abs() < 8, 1e9))
    figure = slices(steep)

    edges, cells = map_of(figure)

    assert (edges[0], edges[-1]) == (-8, 8)
    assert len(cells) == len(EPOCHS)
    ceiling = 1.5 * frame.loc[frame["k"] == 0, "loss"].max()
    assert cells.max() == pytest.approx(ceiling)
    centres = (edges[1:] + edges[:-1]) / 2
    flat = frame[(frame["epoch"] == 30) & (frame["k"].abs() <= 4)].sort_values("k")
    turns = -1 if flat["loss"].iloc[0] < flat["loss"].iloc[-1] else 1
    inside = np.abs(centres) < 3.9
    # Between two measurements the loss is between theirs.
    expected = np.interp(turns * centres[inside], flat["k"], flat["loss"])
    np.testing.assert_allclose(cells[-1][inside], expected, rtol=0.5)
    (bar,) = [axes for axes in figure.get_axes() if axes.get_xlabel() == "training loss"]
    assert bar.get_xlim()[1] == pytest.approx(ceiling)


def test_slices_on_one_grid_of_distances_are_shown_over_these():
    frame = slices_frame([run_fields()])
    frame["distance"] = frame["k"] / 100
    frame["k"] = frame["distance"] / frame["scale"]

    figure = slices(frame)

    edges, cells = map_of(figure)
    assert (edges[0], edges[-1]) == (-0.16, 0.16)
    assert len(cells) == len(EPOCHS)
    assert {axes.get_xlabel() for axes in figure.get_axes()} >= {"distance, along the top eigenvector"}


@given(losses=arrays(float, (2, 9), elements=st.floats(0, 5, width=16)), overflow=st.booleans())
def test_the_map_goes_through_every_measurement_and_has_no_minimum_of_its_own(losses, overflow):
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

    assert panels[0].get_title().startswith("epoch 0\nλ₁ = ")
    assert panels[-1].get_title().startswith("epoch 30\n")
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


def test_the_title_says_when_the_run_diverged():
    assert "diverged after epoch 6" in titles(slices(slices_frame([run_fields()], diverge_after=6)))


def test_the_title_names_the_seed():
    assert "seed 4" in titles(slices(slices_frame([run_fields(4)])))
    assert "seed 4 (first of 2)" in titles(slices(slices_frame([run_fields(4), run_fields(7)])))
