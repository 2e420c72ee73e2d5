"""The figure ``peaks``, judged by what it has drawn."""

import numpy as np
from figures.invented import crosses, curvature, lines, run_fields, spectrum_frame, sweep

from sharpness.analysis.figures.peaks import peaks


def test_draws_every_seed_and_the_mean():
    frame = spectrum_frame(sweep())
    largest = [
        [curvature(run_fields(seed, learning_rate=rate)).max() for seed in range(3)] for rate in (0.01, 0.05, 0.2)
    ]

    height = peaks(frame).get_axes()[0]

    (mean,) = lines(height, linestyle="-")
    np.testing.assert_allclose(mean.get_ydata(), np.mean(largest, axis=1))
    (dots,) = (line for line in height.get_lines() if line.get_marker() == "o")
    np.testing.assert_allclose(sorted(dots.get_ydata()), np.sort(np.ravel(largest)))
    assert height.get_yscale() == "log"


def test_the_titles_state_what_was_found():
    found = [axes.get_title() for axes in peaks(spectrum_frame(sweep())).get_axes()]

    assert found == [
        "falls with learning rate: yes, 3 of 3 seeds",
        "rises with batch size: yes, 3 of 3 seeds",
        "earlier with learning rate: yes, 3 of 3 seeds",
        "later with batch size: yes, 3 of 3 seeds",
    ]


def test_the_titles_say_no_and_partly_where_it_is_so():
    frame = spectrum_frame([fields for fields in sweep() if fields["grid"] == "learning_rate"])
    upside_down = frame.assign(eigenvalue=frame["eigenvalue"] * frame["learning_rate"] ** 2)
    mixed = frame.assign(eigenvalue=frame["eigenvalue"].where(frame["seed"] > 0, upside_down["eigenvalue"]))

    assert peaks(upside_down).get_axes()[0].get_title() == "falls with learning rate: no, 0 of 3 seeds"
    assert peaks(mixed).get_axes()[0].get_title() == "falls with learning rate: partly, 2 of 3 seeds"


def test_a_single_value_claims_nothing():
    figure = peaks(spectrum_frame([run_fields(grid="learning_rate")]))

    assert figure.get_axes()[0].get_title() == "falls with learning rate: one value only"


def test_a_diverged_run_is_crossed_out_and_not_in_the_mean():
    frame = spectrum_frame(sweep(seeds=(0, 1)), diverge_after=8)

    height = peaks(frame).get_axes()[0]

    (mean,) = lines(height, linestyle="-")
    expected = [curvature(run_fields(1, learning_rate=rate)).max() for rate in (0.01, 0.05, 0.2)]
    np.testing.assert_allclose(mean.get_ydata(), expected)
    assert crosses(height)
