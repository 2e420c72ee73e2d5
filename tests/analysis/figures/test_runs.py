"""Which runs a figure shows."""

from figures.invented import run_fields, spectrum_frame

from sharpness.analysis.figures.runs import first_seeds


def test_first_seeds_keeps_one_run_of_each_configuration():
    frame = spectrum_frame([run_fields(seed, learning_rate=rate) for rate in (0.1, 0.2) for seed in (3, 1)])

    assert [part["run"].unique().tolist() for part in first_seeds(frame)] == [
        [run_fields(1, learning_rate=0.1)["run"]],
        [run_fields(1, learning_rate=0.2)["run"]],
    ]
