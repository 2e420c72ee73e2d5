"""The figure ``nudged``, judged by what it has drawn."""

import numpy as np
from figures.invented import crosses, curvature, gammas, history_frame, legend_labels, lines, run_fields, spectrum_frame

from sharpness.analysis.figures.nudged import nudged


def test_norms_and_accuracies_are_means_over_seeds():
    runs = gammas()
    history, eigenvalue = history_frame(runs), spectrum_frame(runs, 5)

    left, right = nudged(history, eigenvalue).get_axes()

    smallest = history[history["gamma"] == 0.01].groupby("epoch")["validation_accuracy"].mean()
    np.testing.assert_allclose(lines(left)[0].get_ydata(), 100 * smallest)
    values = np.array([curvature(fields) for fields in runs if fields["gamma"] == 0.01])
    np.testing.assert_allclose(lines(right, linestyle="-")[0].get_ydata(), values.mean(axis=0))
    factor = np.sqrt(sum((1 + 0.4 * rank) ** -2.4 for rank in range(5)))
    np.testing.assert_allclose(lines(right, linestyle="--")[0].get_ydata(), factor * values.mean(axis=0))
    assert "Frobenius norm of 5 eigenvalues" in right.get_title(loc="left")
    assert right.get_yscale() == "log"


def test_the_frobenius_norm_uses_the_number_of_eigenvalues_that_every_checkpoint_has():
    runs = gammas(seeds=(0,))
    eigenvalue = spectrum_frame(runs, 5)
    fewer = eigenvalue[(eigenvalue["epoch"] > 0) | (eigenvalue["rank"] < 3)]

    right = nudged(history_frame(runs), fewer).get_axes()[1]

    assert "Frobenius norm of 3 eigenvalues" in right.get_title(loc="left")


def test_the_rates_of_plain_sgd_stay_out():
    runs = [*gammas(seeds=(0,)), run_fields(grid="sgd", learning_rate=0.1)]

    figure = nudged(history_frame(runs), spectrum_frame(runs))

    assert legend_labels(figure) == ["γ = 0.01", "γ = 0.1", "γ = 1 (SGD)", "γ = 5", "2 / learning rate"]
    assert len(lines(figure.get_axes()[0])) == 4


def test_a_diverged_seed_is_marked():
    runs = gammas(seeds=(0, 1))
    figure = nudged(history_frame(runs, diverge_after=15), spectrum_frame(runs, 5, diverge_after=15))

    left, right = figure.get_axes()
    assert [x for x, _ in crosses(left)] == [15] * 4
    assert legend_labels(figure)[-1] == "diverged"
    assert "Frobenius norm of 5 eigenvalues" in right.get_title(loc="left")


def test_runs_that_diverged_before_the_first_measurement_leave_the_norms_empty():
    runs = gammas(seeds=(0,))
    figure = nudged(history_frame(runs, diverge_after=0), spectrum_frame(runs, 5, diverge_after=-1))

    assert "diverged" in legend_labels(figure)
