"""A study of one's own, written from the documentation alone; then edits, and the jobs that they run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from running import environment, planned_jobs, snakemake
from safetensors import safe_open

from benchmarks.project import ROOT

pytestmark = pytest.mark.slow

BLOCKS = [
    textwrap.dedent(block)
    for block in re.findall(r"(?:^    .*\n|^\n(?=    |\n    ))+", (ROOT / "docs" / "own.md").read_text(), re.MULTILINE)
]
FIGURES = {"figure_eigenvalues": 1, "figure_peaks": 1}
LAST = {"claims": 1, "report": 1}
MEASURED = {"spectrum": 2, "collect": 2, **FIGURES, **LAST}
TRAINED = {"train": 2, **MEASURED}


def block_with(words: str) -> str:
    """The block of the documentation that has these words."""
    (found,) = [block for block in BLOCKS if words in block]
    return found.strip() + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documented study, computed."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine").mkdir()
    (folder / "mine" / "mine.yaml").write_text(block_with("study: mine"))
    (folder / "mine" / "my_models.py").write_text(block_with("def build(depth"))
    generator = np.random.default_rng(0)
    targets = generator.integers(3, size=120)
    np.savez(folder / "mine" / "blobs.npz", inputs=generator.normal(size=(120, 7)) + targets[:, None], targets=targets)
    done = snakemake(folder, "--cores", "2", "--show-failed-logs", "--configfile", "mine/mine.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture
def edited(folder: Path) -> Iterator[Path]:
    """The same, put back afterwards."""
    before = {path: path.read_bytes() for path in (folder / "mine").iterdir() if path.is_file()}
    yield folder
    for path in (folder / "mine").iterdir():
        if path.is_file() and path not in before:
            path.unlink()
    for path, content in before.items():
        path.write_bytes(content)


def jobs(folder: Path) -> dict[str, int]:
    return planned_jobs(folder, study=folder / "mine" / "mine.yaml")


def test_what_the_network_is_stands_with_the_results(folder):
    (trial,) = (folder / "results" / "mine" / "trials").glob("*.yaml")
    told = yaml.safe_load(trial.read_text())
    assert told["parameters"]["1.weight"] == [16, 7]
    assert told["num_parameters"] == 7 * 16 + 16 + (2 * 16 + 17 * 16) + 17 * 3
    for record in (folder / "results" / "mine" / "runs").glob("*/run.yaml"):
        run = yaml.safe_load(record.read_text())
        assert run["network"]["num_parameters"] == told["num_parameters"]
        assert abs(run["network"]["initial_loss"] - np.log(3)) < 0.5
        assert len(run["environment"]["own_code"]) == 12
    spectrum = pd.read_csv(folder / "results" / "mine" / "tables" / "rates_spectrum.csv")
    assert spectrum["own_code"].nunique() == 1
    assert (spectrum["eigenvalue"].abs() < 1e4).all()
    assert jobs(folder) == {}


def test_the_command_runs_it_as_well(folder):
    command = [sys.executable, "-m", "sharpness", "run", "mine/mine.yaml"]
    variables = environment() | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Nothing to do" in done.stdout
    assert "Report: results/mine/report.html" in done.stdout


def test_an_edit_of_the_network_trains_again(edited):
    path = edited / "mine" / "my_models.py"
    path.write_text(path.read_text().replace("Tanh", "GELU"))
    assert jobs(edited) == {"try_own": 1, **TRAINED}


def test_a_file_that_is_not_imported_runs_nothing(edited):
    (edited / "mine" / "other.py").write_text("x = 1\n")
    (edited / "mine" / "my_models.py").touch()
    (edited / "mine" / "blobs.npz").touch()
    assert jobs(edited) == {}


def test_other_data_are_prepared_and_trained_on(edited):
    arrays = dict(np.load(edited / "mine" / "blobs.npz"))
    np.savez(edited / "mine" / "blobs.npz", inputs=arrays["inputs"] + 1, targets=arrays["targets"])
    assert jobs(edited) == {"prepare_data": 1, "try_own": 1, **TRAINED}


def test_another_width_is_another_network_and_the_first_stays(edited):
    path = edited / "mine" / "mine.yaml"
    study = yaml.safe_load(path.read_text())
    study["experiments"]["wide"] = {
        "kind": "spectrum",
        "grids": {
            "run": [{"learning_rate": 0.1, "model_args": {"width": [32]}, "optimizer": "adam", "schedule": "cosine"}]
        },
    }
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    new = {"runs": 1, "effective_study": 1, "train": 1, "spectrum": 1, "collect": 2, "figure_spectrum": 1}
    assert jobs(edited) == {"try_own": 1, **new, **LAST}


def test_a_network_that_does_not_take_the_data_ends_before_anything_trains(edited):
    path = edited / "mine" / "my_models.py"
    path.write_text(path.read_text().replace("input_shape[0]", "input_shape[0] + 1"))
    done = snakemake(edited, "--cores", "2", "--configfile", "mine/mine.yaml")
    assert done.returncode != 0
    said = (done.stdout + done.stderr).split("What failed, and the last line of its log:")[1]
    assert "my_models.py, line 4: RuntimeError: mat1 and mat2 shapes cannot be multiplied" in said
    assert "was given inputs of [96, 7]" in said
    assert "rule train:" not in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("my_models.py:build", "my_models.py:make", "my_models.py defines no 'make'; it has build"),
        ("blobs.npz", "blob.npz", "mine/blob.npz does not exist"),
        ("depth: 2", "depth: 1e-2", "YAML reads as text; write 0.01"),
    ],
)
def test_what_planning_can_see_is_said_before_any_job(edited, old, new, said):
    path = edited / "mine" / "mine.yaml"
    path.write_text(path.read_text().replace(old, new))
    done = snakemake(edited, "-n", "--configfile", "mine/mine.yaml")
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documented study with a measurement and a figure of one's own, computed."""
    folder = tmp_path_factory.mktemp("probed")
    (folder / "probed.yaml").write_text(block_with("study: probed"))
    (folder / "my_probe.py").write_text(block_with("class Probe"))
    (folder / "my_plot.py").write_text(block_with("def draw"))
    done = snakemake(folder, "--cores", "2", "--show-failed-logs", "--configfile", "probed.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_a_measurement_of_ones_own_is_that_of_each_checkpoint(probed):
    table = pd.read_csv(probed / "results" / "probed" / "tables" / "rates_probe.csv")
    spectrum = pd.read_csv(probed / "results" / "probed" / "tables" / "rates_spectrum.csv")
    assert set(zip(table["run"], table["step"], strict=True)) == set(
        zip(spectrum["run"], spectrum["step"], strict=True)
    )
    for path in (probed / "results" / "probed" / "runs").glob("*/checkpoints/0.safetensors"):
        with safe_open(path, framework="np") as file:
            norms = [
                np.linalg.norm(file.get_tensor(f"weights.{index}")) for index in range(len(file.get_tensor("steps")))
            ]
        np.testing.assert_allclose(table.loc[table["run"] == path.parents[1].name, "weight_norm"], norms, rtol=1e-5)
    for ending in ("pdf", "png"):
        assert (probed / "results" / "probed" / "figures" / f"rates_draw.{ending}").stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("my_plot.py", "return figure", "return axes", "my_plot.py, line 4: must return a matplotlib figure, got Axes"),
        ("my_probe.py", "yield {", "return {'weight_norm'}, {", "my_probe.py, line 1: must return rows by column"),
    ],
)
def test_what_ones_own_code_must_not_return_is_said_before_anything_trains(tmp_path, name, old, new, said):
    (tmp_path / "probed.yaml").write_text(block_with("study: probed"))
    (tmp_path / "my_probe.py").write_text(block_with("class Probe"))
    (tmp_path / "my_plot.py").write_text(block_with("def draw"))
    text = (tmp_path / name).read_text()
    assert text.count(old) == 1
    (tmp_path / name).write_text(text.replace(old, new))
    done = snakemake(tmp_path, "--cores", "2", "--configfile", "probed.yaml")
    assert done.returncode != 0
    assert said in done.stderr
    assert "rule train:" not in done.stderr
    assert not [*(tmp_path / "results" / "probed").rglob("*.safetensors")]


