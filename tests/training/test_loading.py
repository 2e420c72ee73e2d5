"""A run opened in a notebook: its networks have the losses that its history says."""

import csv
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pages import run_page
from torch.nn import functional

import sharpness
from sharpness import HessianOperator, load_pairs, load_run, top_eigenpairs
from sharpness.data import originals
from sharpness.data.datasets import Split
from sharpness.measurements.landscape import landscape_of
from sharpness.measurements.measuring import Part, measure
from sharpness.measurements.spectrum import Spectrum
from sharpness.runtime import closure, own
from sharpness.runtime.definitions import OwnError
from sharpness.runtime.sealed import DamagedError
from sharpness.stages.prepare_data import prepare_data
from sharpness.stages.train import Job, train
from sharpness.study.paths import prepared
from sharpness.study.records import read_rows
from sharpness.training.checkpoints import load_checkpoints

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


def test_it_is_shown_in_one_line_without_its_data(folder):
    loaded = load_run(folder)
    places = f"in {folder / 'checkpoints'}>"
    assert repr(loaded) == f"<LoadedRun {folder.name}: 0, 2, 5, best, last {places}"
    many = replace(loaded, files=dict.fromkeys([*range(0, 5000, 10), "best", "last"], folder))
    assert repr(many) == f"<LoadedRun {folder.name}: 0, 10, 20, 30, ..., 4980, 4990, best, last {places}"


SPECTRUM = Spectrum(
    num_examples=16, tolerance=1e-3, max_products=60, bracket=0.2, num_eigenvalues=2, resample=False,
    augment=False, parameters="*", precision="float32", probe_products=0, frobenius_products=0, keep_vectors=True,
)  # fmt: skip


def keep_vectors(settings, folder, output):
    """Measure the first two checkpoints of the run in ``folder``; returns the folder of the eigenvectors."""
    place, data = folder / "checkpoints", folder.parents[2] / "data" / "digits.safetensors"
    part = Part(
        data, [place / "0.safetensors"], STEPS[:2], [], [], folder.name, folder / "run.yaml", [], "mine", 1, output
    )  # fmt: skip
    measure(settings, part)
    return output.with_name(f"{output.stem}-vectors")


def test_its_data_are_shown_by_their_shapes(folder):
    shown = repr(load_run(folder).dataset)
    assert "training=<Split: inputs [40, 1, 8, 8], targets [40]>" in shown
    assert "tensor" not in shown


def test_a_run_that_was_named_by_a_relative_path_stays_open_in_another_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    loaded = load_run(folder.name)
    monkeypatch.chdir(tmp_path)
    expected = load_run(folder).model("last").state_dict()
    for name, tensor in loaded.model("last").state_dict().items():
        assert torch.equal(tensor, expected[name])


@pytest.mark.slow
def test_the_page_on_it_runs_as_it_stands_there(folder, monkeypatch):
    kept = keep_vectors(SPECTRUM, folder, folder / "spectrum" / "mine-0.csv")
    monkeypatch.chdir(folder.parents[3])
    names = run_page("loading.md")
    shutil.rmtree(kept.parent)
    assert names["run"].run.name == folder.name
    product = names["operator"] @ names["vector"]
    kept_value = float(names["pairs"].eigenvalues[0])
    assert float((product - kept_value * names["vector"]).norm()) <= 2e-3 * kept_value


