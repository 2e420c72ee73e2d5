"""What the explorer is given: each run's numbers as they stand in the tables, and where they are from."""

import json

import numpy as np
import pandas as pd
import pytest
from figures.invented import density_frame, history_frame, run_fields, slices_frame, spectrum_frame, sweep, switched

from sharpness.report.explorer import Measured, explorer, rounded
from sharpness.report.making import Workshop


def explored(study="made_up", *, num_ranks=30, **tables):
    measured = Measured(Workshop(study, f"workflow/studies/{study}.yaml"), "beside/", tables)
    return explorer([measured], num_ranks=num_ranks)


def run_of(data, **settings):
    """The one run with these settings."""
    fields = {field["name"]: field["values"] for field in data["fields"]}
    found = [
        run
        for run in data["runs"]
        if all(fields[name][run["at"][list(fields).index(name)]] == value for name, value in settings.items())
    ]
    (run,) = found
    return run


def test_every_run_is_found_by_its_settings_with_its_own_numbers():
    runs = sweep(seeds=(0, 1))
    spectrum, history = spectrum_frame(runs), history_frame(runs)

    data = explored(spectrum=[spectrum], history=[history])

    run = run_of(data, learning_rate="0.2", batch_size="32", gamma="1", seed="1")
    rows = spectrum[(spectrum["run"] == run["name"]) & (spectrum["which"] == "largest") & (spectrum["rank"] == 0)]
    assert run["spectrum"]["values"][0] == pytest.approx(rows["eigenvalue"].to_list(), rel=1e-3)
    assert run["spectrum"]["epochs"] == pytest.approx(rows["epoch"].to_list(), rel=1e-3)
    assert run["spectrum"]["limit"] == pytest.approx(2 / 0.2)
    losses = history.loc[history["run"] == run["name"], "training_loss"]
    assert run["history"]["training_loss"] == pytest.approx(losses.to_list(), rel=1e-3)
    assert "density" not in run
    assert {field["name"] for field in data["fields"]} == {"learning_rate", "batch_size", "gamma", "seed"}
    # Numbers in the order of numbers, the full batch last.
    (sizes,) = [field["values"] for field in data["fields"] if field["name"] == "batch_size"]
    assert sizes == ["8", "32", "128", "full"]


def test_a_density_and_slices_are_as_their_figures_draw_them():
    fields = run_fields()
    data = explored(density=[density_frame([fields])], slices=[slices_frame([fields])])

    (run,) = data["runs"]
    density, slices = run["density"], run["slices"]
    step = density["places"][1] - density["places"][0]
    for curve in density["curves"]:
        assert step * sum(10**height for height in curve) == pytest.approx(1, rel=0.05)  # all eigenvalues
    # Turned so that the higher end is on the left, as far as 8 steps.
    assert (slices["places"][0], slices["places"][-1]) == (-8, 8)
    assert all(losses[0] >= losses[-1] for losses in slices["losses"])


def test_of_two_measurements_of_a_run_the_larger_is_shown_with_its_own_source():
    fields = run_fields()
    few = spectrum_frame([fields], num_eigenvalues=2).assign(experiment="few", settings="leading")
    many = spectrum_frame([fields], num_eigenvalues=9).assign(experiment="many", settings="top30", num_examples=65)

    (run,) = explored(spectrum=[few, many])["runs"]

    assert len(run["spectrum"]["values"]) == 9
    source = run["sources"]["spectrum"]
    assert (source["table"], source["settings"], source["examples"]) == (
        "beside/tables/many_spectrum.csv",
        "top30",
        65,
    )
    assert source["command"] == (
        "snakemake -c all results/made_up/tables/many_spectrum.csv --configfile workflow/studies/made_up.yaml"
    )


def test_runs_that_differ_in_another_setting_are_told_apart_by_it():
    runs = switched([run_fields()])
    frame = spectrum_frame(runs)

    data = explored(spectrum=[frame])

    assert [field["name"] for field in data["fields"]][4:] == ["learning_rate_epochs"]
    assert len({tuple(run["at"]) for run in data["runs"]}) == len(data["runs"]) == 3


def test_runs_of_two_studies_are_told_apart_by_the_study():
    tables = {"spectrum": [spectrum_frame([run_fields()])]}
    data = explorer([Measured(Workshop(name, name), "", tables) for name in ("one", "two")])

    assert data["fields"][0]["values"] == ["one", "two"]
    assert len({tuple(run["at"]) for run in data["runs"]}) == 2


def test_what_diverged_has_no_number_and_the_page_no_nan():
    runs = [run_fields(seed=seed) for seed in (0, 1)]
    data = explored(
        spectrum=[spectrum_frame(runs, diverge_after=5)],
        history=[history_frame(runs, diverge_after=5)],
        density=[density_frame(runs, diverge_after=5)],
        slices=[slices_frame(runs[:1], diverge_after=5)],
    )

    json.dumps(data, allow_nan=False)
    run = run_of(data, seed="0")
    assert run["history"]["diverged"] == 6
    assert run["history"]["training_loss"][-1] is None
    assert run_of(data, seed="1")["history"]["diverged"] is None


def test_two_runs_are_shown_first_that_differ_in_the_learning_rate():
    base = run_fields(learning_rate=0.05)
    runs = [base, run_fields(learning_rate=0.05, seed=1), run_fields(learning_rate=0.2)]
    data = explored(spectrum=[spectrum_frame(runs)], slices=[slices_frame([base])])

    left, right = (data["runs"][index]["name"] for index in data["first"])
    assert (left, right) == (base["run"], runs[2]["run"])


def test_fewer_eigenvalues_where_so_many_have_no_room_and_none_at_all():
    data = explored(spectrum=[spectrum_frame([run_fields()], num_eigenvalues=9)], num_ranks=3)
    assert len(data["runs"][0]["spectrum"]["values"]) == 3
    assert explored(spectrum=[pd.DataFrame()])["runs"] == []


def test_numbers_have_so_many_digits_and_what_is_not_finite_none():
    assert rounded([0.123456, 98765.4, np.nan, np.inf]) == [0.1235, 98770.0, None, None]
