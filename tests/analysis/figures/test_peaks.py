"""The figure ``peaks``, judged by what it has drawn."""

import numpy as np
import pandas as pd
import pytest
from figures.invented import EPOCHS, crosses, frame_of, legend_labels, lines, spectrum_frame, sweep
from matplotlib.colors import to_hex

from sharpness.analysis.figures.palette import colour_of
from sharpness.analysis.figures.peaks import peaks

# The peak of the first is at epoch 1 though it gets higher later; that of the last run has no fall behind it.
CURVES = {
    (0.01, 0): [1, 50, 20, 60, 10],
    (0.01, 1): [1, 20, 70, 30, 20],
    (0.05, 0): [1, 30, 10, 10, 10],
    (0.05, 1): [1, 10, 20, 30, 29],
}


def dots(axes, *, is_open=False):
    """Colour and place of every dot."""
    return {
        (to_hex(line.get_color()), float(x), float(y))
        for line in axes.get_lines()
        if line.get_marker() == "o" and (line.get_fillstyle() == "none") == is_open
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }


def test_dots_are_the_first_peaks_of_the_seeds_and_open_where_no_fall_follows():
    height, epoch = peaks(frame_of(CURVES)).get_axes()

    slow, fast = (colour_of("learning_rate", rate) for rate in (0.01, 0.05))
    assert dots(height) == {(slow, 0, 50), (slow, 0, 70), (fast, 1, 30)}
    assert dots(epoch) == {(slow, 0, 1), (slow, 0, 2), (fast, 1, 1)}
    assert dots(height, is_open=True) == {(fast, 1, 30)}
    assert dots(epoch, is_open=True) == {(fast, 1, 4)}
    means = [[float(y) for y in line.get_ydata()] for axes in (height, epoch) for line in axes.get_lines()
             if line.get_marker() == "None" and line.get_linestyle() == "-"]  # fmt: skip
    assert means == [[60, 30], [1.5, 2.5]]
    assert height.get_yscale() == "log"


def test_the_dotted_line_is_the_limit_of_each_rate_along_the_directions_that_are_nudged():
    for gamma in (1.0, 10.0):
        figure = peaks(frame_of(CURVES).assign(gamma=gamma))
        (limit,) = (line for line in figure.get_axes()[0].get_lines() if line.get_color() == "black")
        assert list(limit.get_ydata()) == pytest.approx([200 / gamma, 40 / gamma])
        assert ("2 / learning rate" in legend_labels(figure)) == (gamma == 1)


def test_a_peak_at_the_start_is_shown_at_zero():
    epoch = peaks(frame_of({(0.01, 0): [9, 1, 1], (0.05, 0): [1, 9, 1]})).get_axes()[1]

    low, high = epoch.get_ylim()
    assert {y for _, _, y in dots(epoch)} == {0, 1}
    assert low < 0 < 1 < high


def test_a_late_peak_of_one_grid_is_in_sight_where_the_other_has_none():
    rates = frame_of({(0.01, 0): [1, 9, 1], (0.05, 0): [1, 9, 1]})
    late = frame_of({(0.01, 0): range(1, 40), (0.05, 0): range(1, 60)}).assign(grid="batch_size")
    sizes = late.assign(batch_size=late["learning_rate"].map({0.01: 8, 0.05: 32}), run=late["run"] + "-late")
    figure = peaks(pd.concat([rates, sizes], ignore_index=True))
    epochs = figure.get_axes()[3]
    assert [y for _, _, y in sorted(dots(epochs, is_open=True), key=lambda dot: dot[1])] == [38, 58]
    assert epochs.get_ylim()[1] > 58


def test_no_panel_judges_what_the_table_of_claims_judges():
    figure = peaks(spectrum_frame(sweep()))

    assert [axes.get_title() for axes in figure.get_axes()] == [""] * 4


def test_a_diverged_run_is_crossed_out_and_not_in_the_mean():
    frame = spectrum_frame(sweep(seeds=(0, 1)), diverge_after=8)

    height = peaks(frame).get_axes()[0]

    (mean,) = lines(height, linestyle="-")
    whole = frame[(frame["seed"] == 1) & (frame["grid"] == "learning_rate") & (frame["rank"] == 0)]
    curves = whole[whole["which"] == "largest"].pivot(index="epoch", columns="learning_rate", values="eigenvalue")
    # Of these curves the first peak is the highest.
    np.testing.assert_allclose(mean.get_ydata(), curves.max())
    assert curves.index.tolist() == EPOCHS.tolist()
    assert len(crosses(height)) == 1
