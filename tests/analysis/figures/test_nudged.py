"""The figure ``nudged``, judged by what it has drawn."""

import numpy as np
import pytest
from figures.invented import (
    crosses,
    curvature,
    gammas,
    history_frame,
    legend_labels,
    levels,
    lines,
    run_fields,
    spectrum_frame,
)

from sharpness.analysis.figures.nudged import nudged
from sharpness.analysis.figures.palette import colour_of


def test_norms_and_accuracies_are_means_over_seeds():
    runs = gammas()
    history, eigenvalue = history_frame(runs), spectrum_frame(runs, 5)

    accuracy, spectral, whole = nudged(history, eigenvalue).get_axes()

    smallest = history[history["gamma"] == 0.01].groupby("epoch")["validation_accuracy"].mean()
    np.testing.assert_allclose(lines(accuracy)[0].get_ydata(), 100 * smallest)
    values = np.array([curvature(fields) for fields in runs if fields["gamma"] == 0.01])
    np.testing.assert_allclose(lines(spectral)[0].get_ydata(), values.mean(axis=0))
    factor = np.sqrt(sum((1 + 0.4 * rank) ** -2.4 for rank in range(5)))
    np.testing.assert_allclose(lines(whole)[0].get_ydata(), factor * values.mean(axis=0))
    assert "of 5 eigenvalues" in whole.get_title()
    assert spectral.get_yscale() == whole.get_yscale() == "log"


def test_the_limit_of_each_gamma_is_that_along_the_directions_that_it_nudges():
    runs = gammas(seeds=(0,))
    eigenvalue = spectrum_frame(runs, 5)
    axes = nudged(history_frame(runs), eigenvalue).get_axes()[1]
    expected = {colour_of("gamma", gamma): 2 / (0.05 * gamma) for gamma in (0.01, 0.1, 1, 5)}
    assert levels(axes) == pytest.approx(expected)


def test_every_gamma_has_a_colour_and_a_mark_of_its_own():
    runs = gammas(seeds=(0,))
    for axes in nudged(history_frame(runs), spectrum_frame(runs, 5)).get_axes():
        drawn = lines(axes)
        assert [line.get_color() for line in drawn] == [colour_of("gamma", gamma) for gamma in (0.01, 0.1, 1, 5)]
        assert len({line.get_marker() for line in drawn}) == 4


def test_the_frobenius_norm_uses_the_number_of_eigenvalues_that_every_checkpoint_has():
    runs = gammas(seeds=(0,))
    eigenvalue = spectrum_frame(runs, 5)
    fewer = eigenvalue[(eigenvalue["epoch"] > 0) | (eigenvalue["rank"] < 3)]

    whole = nudged(history_frame(runs), fewer).get_axes()[2]

    assert "of 3 eigenvalues" in whole.get_title()


def test_grids_have_panels_of_their_own_by_what_they_vary_whatever_their_names():
    runs = [{**run, "grid": "mine"} for run in gammas(seeds=(0,))]
    rates = [run_fields(grid="yours", learning_rate=rate) for rate in (0.1, 0.2)]

    figure = nudged(history_frame([*runs, *rates]), spectrum_frame([*runs, *rates]))

    upper, lower = figure.subfigs
    assert legend_labels(lower) == ["γ = 0.01", "γ = 0.1", "γ = 1 (SGD)", "γ = 5", "2 / (γ × learning rate)"]
    assert legend_labels(upper) == ["learning rate = 0.1", "learning rate = 0.2", "2 / learning rate"]
    assert [len(lines(part.get_axes()[0])) for part in (upper, lower)] == [2, 4]


def test_a_diverged_seed_is_marked():
    runs = gammas(seeds=(0, 1))
    figure = nudged(history_frame(runs, diverge_after=15), spectrum_frame(runs, 5, diverge_after=15))

    for axes in figure.get_axes():
        assert [x for x, _ in crosses(axes)] == [15] * 4
    assert legend_labels(figure)[-1] == "diverged"
    assert "of 5 eigenvalues" in figure.get_axes()[2].get_title()


def test_runs_that_diverged_before_the_first_measurement_leave_the_norms_empty():
    runs = gammas(seeds=(0,))
    figure = nudged(history_frame(runs, diverge_after=0), spectrum_frame(runs, 5, diverge_after=-1))

    assert "diverged" in legend_labels(figure)
