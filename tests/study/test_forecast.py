"""What a study will cost: counts against the plan and against what runs count themselves."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sharpness.runtime.device import choose_device, fast_precision
from sharpness.stages.forecast import forecast
from sharpness.study.forecast import Products, Rates, summed, work_of
from sharpness.study.plan import Study, study_of
from sharpness.study.registry import MEASUREMENTS

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "tests" / "workflow" / "small.yaml"


@pytest.fixture(scope="module")
def small() -> Study:
    return study_of(yaml.safe_load(SMALL.read_text()), source="small")


def of(study: Study, part: str):
    return [job for job in work_of(study) if job.part == part]


def test_there_is_a_job_for_every_one_that_snakemake_plans(small, finished):
    runs = finished / "results" / "small" / "runs"
    for part in ("train", *MEASUREMENTS):
        assert len(of(small, part)) == len(list(runs.glob(f"*/logs/{part}*.log"))), part


def test_updates_are_those_of_the_histories(small, finished):
    for job in of(small, "train"):
        history = pd.read_csv(finished / "results" / "small" / "runs" / job.run.name / "history.csv")
        if not history["diverged"].any():
            assert job.gradients == history["step"].iloc[-1]
        assert history["num_direction_products"].sum() <= sum(some.at_most for some in job.products)


def test_losses_are_evaluated_at_the_start_and_after_the_epochs_of_the_study():
    config = yaml.safe_load(SMALL.read_text()) | {"evaluation_epochs": [2, 9], "validation_epoch": 2}
    for job in of(study_of(config, source="small"), "train"):
        # 100 training images and the validation split of the digits, twice; the test split at the best and at the last.
        assert job.evaluated == 2 * (100 + 247) + 2 * 250
        assert job.run.epochs == 2


def test_no_spectrum_takes_more_products_than_foreseen_at_most(small, finished):
    for job in of(small, "spectrum"):
        assert all(0 <= some.expected <= some.at_most for some in job.products)
    most = sum(some.at_most for job in of(small, "spectrum") for some in job.products)
    spent = 0
    for path in (finished / "results" / "small" / "runs").glob("*/spectrum/*.csv"):
        with path.open() as file:
            rows = {(row["checkpoint"], row["step"]): row for row in csv.DictReader(file) if row.get("num_products")}
        spent += sum(int(row["num_products"]) + int(row["num_probing"]) for row in rows.values())
    assert 0.2 * most < spent <= most


@pytest.mark.parametrize(("auto", "certified"), [("float32", 0), ("bfloat16", 4)])
def test_a_search_in_low_precision_costs_each_pair_once_more_and_a_norm_its_products(small, auto, certified):
    ends = [
        job
        for job in work_of(small, auto=auto)
        if job.part == "spectrum" and job.products[0].at_most == 2 * 40 and job.products[-1].expected
    ]
    # Four pairs, a probe of three products and a norm from four, at the best and at the last checkpoint.
    assert len(ends) == 4
    for job in ends:
        found, probed, exact, outside, norm = job.products
        assert (found.expected, found.precision) == (2 * (8 + 2 * 4), auto)
        assert (probed.expected, probed.precision) == (2 * 3, auto)
        assert (exact.expected, exact.precision) == (2 * certified, "float32")
        assert (outside.expected, outside.precision) == (2 * 4, "float32")
        assert (norm.expected, norm.precision) == (2 * 4, "float32")


def test_variants_take_no_more_products_than_foreseen_at_most(small, finished):
    most = sum(some.at_most for job in of(small, "variants") for some in job.products)
    tables = (finished / "results" / "small" / "runs").glob("*/variants/*.csv")
    assert sum(pd.read_csv(path)["num_products"].sum() for path in tables) <= most


def test_hours_are_counts_times_rates(small):
    (job,) = of(small, "density")
    rates = Rates(start=3.0, gradient=5.0, evaluated=7.0, product=lambda some: 0.5 * some.num_examples)
    (found,) = summed([job], {job.run: rates})
    # One checkpoint, sixteen examples: two pairs, two probes of ten steps, eight and four random vectors.
    assert found.expected_products == 8 + 2 * 2 + 2 * 10 + 8 + 4
    assert found.most_products == 40 + 2 * 10 + 8 + 4
    assert found.hours * 3600 == pytest.approx(3.0 + 44 * 8.0)
    assert found.most_hours * 3600 == pytest.approx(3.0 + 72 * 8.0)
    assert job.products[0] == Products(12, 40, 16, "float32")


@pytest.mark.slow
def test_the_command_prints_every_part_with_its_hours_and_runs_nothing(tmp_path):
    config = yaml.safe_load(SMALL.read_text())
    config["experiments"] = {name: config["experiments"][name] for name in ("first_layer", "gradient_step")}
    study, path, folder = study_of(config, source="small"), tmp_path / "study.yaml", tmp_path / "empty"
    path.write_text(yaml.safe_dump(config))
    folder.mkdir()
    command = [sys.executable, "-m", "sharpness.stages.forecast", "--config", str(path)]
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    rows = re.findall(r"^(\w+) +([\d,]+) +([\d,]+) +([\d,]+) \(([\d,]+)\) +(\S+) \((\S+)\)$", done.stdout, re.M)
    assert {row[0] for row in rows[:-1]} == {job.part for job in work_of(study)}
    assert rows[-1][0] == "all"
    assert int(rows[0][1]) == len(study.runs)
    assert all(float(row[6]) >= float(row[5]) > 0 for row in rows[:1])
    assert float(rows[-1][5]) == pytest.approx(sum(float(row[5]) for row in rows[:-1]), rel=0.05)
    assert list(folder.iterdir()) == []
    # One measurement of the study is in bfloat16.
    assert ("float32 is many times faster here" in done.stdout) == (
        fast_precision(choose_device(threads=1)) == "float32"
    )


def test_a_study_that_is_wrong_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(SMALL.read_text().replace("learning_rate: 0.05", "learning_rat: 0.05"))
    with pytest.raises(ValueError, match=r"study\.yaml: .*learning_rat"):
        forecast(path)