def flat(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@pytest.mark.parametrize(("resample", "augment"), [(False, False), (True, False), (True, True)])
def test_the_examples_of_kept_eigenvectors_are_drawn_again(folder, tmp_path, resample, augment):
    """Products by torch's own double backward pass, on the examples drawn again and on the first ones."""
    settings = replace(SPECTRUM, resample=resample, augment=augment)
    kept, loaded = keep_vectors(settings, folder, tmp_path / "spectrum" / "mine-0.csv"), load_run(folder)
    for step in STEPS[:2]:
        pairs, model = load_pairs(kept / f"{step}.safetensors"), loaded.model(step)
        parameters = list(model.parameters())

        def residual(inputs, targets, pairs=pairs, model=model, parameters=parameters):
            value, vector = pairs.eigenvalues[0], pairs.eigenvectors[0]
            loss = functional.cross_entropy(model(inputs), targets)
            gradient = flat(torch.autograd.grad(loss, parameters, create_graph=True))
            product = flat(torch.autograd.grad(gradient @ vector, parameters))
            return float((product - value * vector).norm() / value)

        examples = loaded.drawn_examples(
            pairs.provenance["num_examples"], step=step if resample else None, augment=augment
        )
        assert residual(*examples) <= 2e-3
        training = loaded.dataset.training
        assert residual(training.inputs[:16], training.targets[:16]) > 0.02


def test_numbers_of_examples_that_cannot_be_drawn_are_refused(folder):
    loaded = load_run(folder)
    assert len(loaded.drawn_examples(40)[0]) == 40
    with pytest.raises(ValueError, match=r"num_examples must be at most 40, the training examples of .*, got 41"):
        loaded.drawn_examples(41)
    with pytest.raises(ValueError, match="num_examples must be at least 1, got 0"):
        loaded.drawn_examples(0)
    with pytest.raises(TypeError, match="step must be a whole number, got 'last'"):
        loaded.drawn_examples(4, step="last")
    flattened = Split(loaded.dataset.training.inputs.flatten(1), loaded.dataset.training.targets)
    of_numbers = replace(loaded, dataset=replace(loaded.dataset, training=flattened))
    with pytest.raises(ValueError, match=re.escape("augment must be False for inputs [4, 64], which are no images")):
        of_numbers.drawn_examples(4, augment=True)


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(folder):
    with pytest.raises(ValueError, match="has no checkpoint 3, it has 0, 2, 5, best, last"):
        load_run(folder).model(3)


def test_a_checkpoint_is_named_once_by_a_whole_number_a_word_or_an_epoch(folder):
    loaded = load_run(folder)
    both = "give a checkpoint or an epoch, not both, got checkpoint {} and epoch 1"
    for checkpoint in (0, "last"):
        with pytest.raises(ValueError, match=both.format(repr(checkpoint))):
            loaded.model(checkpoint, epoch=1)
    for checkpoint in (2.0, True, [0]):
        says = f'checkpoint must be a whole number, "best" or "last", got {checkpoint!r}'
        with pytest.raises(TypeError, match=re.escape(says)):
            loaded.model(checkpoint)
    with pytest.raises(TypeError, match="epoch must be a number, got '1'"):
        loaded.model(epoch="1")
    with pytest.raises(ValueError, match="epoch must be finite and not negative, got nan"):
        loaded.model(epoch=float("nan"))
    # Steps of a table that numpy or pandas has read.
    by_numpy, by_step = loaded.model(np.int64(2)).state_dict(), loaded.model(2).state_dict()
    assert all(torch.equal(value, by_step[name]) for name, value in by_numpy.items())


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "", None])
def test_a_device_that_is_not_there_is_refused(folder, device):
    with pytest.raises(ValueError, match=f"device must be one that torch has here, such as 'cpu', got {device!r}$"):
        load_run(folder, device=device)


def test_a_checkpoint_may_be_named_by_its_epoch(folder):
    loaded = load_run(folder)
    assert loaded.epochs == [0, 0.4, 1]
    by_epoch, by_step = loaded.model(epoch=0.4).state_dict(), loaded.model(2).state_dict()
    assert all(torch.equal(value, by_step[name]) for name, value in by_epoch.items())
    with pytest.raises(ValueError, match=r"has no checkpoint at epoch 0\.7, it has 0, 0\.4, 1"):
        loaded.model(epoch=0.7)


NETWORK = """
from torch import nn
from torch.nn import functional

def build(width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(6, width), nn.GELU(), nn.Linear(width, 3))

def focal(outputs, targets):
    losses = functional.cross_entropy(outputs, targets, reduction="none")
    return (1 - (-losses).exp()) * losses
"""


BLOBS = {"data": "blobs.npz", "num_training": 40, "batch_size": 10, "epochs": 2}


