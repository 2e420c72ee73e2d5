"""A job measures the checkpoints of its own run, training, data and network, and refuses all others by name."""

from dataclasses import asdict, replace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from sharpness.data import originals
from sharpness.measurements.gradients import Gradients
from sharpness.measurements.measuring import Part, measure
from sharpness.measurements.spectrum import Spectrum
from sharpness.runtime.sealed import DamagedError
from sharpness.stages.train import Job, train
from sharpness.study.records import read_rows
from sharpness.training.belonging import check_data, check_network, check_steps, check_training
from sharpness.training.checkpoints import Checkpoints, Snapshot, load_checkpoints, save_checkpoints

ENVIRONMENT = {"code": "0a", "torch": "2.14.1", "device": "cpu", "threads": "1", "kernels": "", "data_digest": "1b"}


@pytest.fixture
def kept(run, tmp_path):
    """Checkpoints of a run, where they lie, and the record beside them."""
    snapshots = [Snapshot(step, torch.ones(5), torch.zeros(2), 0.1) for step in (0, 5)]
    record = tmp_path / "run.yaml"
    record.write_text(yaml.safe_dump({"run": run.name, "environment": ENVIRONMENT}))
    return Checkpoints(run, "planned", snapshots, {7: "stopped"}, ENVIRONMENT), tmp_path / "0.safetensors", record


def test_checkpoints_of_the_run_pass(kept, run):
    checkpoints, path, record = kept
    check_training(checkpoints, path, run=run.name, record=record)
    check_steps(checkpoints, path, [0, 5, 7])
    check_data(checkpoints, path, digest="1b", data=path)
    check_network(checkpoints, path, (torch.zeros(5), torch.zeros(2)))
    check_network(checkpoints, path, None)


def test_those_of_another_run_are_refused_by_both_names(kept, run):
    checkpoints, path, record = kept
    other = replace(run, seed=1)
    with pytest.raises(DamagedError, match=f"{path} is of the run {run.name}, not of {other.name}"):
        check_training(checkpoints, path, run=other.name, record=record)
    with pytest.raises(DamagedError, match=f"{record} is of the run {run.name}, not of {other.name}"):
        check_training(replace(checkpoints, run=other), path, run=other.name, record=record)


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_those_of_another_training_of_the_run_are_refused(kept, run, name):
    checkpoints, path, record = kept
    other = replace(checkpoints, environment={**ENVIRONMENT, name: "another"})
    with pytest.raises(DamagedError, match=f"of another training of .*: {name} is 'another', there"):
        check_training(other, path, run=run.name, record=record)


@pytest.mark.parametrize("text", ["", "run: [", "run: a", "a: 1", "\0", "- 1"])
def test_a_damaged_record_is_named(kept, run, text):
    checkpoints, path, record = kept
    record.write_text(text)
    with pytest.raises(DamagedError, match=rf"{record} (is damaged|does not say)") as refused:
        check_training(checkpoints, path, run=run.name, record=record)
    assert "\n" not in str(refused.value)


def test_a_file_in_the_place_of_another_of_the_run_is_refused(kept, run):
    checkpoints, path, record = kept
    with pytest.raises(DamagedError, match="holds planned checkpoints in place of best ones"):
        check_training(checkpoints, path.with_name("best.safetensors"), run=run.name, record=record)
    with pytest.raises(DamagedError, match="lacks the steps 3, 9, which are planned"):
        check_steps(checkpoints, path, [0, 9, 3])


def test_weights_of_other_data_or_another_network_are_refused(kept):
    checkpoints, path, _ = kept
    with pytest.raises(DamagedError, match=r"was trained on another data set \(1b\) than .* holds now \(2c\)"):
        check_data(checkpoints, path, digest="2c", data=path)
    for weights in (torch.zeros(6), torch.zeros(5, dtype=torch.float64)):
        with pytest.raises(DamagedError, match=r"has weights \[5\] of torch.float32, its network"):
            check_network(checkpoints, path, (weights, torch.zeros(2)))