def test_an_edit_of_a_probe_or_a_plot_runs_it_and_nothing_else(probed):
    texts = {name: (probed / name).read_text() for name in ("my_probe.py", "my_plot.py")}
    (probed / "my_plot.py").write_text(texts["my_plot.py"].replace("semilogy", "plot"))
    assert planned_jobs(probed, study=probed / "probed.yaml") == {"try_figure": 1, "figure_own": 1, "report": 1}
    (probed / "my_probe.py").write_text(texts["my_probe.py"].replace("100", "50"))
    tried = {"try_probe": 1, "try_figure": 1}
    expected = {**tried, "measure_own": 2, "collect_own": 1, "figure_own": 1, "report": 1}
    assert planned_jobs(probed, study=probed / "probed.yaml") == expected
    for name, text in texts.items():
        (probed / name).write_text(text)
    assert planned_jobs(probed, study=probed / "probed.yaml") == {}


def test_the_report_shows_what_is_ones_own_with_its_docstring_and_its_cost(probed):
    page = (probed / "results" / "probed" / "report.html").read_text()
    figure = page.partition('id="figure-rates_draw"')[2].partition("</figure>")[0]
    assert "The norm of the gradient</a>" in figure
    assert "a line for each learning rate" in figure
    assert "my_plot.py:draw" in figure
    table = page.partition('id="table-rates_probe"')[2].partition("</section>")[0]
    assert "Norms of the weights and of the gradient</a>" in table
    last = pd.read_csv(probed / "results" / "probed" / "tables" / "rates_probe.csv").drop_duplicates("run", keep="last")
    for norm in last["gradient_norm"]:
        assert f"{norm:.4g}" in table
    (jobs_of_probe,) = re.findall(r"<tr><td>probe</td><td class=\"number\">(\d+)</td>", page)
    assert jobs_of_probe == "2"


