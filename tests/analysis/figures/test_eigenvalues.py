"""The figure ``eigenvalues``, judged by what it has drawn."""

import numpy as np
import pandas as pd
import pytest
from figures.invented import (
    EPOCHS,
    crosses,
    curvature,
    frame_of,
    legend_labels,
    levels,
    lines,
    run_fields,
    spectrum_frame,
    sweep,
)

from sharpness.analysis.figures.eigenvalues import eigenvalues
from sharpness.analysis.figures.palette import colour_of
from sharpness.analysis.figures.peaks import peaks


def test_lines_are_means_over_seeds_and_bands_reach_from_smallest_to_largest():
    runs = [run_fields(seed, grid="learning_rate") for seed in (0, 1, 2)]
    values = np.array([curvature(fields) for fields in runs])

    axes = eigenvalues(spectrum_frame(runs)).get_axes()[0]

    (largest,) = lines(axes, linestyle="-")
    np.testing.assert_allclose(largest.get_ydata(), values.mean(axis=0))
    assert len(lines(axes, linestyle="--")) == 1
    band = axes.collections[0].get_paths()[0].vertices
    at_epoch_three = band[np.isclose(band[:, 0], 3), 1]
    index = EPOCHS.tolist().index(3)
    assert (at_epoch_three.min(), at_epoch_three.max()) == pytest.approx(
        (values[:, index].min(), values[:, index].max())
    )


def test_one_seed_has_no_band():
    assert not eigenvalues(spectrum_frame(sweep(seeds=(0,)))).get_axes()[0].collections


def test_a_panel_per_grid_with_its_values_in_order_on_stretched_logarithmic_axes():
    rates, sizes = eigenvalues(spectrum_frame(sweep())).get_axes()

    assert [text.get_text() for text in rates.get_legend().get_texts()] == ["0.01", "0.05", "0.2"]
    assert [text.get_text() for text in sizes.get_legend().get_texts()] == ["8", "32", "128", "full"]
    assert rates.get_legend().get_title().get_text() == "learning rate (batch size 32)"
    assert sizes.get_legend().get_title().get_text() == "batch size (learning rate 0.05)"
    for axes in (rates, sizes):
        assert (axes.get_xscale(), axes.get_yscale()) == ("symlog", "log")


def marks(axes):
    """Place of each peak, and whether it is open."""
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]), line.get_markerfacecolor() == "white")
        for line in axes.get_lines()
        if line.get_marker() == "o"
    ]


def test_marks_the_mean_over_seeds_of_the_peaks_and_not_the_peak_of_the_mean():
    seeds = {0: [1, 50, 20, 60, 10], 1: [1, 20, 70, 30, 20]}  # first peaks: 50 at epoch 1, 70 at epoch 2
    frame = frame_of({(0.01, seed): curve for seed, curve in seeds.items()})

    figure = eigenvalues(frame)

    assert marks(figure.get_axes()[0]) == [(1.5, 60, False)]
    assert "not fallen to 80 % by the end" not in legend_labels(figure)


def test_the_mark_is_where_the_figure_of_the_peaks_has_its_line():
    frame = spectrum_frame(sweep())
    found = peaks(frame).get_axes()
    height, epoch = (lines(axes, linestyle="-")[0].get_ydata() for axes in (found[0], found[2]))

    drawn = marks(eigenvalues(frame).get_axes()[0])

    assert [(x, y) for x, y, _ in drawn] == [pytest.approx(pair) for pair in zip(epoch, height, strict=True)]


def test_a_peak_that_may_lie_after_the_end_is_open():
    figure = eigenvalues(frame_of({(0.01, 0): [1, 2, 4, 8], (0.01, 1): [1, 9, 2, 2], (0.05, 0): [1, 9, 2, 2]}))

    assert marks(figure.get_axes()[0]) == [(2, 8.5, True), (1, 9, False)]
    assert "not fallen to 80 % by the end" in legend_labels(figure)


def test_the_bracket_reaches_from_the_eigenvalue_to_the_curvature_elsewhere():
    frame = frame_of({(0.01, 0): [4, 50, 20], (0.01, 1): [2, 30, 10]})
    part = frame["seed"].map({0: 0.5, 1: 0.7})
    second = frame.assign(rank=1, eigenvalue=frame["eigenvalue"] / 2)
    measured = pd.concat([frame.assign(elsewhere=part * frame["eigenvalue"]), second.assign(elsewhere=0.1)])
    # At the last epoch all images were measured.
    measured["elsewhere"] = measured["elsewhere"].where(measured["epoch"] < 2)

    figure = eigenvalues(measured)

    axes = figure.get_axes()[0]
    (band,) = (each for each in axes.collections if each.get_hatch())
    corners = band.get_paths()[0].vertices
    for epoch, ends in {0: (1.7, 3), 1: (23, 40), 2: (15, 15)}.items():
        heights = corners[corners[:, 0] == epoch, 1]
        assert (heights.min(), heights.max()) == pytest.approx(ends)
    assert axes.get_ylim() == eigenvalues(measured.drop(columns="elsewhere")).get_axes()[0].get_ylim()
    assert "down to the curvature on other images" in legend_labels(figure)


@pytest.mark.parametrize("columns", [{}, {"elsewhere": np.nan}])
def test_a_table_without_other_images_has_no_bracket(columns):
    figure = eigenvalues(frame_of({(0.01, 0): [4, 50, 20]}).assign(**columns))

    assert not any(band.get_hatch() for band in figure.get_axes()[0].collections)
    assert "down to the curvature on other images" not in legend_labels(figure)


def test_limits_have_the_colours_of_their_rates_and_know_what_is_nudged():
    frame = frame_of({(0.01, 0): [4, 250, 20], (0.05, 0): [4, 50, 20]})
    for gamma in (1.0, 2.0):
        (axes,) = eigenvalues(frame.assign(gamma=gamma)).get_axes()
        expected = {colour_of("learning_rate", rate): 2 / rate / gamma for rate in (0.01, 0.05)}
        assert levels(axes) == pytest.approx(expected)


def test_two_models_make_two_rows():
    assert len(eigenvalues(spectrum_frame(sweep((0,), ("simple_cnn", "resnet32")))).get_axes()) == 4


def test_one_grid_makes_one_panel_and_a_short_run_an_ordinary_axis():
    frame = spectrum_frame([fields for fields in sweep((0,)) if fields["grid"] == "batch_size"])

    (axes,) = eigenvalues(frame[frame["epoch"] <= 2]).get_axes()

    assert axes.get_xscale() == "linear"
    assert axes.get_xlabel() == "epoch"


def test_a_diverged_seed_is_crossed_out_and_named_in_the_legend():
    runs = [run_fields(seed, grid="learning_rate") for seed in (0, 1)]
    figure = eigenvalues(spectrum_frame(runs, diverge_after=4))

    assert [x for x, _ in crosses(figure.get_axes()[0])] == [4]
    assert "diverged" in legend_labels(figure)
