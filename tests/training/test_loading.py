"""A run opened in a notebook: its networks have the losses that its history says."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pages import run_page
from torch.nn import functional

import sharpness
from sharpness import HessianOperator, load_run, top_eigenpairs
from sharpness.data import originals
from sharpness.runtime.sealed import DamagedError
from sharpness.stages.train import Job, train
from sharpness.study.records import read_rows

STEPS = [0, 2, 5]


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """The folder of a run that a job has trained on few images, as in the results of a study."""
    results, generator = tmp_path_factory.mktemp("project") / "results", torch.Generator().manual_seed(0)
    tensors = {}
    for split, size in (("training", 40), ("validation", 10), ("test", 10)):
        tensors[f"{split}_labels"] = torch.randint(0, 10, (size,), generator=generator)
        tensors[f"{split}_images"] = torch.rand(size, 1, 8, 8, generator=generator)
    data = results / "data" / "digits.safetensors"
    originals.save(tensors, {"num_classes": "10"}, data)
    small = replace(run, data="digits", num_training=40, batch_size=8, model="resnet8", epochs=1)
    place = results / "digits" / "runs" / small.name
    kept = place / "checkpoints"
    job = Job(
        data, STEPS, 40, [], 1, results / "state", 60.0, False,
        [kept / "0.safetensors", kept / "1.safetensors"], kept / "best.safetensors", kept / "last.safetensors",
        place / "history.csv", place / "run.yaml",
    )  # fmt: skip
    train(small, job)
    return place


def test_every_checkpoint_becomes_a_network(folder):
    loaded = load_run(folder)

    assert loaded.steps == STEPS
    assert list(loaded.files) == [*STEPS, "best", "last"]
    assert loaded.run.name == folder.name
    inputs, targets = loaded.dataset.training.inputs, loaded.dataset.training.targets
    history = read_rows(folder / "history.csv", "history")
    for checkpoint, row in ((0, history[0]), (5, history[-1]), ("last", history[-1])):
        model = loaded.model(checkpoint)
        assert not model.training
        with torch.no_grad():
            loss = functional.cross_entropy(model(inputs), targets)
        assert float(loss) == pytest.approx(float(row["training_loss"]), rel=1e-5), checkpoint
    # Networks of their own, ready for the library.
    assert loaded.model(0) is not loaded.model(0)
    assert top_eigenpairs(HessianOperator(loaded.model(), inputs, targets), 1).converged


def test_the_page_on_it_runs_as_it_stands_there(folder, monkeypatch):
    monkeypatch.chdir(folder.parents[3])
    names = run_page("loading.md")
    assert names["run"].run.name == folder.name
    assert float(names["operator"].value()) > 0


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(folder):
    with pytest.raises(ValueError, match="has no checkpoint 3, it has 0, 2, 5, best, last"):
        load_run(folder).model(3)


def test_what_is_no_run_is_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder of a run that has been trained"):
        load_run(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"the prepared data of .* is missing: give data=, its path"):
        load_run(folder, data=tmp_path / "absent.safetensors")


def test_other_data_are_refused(folder, tmp_path):
    tensors = {}
    for split in ("training", "validation", "test"):
        tensors |= {f"{split}_labels": torch.arange(40) % 10, f"{split}_images": torch.rand(40, 1, 8, 8)}
    originals.save(tensors, {"num_classes": "10"}, tmp_path / "data.safetensors")
    with pytest.raises(DamagedError, match="was trained on another data set"):
        load_run(folder, data=tmp_path / "data.safetensors")


WITHOUT = """
import sys
sys.modules["safetensors"] = None
import sharpness
try:
    sharpness.load_run("anywhere")
except ModuleNotFoundError as error:
    assert str(error) == "load_run needs safetensors, as the pipeline does: pip install 'sharpness[workflow]'", error
else:
    raise AssertionError
"""


def test_without_the_pipelines_packages_a_sentence_says_what_to_install():
    environment = {**os.environ, "PYTHONPATH": str(Path(sharpness.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
