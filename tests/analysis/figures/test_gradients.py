"""The figure ``gradients``, judged by what it has drawn."""

import pytest
from figures.invented import gradients_frame, lines, sweep

from sharpness.analysis.figures.gradients import gradients


def test_the_panels_of_the_gradients_show_their_columns():
    frame = gradients_frame(sweep(seeds=(0,)))
    figure = gradients(frame)

    drawn = [(axes.get_title(), lines(axes, linestyle="-")) for axes in figure.get_axes()]
    assert any("overlap of the top 5" in title for title, _ in drawn)
    sharpness = next(found for title, found in drawn if "Batch Sharpness" in title)
    rates = sorted(frame["learning_rate"].unique())
    first = frame[frame["learning_rate"] == rates[0]]
    assert sharpness[0].get_ydata() == pytest.approx(rates[0] * first["batch_sharpness"].to_numpy())
    assert {len(found) for _, found in drawn} == {3, 4}
