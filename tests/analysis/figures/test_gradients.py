"""The figure ``gradients``, judged by what it has drawn."""

import numpy as np
import pytest
from figures.invented import gradients_frame, lines, sweep

from sharpness.analysis.figures.gradients import gradients


def test_batch_sharpness_is_shown_on_a_linear_axis_negative_values_too():
    frame = gradients_frame(sweep(seeds=(0, 1)))
    sign = np.where(frame["epoch"] < 1, -1, 1)
    figure = gradients(frame.assign(batch_sharpness=sign * frame["batch_sharpness"]))
    panels = {axes.get_title().split("\n")[0]: axes for axes in figure.get_axes()[:6]}
    for name in ("η λ₁", "η × Batch Sharpness"):
        assert panels[name].get_yscale() == "linear"
    axes = panels["η × Batch Sharpness"]
    rates = sorted(frame["learning_rate"].unique())
    for rate, line in zip(rates, lines(axes, linestyle="-"), strict=True):
        of_rate = frame[(frame["learning_rate"] == rate) & (frame["grid"] == "learning_rate")]
        scaled = (rate * sign[of_rate.index] * of_rate["batch_sharpness"]).groupby(of_rate["epoch"]).mean()
        np.testing.assert_allclose(line.get_ydata(), scaled)
        low, high = axes.get_ylim()
        assert low < scaled.min() < 0 < scaled.max() < high


@pytest.mark.parametrize(
    ("counts", "words"), [([250], "250 images"), ([250, 1000], "250 to 1,000 images"), ([np.nan], "")]
)
def test_says_on_how_many_images_the_hessian_is(counts, words):
    frame = gradients_frame(sweep(seeds=(0,)))
    sizes = np.resize(counts, len(frame))
    for axes in gradients(frame.assign(num_examples=sizes)).get_axes()[::6]:
        assert axes.get_title() == "η λ₁" + (f"\non {words}" if words else "")


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
