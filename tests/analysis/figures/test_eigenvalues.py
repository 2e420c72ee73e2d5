"""The figure ``eigenvalues``, judged by what it has drawn."""

import numpy as np
import pytest
from figures.invented import EPOCHS, crosses, curvature, legend_labels, lines, run_fields, spectrum_frame, sweep

from sharpness.analysis.figures.eigenvalues import eigenvalues


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


def test_marks_the_peak_of_the_largest_eigenvalue_of_every_value():
    fields = run_fields(grid="learning_rate")
    values = curvature(fields)

    axes = eigenvalues(spectrum_frame([fields])).get_axes()[0]

    (mark,) = (line for line in axes.get_lines() if line.get_marker() == "o")
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == pytest.approx((EPOCHS[values.argmax()], values.max()))


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