@pytest.fixture
def train_own(own_folder, monkeypatch):
    """Train a run as a job of the study mine/mine.yaml does, in the project's folder; returns the folder of the run."""

    def trained(small):
        (own_folder / "mine").mkdir(exist_ok=True)
        (own_folder / "mine" / "mine.yaml").touch()
        generator = np.random.default_rng(0)
        targets = generator.integers(3, size=60)
        inputs = generator.normal(size=(60, 6)) + targets[:, None]
        np.savez(own_folder / "mine" / "blobs.npz", inputs=inputs.astype(np.float32), targets=targets)
        place = own_folder / "results" / "mine" / "runs" / small.name
        kept = place / "checkpoints"
        with monkeypatch.context() as job_alone:
            job_alone.chdir(own_folder)
            job_alone.setenv("SHARPNESS_STUDY_FOLDER", "mine")
            data = Path(prepared(small.data))
            prepare_data("blobs.npz", data)
            job = Job(
                data, [0, 4, 8], 40, [], 1, own_folder / "state", 60.0, False, [kept / "0.safetensors"],
                kept / "best.safetensors", kept / "last.safetensors", place / "history.csv", place / "run.yaml",
            )  # fmt: skip
            train(small, job)
        monkeypatch.delenv("SHARPNESS_STUDY_FOLDER")
        return place

    return trained


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam", "adamw", "rmsprop"])
def test_a_run_of_ones_own_network_data_and_loss_opens_from_any_folder(
    run, own_folder, train_own, tmp_path_factory, monkeypatch, optimizer
):
    write(own_folder / "mine" / "nets.py", NETWORK)
    small = replace(
        run, **BLOBS, model="nets.py:build", loss="nets.py:focal", model_args='{"width": 5}',
        optimizer=f'{{"name": "{optimizer}"}}' if optimizer != "sgd" else "{}",
    )  # fmt: skip
    place = train_own(small)

    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(FileNotFoundError, match="is missing: give study=, the study's file, beside which its data are"):
        load_run(place)
    loaded = load_run(place, study=own_folder / "mine" / "mine.yaml")
    examples = loaded.dataset.training
    with (place / "history.csv").open() as file:
        told = [float(row["training_loss"]) for row in csv.DictReader(file)]
    for epoch, expected in enumerate(told):
        with torch.no_grad():
            logits = loaded.model(epoch=epoch)(examples.inputs)
        losses = functional.cross_entropy(logits, examples.targets, reduction="none")
        assert float(((1 - (-losses).exp()) * losses).mean()) == pytest.approx(expected, rel=1e-5)


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("name", "edited"), [("nets.py", "GELU()"), ("nets.py", "(1 - "), ("parts.py", "SIZE = 5")], ids=lambda text: text
)
def test_code_of_ones_own_that_has_changed_since_is_refused(run, own_folder, train_own, monkeypatch, name, edited):
    file, study = own_folder / "mine" / name, own_folder / "mine" / "mine.yaml"
    write(own_folder / "mine" / "parts.py", "SIZE = 5\n")
    write(own_folder / "mine" / "nets.py", "from parts import SIZE\n" + NETWORK.replace("width=4", "width=SIZE"))
    place = train_own(replace(run, **BLOBS, model="nets.py:build", loss="nets.py:focal"))
    theirs = load_checkpoints(place / "checkpoints" / "last.safetensors", device=torch.device("cpu")).environment
    loaded, was = load_run(place, study=study), file.read_text()
    weights = loaded.model().state_dict()

    file.write_text(was.replace(edited, {"GELU()": "ReLU()", "(1 - ": "(2 - ", "SIZE = 5": "SIZE = 6"}[edited]))
    with monkeypatch.context() as job:
        job.chdir(own_folder)
        job.setenv("SHARPNESS_STUDY_FOLDER", "mine")
        job.setattr("sharpness.runtime.closure._at_start", {})
        ours = own.version("nets.py:build", "nets.py:focal")
    monkeypatch.chdir(own_folder / "mine")
    says = (
        f"was trained with the version {theirs['own_code']} of nets.py and what they import, here it is {ours}: "
        "put the files of that version back, as version control has them, and restart Python"
    )
    for load in (loaded.model, lambda: load_run(place, study="mine.yaml")):
        with pytest.raises(DamagedError, match=re.escape(says)):
            load()
    file.write_text(was)
    assert all(torch.equal(value, weights[key]) for key, value in loaded.model().state_dict().items())


LOADING = """
import sys
from sharpness import load_run
load_run(sys.argv[1], study=sys.argv[2]).model("last")
"""


