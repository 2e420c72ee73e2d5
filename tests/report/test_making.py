"""From a number to its runs, its tables, its code and its command, for the demo as it is published."""

from pathlib import Path

import pandas as pd
import pytest

from sharpness.analysis.reading import read_measured, read_runs
from sharpness.report.making import Source, Workshop
from sharpness.report.overview import panels
from sharpness.study.plan import study_in, study_of

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "results/digits/published"
RUNS = read_runs(PUBLISHED / "tables/runs.csv")


def table(experiment, measurement):
    return read_measured(PUBLISHED / f"tables/{experiment}_{measurement}.csv", measurement, RUNS)


@pytest.fixture(scope="module")
def workshop():
    study = study_in(ROOT / "workflow/studies/digits.yaml")
    sources = [
        Source.of(experiment, [table(experiment.name, measurement) for measurement in experiment.collected])
        for experiment in study.experiments.values()
    ]
    return Workshop("digits", "workflow/studies/digits.yaml", sources)


def test_every_verdict_leads_to_the_runs_of_its_network(workshop):
    for row in pd.read_csv(PUBLISHED / "tables/claims.csv", keep_default_na=False).to_dict("records"):
        making = workshop.of_claim(row["claim"], row["model"], row["data"])
        assert making.command == (
            "snakemake -c all results/digits/tables/claims.csv --configfile workflow/studies/digits.yaml"
        )
        if row["model"]:
            assert any(f"-{row['model']}-" in run for run in making.runs)
            assert all((PUBLISHED / f"tables/{name}.csv").exists() for name in making.tables)
            # The code that computed them is among what the verdict says of itself.
            codes = [word.strip(",;") for word in making.made_by.split() if word.strip(",;") in row["made_by"]]
            assert len(codes) >= len(making.tables) / 2


@pytest.mark.parametrize(
    ("claim", "model", "experiments"),
    [
        ("b", "simple_cnn", ["eigenvalues"]),
        ("k", "simple_cnn", ["nudged"]),
        ("k", "resnet8", ["results_table"]),
        ("f", "resnet8", ["slices"]),
        ("q", "", ["slices"]),
        ("r", "", []),
    ],
)
def test_a_claim_is_of_the_experiments_that_are_evidence_on_it(workshop, claim, model, experiments):
    assert [source.experiment for source in workshop.for_claim(claim, model, "digits" if model else "")] == experiments


def test_no_claim_leads_to_runs_that_it_is_not_about():
    grids = {
        "rates": {"learning_rate": [0.05, 0.1]},
        "adam": {"optimizer": "adam", "learning_rate": [0.001, 0.002]},
        "mixed": {"loss": ["cross_entropy", "mse"]},
        "cosine": {"schedule": "cosine"},
    }
    study = study_of(
        {
            "study": "mixed",
            "defaults": {"data": "digits", "model": "simple_cnn", "num_training": 100, "epochs": 1},
            "experiments": {name: {"kind": "eigenvalues", "grids": {"g": [grid]}} for name, grid in grids.items()},
        },
        source="study.yaml",
    )
    workshop = Workshop(
        "mixed",
        "mixed.yaml",
        [Source.of(each, [table("eigenvalues", "history")]) for each in study.experiments.values()],
    )

    assert [source.experiment for source in workshop.for_claim("a", "simple_cnn", "digits")] == ["rates", "mixed"]
    runs = [study.runs[name] for name in workshop.of_claim("a", "simple_cnn", "digits").runs]
    assert {run.learning_rate for run in runs} >= {0.05, 0.1}
    assert {(run.optimizer, run.schedule, run.loss) for run in runs} == {("{}", "{}", "cross_entropy")}
    assert workshop.of_claim("a", "resnet8", "digits").runs == []


def test_a_figure_and_a_table_lead_to_their_own_files(workshop):
    figure, made = workshop.of_figure("eigenvalues_peaks"), workshop.of_table("results_table")

    assert " results/digits/figures/eigenvalues_peaks.pdf " in figure.command
    assert figure.tables == ["eigenvalues_history", "eigenvalues_spectrum"]
    assert len(figure.runs) == 15
    assert " results/digits/tables/results_table.csv " in made.command
    assert all("resnet8" in run for run in made.runs)
    lines = workshop.of_measurement("nudged", "spectrum")
    assert " results/digits/tables/nudged_spectrum.csv " in lines.command


def test_the_picture_has_the_means_over_seeds_of_each_setting():
    by_rate, by_batch, by_gamma = panels([table("eigenvalues", "spectrum"), table("nudged", "spectrum")])

    assert [panel.setting for panel in (by_rate, by_batch, by_gamma)] == ["learning_rate", "batch_size", "gamma"]
    assert [line["label"] for line in by_batch.lines] == ["8", "32", "128"]
    assert by_rate.fixed == "SimpleCNN, digits, 1,300 images, batch size 32, 3 seeds"
    rows = table("nudged", "spectrum").query("gamma == 0.1 and rank == 0 and which == 'largest'")
    at_end = rows.loc[rows["epoch"] == rows["epoch"].max(), "eigenvalue"]
    line = by_gamma.lines[1]
    assert line["mean"][-1] == pytest.approx(at_end.mean(), rel=1e-3)
    assert (line["low"][-1], line["high"][-1]) == pytest.approx((at_end.min(), at_end.max()), rel=1e-3)
    assert f"0.1: peak {max(line['mean']):.3g}" in by_gamma.in_words


def test_there_is_no_picture_of_what_does_not_vary():
    assert panels([table("spectrum", "spectrum"), table("results_table", "spectrum")]) == []
