"""What Snakemake plans, and how it refuses, before anything is computed."""

from __future__ import annotations

import gzip
import os
import time
from pathlib import Path

import pytest
import yaml
from running import SMALL, snakemake

from benchmarks.project import ROOT, copy_project


@pytest.mark.parametrize(
    "words", [(), pytest.param(("--profile", str(ROOT / "slurm"), "-j", "64"), marks=pytest.mark.slow)]
)
def test_the_papers_study_is_planned_from_an_empty_folder(tmp_path, words):
    done = snakemake(tmp_path, "-n", *words, "--configfile", str(ROOT / "config.yaml"))
    assert done.returncode == 0, done.stdout[-3000:]
    assert "train " in done.stdout
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
@pytest.mark.parametrize("study", sorted((ROOT / "workflow" / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_is_planned(tmp_path, study):
    done = snakemake(tmp_path, "-n", "--configfile", str(study))
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.slow
def test_planning_in_the_projects_own_folder_warns_of_nothing_and_is_of_this_study_alone(tmp_path):
    done = snakemake(copy_project(tmp_path), "-n", "--configfile", str(SMALL))
    said = done.stdout + done.stderr
    assert "Building DAG" in said
    assert not [line for line in said.splitlines() if "discouraged" in line or "arning" in line]
    assert "cifar10" not in said  # the paper's, which a study replaces and never merges with


@pytest.mark.slow
def test_the_demo_has_at_most_120_jobs(tmp_path):
    done = snakemake(tmp_path, "-n", "--configfile", str(ROOT / "workflow" / "studies" / "digits.yaml"))
    total = next(line for line in done.stdout.splitlines() if line.startswith("total "))
    assert int(total.split()[1]) <= 120


@pytest.mark.slow
def test_the_workflow_passes_snakemakes_own_lint(tmp_path):
    done = snakemake(tmp_path, "--lint", "--configfile", str(SMALL))
    assert done.returncode == 0, done.stdout + done.stderr


def broken(change) -> str:
    study = yaml.safe_load(SMALL.read_text())
    change(study)
    return yaml.safe_dump(study)


def fashion() -> str:
    """A study that needs the files of Fashion-MNIST."""
    return broken(lambda study: study["defaults"].update(data="fashion_mnist"))


# One that the reader of the file refuses, and one that the data set does; the kinds of what is wrong with a study stand
# in the tests of study.
BAD_STUDIES = {
    "a key given twice": (
        SMALL.read_text().replace("  seed: 0\n", "  seed: 0\n  seed: 7\n", 1),
        ("'seed'", "given twice", "in line "),
    ),
    "more training images than there are": (
        broken(lambda study: study["defaults"].update(num_training=1400)),
        ("num_training", "1300", "1400"),
    ),
}


@pytest.fixture
def results(tmp_path):
    """A folder with an earlier result, which bad input must leave alone."""
    earlier = tmp_path / "results" / "small" / "tables" / "steps_steps.csv"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("earlier\n")
    return tmp_path


def assert_refused(folder: Path, study: str, words: tuple[str, ...], **variables: str) -> None:
    path = folder / "study.yaml"
    path.write_text(study)
    before = {found: found.read_bytes() for found in (folder / "results").rglob("*") if found.is_file()}
    done = snakemake(folder, "--cores", "1", "--configfile", str(path), **variables)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in words), line
    assert "Traceback" not in done.stdout
    assert {found: found.read_bytes() for found in (folder / "results").rglob("*") if found.is_file()} == before


@pytest.mark.parametrize("name", BAD_STUDIES)
def test_a_bad_study_is_refused_in_one_sentence(results, name):
    study, words = BAD_STUDIES[name]
    assert_refused(results, study, (str(results / "study.yaml"), *words))


@pytest.mark.slow
@pytest.mark.parametrize("given", [["defaults={seed: 1, seed: 3}"], ["defaults={seed: 1}", "defaults={seed: 3}"]])
def test_a_key_given_twice_after_config_is_refused_in_one_sentence(tmp_path, given):
    done = snakemake(tmp_path, "-n", "--configfile", str(SMALL), "--config", *given)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"--config {given[-1]}: the key ")
    assert line.endswith("as 1 and as 3")
    assert done.returncode != 0


@pytest.mark.slow
def test_two_study_files_are_refused_in_one_sentence(tmp_path):
    done = snakemake(tmp_path, "-n", "--configfile", str(SMALL), str(ROOT / "config.yaml"))
    (line,) = done.stderr.splitlines()
    assert f"never merges with another, got {SMALL} and {ROOT / 'config.yaml'}" in line
    assert done.returncode != 0


NETWORK = """from torch import nn


def build(data):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""
DATA = """import torch


def load():
    return {"inputs": torch.zeros(200, 64), "targets": torch.zeros(200, dtype=torch.int64)}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "own", "is_refused"),
    [
        ("b{r}ce", {"model": "own.py:build"}, True),
        ("b{run}ce", {"data": "own.py:load"}, True),  # a wildcard that the rules have
        ("b{r}ce", {}, False),
        ("b{ce", {"model": "own.py:build"}, False),
    ],
)
def test_a_file_of_ones_own_in_whose_path_snakemake_sees_a_wildcard_is_refused_in_one_sentence(
    tmp_path, folder, own, is_refused
):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "own.py").write_text(DATA if "data" in own else NETWORK)
    study = {
        "study": "braces",
        "defaults": {"data": "digits", "num_training": 100, "epochs": 1, **own},
        "experiments": {"rates": {"kind": "eigenvalues", "grids": {"rates": [{"learning_rate": [0.1]}]}}},
    }
    (tmp_path / folder / "study.yaml").write_text(yaml.safe_dump(study))
    done = snakemake(tmp_path, "-n", "--configfile", f"{folder}/study.yaml")
    if is_refused:
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"{folder}/own.py: Snakemake takes a name in braces in a path for a wildcard; give ")
        assert done.returncode == 1
    else:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_a_data_folder_that_is_not_there_is_refused_in_one_sentence(results):
    missing = results / "nowhere"
    assert_refused(results, fashion(), ("SHARPNESS_DATA", str(missing)), SHARPNESS_DATA=str(missing))