@pytest.mark.slow
def test_a_fresh_python_refuses_a_network_with_another_activation(run, own_folder, train_own):
    file, study = own_folder / "mine" / "nets.py", own_folder / "mine" / "mine.yaml"
    write(file, NETWORK)
    place = train_own(replace(run, **BLOBS, model="nets.py:build"))
    file.write_text(NETWORK.replace("GELU", "ReLU"))
    command = [sys.executable, "-c", LOADING, str(place), str(study)]
    environment = {**os.environ, "PYTHONPATH": str(Path(sharpness.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "DamagedError" in done.stderr
    assert "nets.py and what they import" in done.stderr


def test_code_that_this_python_has_imported_is_compared_too(run, own_folder, train_own, monkeypatch):
    """Files put back do not help where Python goes on with what it has imported."""
    file, study = own_folder / "mine" / "nets.py", own_folder / "mine" / "mine.yaml"
    write(file, NETWORK)
    place = train_own(replace(run, **BLOBS, model="nets.py:build"))
    monkeypatch.setattr("sharpness.runtime.closure._at_start", {})
    file.write_text(NETWORK.replace("GELU", "ReLU"))
    closure.remember_files([str(file)])
    file.write_text(NETWORK)
    with pytest.raises(DamagedError, match="put the files of that version back"):
        load_run(place, study=study)


def test_files_beside_and_outside_the_folder_of_the_study_are_found_unchanged_from_any_folder(
    run, own_folder, train_own, monkeypatch
):
    write(own_folder / "mine" / "losses.py", NETWORK)
    write(own_folder / "shared" / "nets.py", NETWORK + "from sharpness.training.models import ResidualBlock\n")
    place = train_own(replace(run, **BLOBS, model="../shared/nets.py:build", loss="losses.py:focal"))
    for folder in (own_folder, own_folder / "mine", own_folder / "shared", place, Path("/")):
        monkeypatch.chdir(folder)
        assert load_run(place, study=own_folder / "mine" / "mine.yaml").model().training is False


def test_a_network_with_another_number_of_weights_is_refused(run, train_own, tmp_path, monkeypatch):
    """That of an installed package, whose files have no version."""
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "site")
    write(tmp_path / "site" / "installed_nets.py", NETWORK)
    place = train_own(replace(run, **BLOBS, model="installed_nets:build"))
    loaded = load_run(place, study=tmp_path / "mine" / "mine.yaml")
    write(tmp_path / "site" / "installed_nets.py", NETWORK.replace("width=4", "width=41"))
    del sys.modules["installed_nets"]
    # 6 w + w + 3 w + 3 weights and biases
    says = r"has weights \[43\] of torch.float32, its network \[413\] of torch.float32"
    with pytest.raises(DamagedError, match=says):
        loaded.model()


def test_where_files_of_ones_own_are_not_found_the_studys_file_is_asked_for(run, own_folder, train_own, monkeypatch):
    write(own_folder / "mine" / "nets.py", NETWORK)
    place = train_own(replace(run, **BLOBS, model="nets.py:build"))
    (data,) = (own_folder / "results" / "data").rglob("*.safetensors")
    monkeypatch.chdir(own_folder)
    with pytest.raises(OwnError, match=r"nets\.py, which does not exist; .*: give study=, the study's file$"):
        load_run(place, data=data)


def test_what_is_no_run_is_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder of a run that has been trained"):
        load_run(tmp_path)
    for study in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(
            FileNotFoundError, match=f"study must be the study's file, .*, got {study}, which is no file"
        ):
            load_run(folder, study=study)
    with pytest.raises(FileNotFoundError, match=r"the prepared data of .* is missing: give data=, its path"):
        load_run(folder, data=tmp_path / "absent.safetensors")


def test_other_data_are_refused(folder, tmp_path):
    tensors = {}
    for split in ("training", "validation", "test"):
        tensors |= {f"{split}_labels": torch.arange(40) % 10, f"{split}_images": torch.rand(40, 1, 8, 8)}
    originals.save(tensors, {"num_classes": "10"}, tmp_path / "data.safetensors")
    with pytest.raises(DamagedError, match="was trained on another data set"):
        load_run(folder, data=tmp_path / "data.safetensors")


def test_kept_eigenvectors_are_those_of_the_opened_network(folder, tmp_path):
    data = folder.parents[2] / "data" / "digits.safetensors"
    output, stale = tmp_path / "spectrum" / "mine-0.csv", tmp_path / "spectrum" / "mine-0-vectors" / "9.safetensors"
    stale.parent.mkdir(parents=True)
    stale.touch()
    keep_vectors(SPECTRUM, folder, output)

    assert sorted(path.name for path in stale.parent.iterdir()) == ["0.safetensors", "2.safetensors"]
    rows = [row for row in read_rows(output, "spectrum") if row["which"] == "largest"]
    loaded = load_run(folder)
    landscape = landscape_of(loaded.run, data, torch.device("cpu"))
    for step in STEPS[:2]:
        pairs = load_pairs(stale.with_name(f"{step}.safetensors"))
        values = [float(row["eigenvalue"]) for row in rows if int(row["step"]) == step]
        assert pairs.eigenvalues.tolist() == pytest.approx(values)
        assert (pairs.provenance["run"], pairs.provenance["step"]) == (folder.name, step)
        # Products of the network as a user has it, in torch's order.
        operator = HessianOperator(loaded.model(step), *landscape.drawn_examples(16))
        for value, vector in zip(pairs.eigenvalues, pairs.eigenvectors, strict=True):
            assert float((operator @ vector - value * vector).norm()) <= 5e-3 * float(pairs.eigenvalues[0])


WITHOUT = """
import sys
sys.modules["safetensors"] = None
import sharpness
try:
    sharpness.load_run("anywhere")
except ModuleNotFoundError as error:
    said = "load_run needs safetensors: run pip install '.[workflow]' in the project's folder"
    assert str(error) == said, error
else:
    raise AssertionError
"""


@pytest.mark.slow
def test_without_the_pipelines_packages_a_sentence_says_what_to_install():
    environment = {**os.environ, "PYTHONPATH": str(Path(sharpness.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
