"""The figure ``gradient_step``, judged by what it has drawn."""

import numpy as np
import pytest
from figures.invented import columns_frame, lines, sweep

from sharpness.analysis.figures.gradient_step import gradient_step


def frame_of(diverge_after=None):
    frame = columns_frame("gradient_step")(sweep(seeds=(0,)), diverge_after)
    frame["angle"] = 180 * frame["angle"].where(frame["step"] > 0)
    return frame


def labels(figure):
    return {text.get_text() for part in figure.subfigs for legend in part.legends for text in legend.get_texts()}


def test_each_value_of_the_setting_has_its_norm_and_its_angle():
    frame = frame_of()
    figure = gradient_step(frame)
    assert [axes.get_title() for axes in figure.get_axes()] == ["|gradient|", "angle to the step before"] * 2
    norm, angle = figure.get_axes()[:2]
    rates = frame[frame["grid"] == "learning_rate"]
    for rate, of_norm, of_angle in zip(
        sorted(rates["learning_rate"].unique()), lines(norm, linestyle="-"), lines(angle, linestyle="-"), strict=True
    ):
        rows = rates[rates["learning_rate"] == rate]
        assert of_norm.get_ydata() == pytest.approx(rows["gradient_norm"].to_numpy())
        assert of_angle.get_ydata() == pytest.approx(rows["angle"].to_numpy()[1:])
    assert [line.get_ydata()[0] for line in angle.get_lines() if line.get_linestyle() == "--"] == [90]
    assert "diverged" not in labels(figure)


def test_only_a_run_that_diverged_has_a_cross():
    figure = gradient_step(frame_of(diverge_after=2))
    for axes in figure.get_axes():
        crosses = [line for line in axes.get_lines() if line.get_marker() == "X"]
        assert len(crosses) == len(lines(axes, linestyle="-"))
        assert all(np.isfinite(line.get_ydata()).all() for line in crosses)
    assert "diverged" in labels(figure)