@pytest.mark.slow
def test_a_truncated_data_file_is_refused_in_one_sentence(results):
    folder = results / "raw"
    folder.mkdir()
    for split, number in (("train", 60000), ("t10k", 10000)):
        labels = b"\0\0\x08\x01" + number.to_bytes(4, "big") + bytes(number)
        images = b"\0\0\x08\x03" + number.to_bytes(4, "big") + 2 * (28).to_bytes(4, "big") + bytes(number * 784)
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    whole = folder / "train-images-idx3-ubyte.gz"
    whole.write_bytes(whole.read_bytes()[:-100])
    said = (str(whole), "in place of the 47,040,016 that were published")
    assert_refused(results, fashion(), said, SHARPNESS_DATA=str(folder))


@pytest.mark.slow
def test_a_file_dated_in_the_future_is_refused_before_any_job(results):
    prepared = results / "results" / "data" / "digits.safetensors"
    prepared.parent.mkdir()
    tomorrow = time.time() + 86_400
    products = [results / "results/small" / name for name in ("tables/steps_steps.csv", "report.html")]
    for late in (prepared, results / "study.yaml", *products):
        late.touch()
        study = SMALL.read_text()
        (results / "study.yaml").write_text(study)
        os.utime(late, (tomorrow, tomorrow))
        done = snakemake(results, "--cores", "1", "--configfile", "study.yaml")
        (line,) = done.stderr.splitlines()
        assert late.name in line
        assert "in the future" in line
        assert done.returncode != 0
        os.utime(late)