# The stages themselves


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """A run that a job has trained on few images, and what measures it."""
    folder, generator = tmp_path_factory.mktemp("trained"), torch.Generator().manual_seed(0)
    tensors = {}
    for split, size in (("training", 40), ("validation", 10), ("test", 10)):
        tensors[f"{split}_labels"] = torch.randint(0, 10, (size,), generator=generator)
        tensors[f"{split}_images"] = torch.rand(size, 1, 8, 8, generator=generator)
    data = folder / "digits.safetensors"
    originals.save(tensors, {"num_classes": "10"}, data)
    runs = {}
    for seed in (0, 1):
        small = replace(run, model="resnet8", epochs=1, seed=seed)
        place = folder / small.name
        job = Job(
            data, [0, 2, 5], 10, [], 1, folder / f"state{seed}", 60.0, False,
            [place / "0.safetensors", place / "1.safetensors"], place / "best.safetensors",
            place / "last.safetensors", place / "history.csv", place / "run.yaml",
        )  # fmt: skip
        train(small, job)
        runs[seed] = small, place
    return data, runs


@pytest.fixture
def part(trained, tmp_path):
    """A part of the first run, in a copy of its folder."""
    data, runs = trained
    run, place = runs[0]
    for path in place.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    copied = tmp_path / "data.safetensors"
    copied.write_bytes(data.read_bytes())
    return Part(
        copied,
        [tmp_path / "0.safetensors"],
        [0, 2],
        [],
        [],
        run.name,
        tmp_path / "run.yaml",
        [],
        "leading",
        1,
        tmp_path / "out.csv",
    )


SETTINGS = Spectrum(
    num_examples=16, tolerance=0.1, max_products=20, bracket=0.2, num_eigenvalues=1, resample=False, augment=False,
    parameters="*", precision="float32", probe_products=0, frobenius_products=0,
)  # fmt: skip


def test_a_measurement_says_of_what_it_is(part):
    measure(SETTINGS, part)
    history = read_rows(part.record.parent / "history.csv", "history")
    rows = read_rows(part.output, "spectrum")
    assert {row["trained_by"] for row in rows} == {row["code"] for row in history} != {row["code"] for row in rows}
    assert {row["data_digest"] for row in rows} == {row["data_digest"] for row in history}
    assert all(row["diverged"] == row["stopped"] == "False" for row in rows)


def test_a_checkpoint_of_another_run_is_not_measured(part, trained):
    run, place = trained[1][1]
    part.checkpoints[0].write_bytes((place / "0.safetensors").read_bytes())
    with pytest.raises(DamagedError, match=f"is of the run {run.name}, not of {part.run}"):
        measure(SETTINGS, part)
    assert not part.output.exists()


def test_nor_is_one_that_a_measurement_looks_back_at(part, trained):
    run, place = trained[1][1]
    second = replace(part, checkpoints=[part.record.with_name("1.safetensors")], steps=[5])
    second = replace(second, before=part.checkpoints, steps_before=[2])
    part.checkpoints[0].write_bytes((place / "0.safetensors").read_bytes())
    with pytest.raises(DamagedError, match=f"is of the run {run.name}, not of {part.run}"):
        measure(Gradients(16, 0.1, 20, num_eigenvalues=1, loss_examples=16, num_batches=2), second)


def test_weights_of_another_type_are_not_measured(part):
    there = load_checkpoints(part.checkpoints[0], device=torch.device("cpu"))
    doubled = [replace(snapshot, weights=snapshot.weights.double()) for snapshot in there.snapshots]
    save_checkpoints(replace(there, snapshots=doubled), part.checkpoints[0])
    with pytest.raises(DamagedError, match=r"has weights \[\d+\] of torch.float64, its network"):
        measure(SETTINGS, part)


def test_a_checkpoint_is_not_measured_on_other_data(part):
    tensors = load_file(part.data)
    originals.save({**tensors, "training_labels": tensors["training_labels"].flip(0)}, {"num_classes": "10"}, part.data)
    with pytest.raises(DamagedError, match="was trained on another data set"):
        measure(SETTINGS, part)


def test_what_is_not_finite_is_a_divergence_and_what_a_run_did_not_reach_has_a_reason(part):
    there = load_checkpoints(part.checkpoints[0], device=torch.device("cpu"))
    first, second = there.snapshots
    lost = replace(second, weights=second.weights * 1e30)
    save_checkpoints(replace(there, snapshots=[first, lost], missing={3: "stopped"}), part.checkpoints[0])
    measure(SETTINGS, replace(part, steps=[0, 2, 3]))
    rows = read_rows(part.output, "spectrum")
    assert [(row["step"], row["diverged"], row["stopped"]) for row in rows if row["which"] != "smallest"] == [
        ("0", "False", "False"),
        ("2", "True", "False"),
        ("3", "False", "True"),
    ]
    assert asdict(SETTINGS)["num_eigenvalues"] == 1