def test_without_a_record_of_snakemake_own_tables_are_held_against_the_code(probed):
    shutil.move(probed / ".snakemake", probed / "kept")
    text = (probed / "my_probe.py").read_text()
    before = (probed / "probed.yaml").stat().st_mtime
    try:
        for name in ("my_probe.py", "my_plot.py"):
            os.utime(probed / name, (before, before))
        assert planned_jobs(probed, study=probed / "probed.yaml") == {}
        # As a checkout leaves it: of other content, and no newer than what was made.
        (probed / "my_probe.py").write_text(text.replace("100", "50"))
        os.utime(probed / "my_probe.py", (before, before))
        done = snakemake(probed, "-n", "--configfile", "probed.yaml")
        assert done.returncode != 0
        assert "own/probe-all.csv was computed with other code of yours than my_probe.py:Probe is here" in done.stderr
    finally:
        (probed / "my_probe.py").write_text(text)
        shutil.rmtree(probed / ".snakemake", ignore_errors=True)
        shutil.move(probed / "kept", probed / ".snakemake")


def published(folder):
    """``sharpness publish`` of the study, as it ended."""
    command = [sys.executable, "-m", "sharpness", "publish", "probed.yaml"]
    variables = environment() | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


def test_an_edit_of_ones_own_measurement_is_not_published_with_what_it_measured_before(probed):
    text = (probed / "my_probe.py").read_text()
    (probed / "my_probe.py").write_text(text.replace("100", "50"))
    try:
        done = published(probed)
    finally:
        (probed / "my_probe.py").write_text(text)
    assert done.returncode != 0
    assert "own/probe-all.csv was computed with other code of yours than my_probe.py:Probe is here" in done.stderr
    assert "Nothing was published: run the study first" in done.stderr
    assert not (probed / "results" / "probed" / "published").exists()


def test_what_is_ones_own_is_published_with_the_rest(probed):
    done = published(probed)
    assert done.returncode == 0, done.stderr[-2000:]
    results = probed / "results" / "probed"
    for name in ("tables/rates_probe.csv", "figures/rates_draw.png"):
        assert (results / "published" / name).read_bytes() == (results / name).read_bytes()
    assert 'id="figure-rates_draw"' in (results / "published" / "report.html").read_text()
