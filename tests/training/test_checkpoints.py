"""Checkpoints come back bit for bit, with the run that made them and the steps it did not reach."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from sharpness.study.schedule import chunks_of
from sharpness.training import checkpoints
from sharpness.training.checkpoints import Checkpoints, ChunkWriter, Snapshot, load_checkpoints, save_checkpoints

CPU = torch.device("cpu")
ENVIRONMENT = {"torch": torch.__version__, "device": "cpu", "threads": "1"}


def snapshot(step, *, num_buffers=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(step)
    weights, buffers = (torch.randn(size, generator=generator, dtype=dtype) for size in (5, num_buffers))
    return Snapshot(step, weights, buffers, learning_rate=0.1 / (step + 3))


def assert_same(loaded, saved):
    assert len(loaded) == len(saved)
    for one, other in zip(loaded, saved, strict=True):
        assert (one.step, one.learning_rate) == (other.step, other.learning_rate)
        assert (one.second_moment is None) == (other.second_moment is None)
        pairs = [(one.weights, other.weights), (one.buffers, other.buffers)]
        pairs += [] if one.second_moment is None else [(one.second_moment, other.second_moment)]
        for ours, theirs in pairs:
            assert torch.equal(ours, theirs)
            assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("kind", ["planned", "best", "last"])
@pytest.mark.parametrize("num_buffers", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_comes_back_as_it_was(run, tmp_path, kind, num_buffers, dtype):
    snapshots = [snapshot(step, num_buffers=num_buffers, dtype=dtype) for step in (0, 7, 1000)]
    saved = Checkpoints(run, kind, snapshots, {1001: "diverged", 2000: "stopped"}, ENVIRONMENT)
    save_checkpoints(saved, tmp_path / "run" / "chunk.safetensors")
    loaded = load_checkpoints(tmp_path / "run" / "chunk.safetensors", device=CPU)
    assert (loaded.run, loaded.kind, loaded.missing, loaded.environment) == (
        *(run, kind),
        *({1001: "diverged", 2000: "stopped"}, ENVIRONMENT),
    )
    assert_same(loaded.snapshots, snapshots)


def test_second_moments_come_back_where_there_are_and_no_file_has_them_else(run, tmp_path):
    first, later = snapshot(0), dataclasses.replace(snapshot(7), second_moment=torch.rand(5))
    save_checkpoints(Checkpoints(run, "planned", [first, later], {}, ENVIRONMENT), tmp_path / "adam.safetensors")
    save_checkpoints(Checkpoints(run, "planned", [first], {}, ENVIRONMENT), tmp_path / "sgd.safetensors")

    assert_same(load_checkpoints(tmp_path / "adam.safetensors", device=CPU).snapshots, [first, later])
    names = []
    for name in ("adam", "sgd"):
        with safe_open(tmp_path / f"{name}.safetensors", framework="pt") as file:
            names.append({key for key in file.keys() if key.startswith("second")})  # noqa: SIM118
    assert names == [{"second_moments.1"}, set()]


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": "full", "init_scale": 0.25, "plateau_patience": 5, "stop_patience": 7},
        {"learning_rate": 0.1 + 0.2, "l2": 1e-17, "seed": 2**32 - 1, "augment": True},
        {"learning_rate_epochs": (1, 2), "learning_rate_factor": 0.1, "precision": "bfloat16", "loss_bound": 1e3},
    ],
)
def test_the_header_holds_every_field_of_the_run(run, tmp_path, changes):
    run = dataclasses.replace(run, **changes)
    save_checkpoints(Checkpoints(run, "last", [snapshot(3)], {}, ENVIRONMENT), tmp_path / "last.safetensors")
    with safe_open(tmp_path / "last.safetensors", framework="np") as file:
        header = json.loads(file.metadata()["provenance"])["run"]
    assert header == run.fields() | {"learning_rate_epochs": list(run.learning_rate_epochs)}
    assert load_checkpoints(tmp_path / "last.safetensors", device=CPU).run == run


def test_a_file_without_snapshots_is_valid(run, tmp_path):
    save_checkpoints(Checkpoints(run, "planned", [], {5: "diverged"}, ENVIRONMENT), tmp_path / "chunk.safetensors")
    loaded = load_checkpoints(tmp_path / "chunk.safetensors", device=CPU)
    assert loaded.snapshots == []
    assert loaded.missing == {5: "diverged"}


@settings(max_examples=20)
@given(steps=st.sets(st.integers(0, 9)))
def test_only_the_steps_asked_for_are_read(run, tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("checkpoints") / "chunk.safetensors"
    snapshots = [snapshot(step) for step in (0, 2, 3, 8)]
    save_checkpoints(Checkpoints(run, "planned", snapshots, {}, ENVIRONMENT), path)
    loaded = load_checkpoints(path, device=CPU, steps=sorted(steps, reverse=True))
    assert_same(loaded.snapshots, [held for held in snapshots if held.step in steps])


def test_what_is_read_does_not_hang_on_the_file(run, tmp_path):
    path = tmp_path / "last.safetensors"
    save_checkpoints(Checkpoints(run, "last", [snapshot(1)], {}, ENVIRONMENT), path)
    loaded = load_checkpoints(path, device=CPU)
    save_checkpoints(Checkpoints(run, "last", [snapshot(2)], {}, ENVIRONMENT), path)
    path.unlink()
    assert_same(loaded.snapshots, [snapshot(1)])


@pytest.fixture
def writes(monkeypatch):
    """The files that are written, in order, with the steps of each."""
    done = []
    save = checkpoints.save_checkpoints

    def counted(held, path):
        done.append((path.name, [one.step for one in held.snapshots]))
        save(held, path)

    monkeypatch.setattr(checkpoints, "save_checkpoints", counted)
    return done


def nothing(_): ...


def paths_in(folder, count):
    return [folder / f"{index}.safetensors" for index in range(count)]


@pytest.mark.parametrize(
    ("steps", "num_chunks"), [([0, 1, 5, 9, 12], 2), ([0, 3, 6], 3), ([4], 3), ([], 2), ([0, 1], 1)]
)
def test_every_chunk_is_written_once_and_whole(run, tmp_path, writes, steps, num_chunks):
    chunks, paths = chunks_of(steps, num_chunks), paths_in(tmp_path, num_chunks)
    writer = ChunkWriter(run, chunks, paths, ENVIRONMENT, nothing)
    for step in steps:
        writer.keep(snapshot(step))
        whole = [chunk for chunk in chunks if chunk and chunk[-1] <= step]
        assert [held for _, held in writes if held] == whole  # as soon as it is whole
    writer.close("finished")
    assert writes == [(path.name, chunk) for path, chunk in zip(paths, chunks, strict=True)]
    for path, chunk in zip(paths, chunks, strict=True):
        loaded = load_checkpoints(path, device=CPU)
        assert (loaded.run, loaded.kind, loaded.missing, loaded.environment) == (run, "planned", {}, ENVIRONMENT)
        assert_same(loaded.snapshots, [snapshot(step) for step in chunk])


@pytest.mark.parametrize("num_reached", range(6))
def test_a_run_that_ends_early_leaves_every_file_and_the_reason(run, tmp_path, writes, num_reached):
    steps, paths = [0, 2, 4, 6, 8], paths_in(tmp_path, 3)
    chunks = [[0, 2], [4, 6], [8]]
    writer = ChunkWriter(run, chunks, paths, ENVIRONMENT, nothing)
    for step in steps[:num_reached]:
        writer.keep(snapshot(step))
    writer.close("diverged")
    assert [name for name, _ in writes] == [path.name for path in paths]
    for path, chunk in zip(paths, chunks, strict=True):
        loaded = load_checkpoints(path, device=CPU)
        assert_same(loaded.snapshots, [snapshot(step) for step in chunk if step in steps[:num_reached]])
        assert loaded.missing == {step: "diverged" for step in chunk if step in steps[num_reached:]}


def test_each_file_is_announced_once_and_when_it_is_there(run, tmp_path):
    paths, seen = paths_in(tmp_path, 3), []

    def written(path):
        seen.append((path, [one.step for one in load_checkpoints(path, device=CPU).snapshots]))

    writer = ChunkWriter(run, [[0, 2], [4, 6], [8]], paths, ENVIRONMENT, written)
    for step in (0, 2, 4):
        writer.keep(snapshot(step))
    assert seen == [(paths[0], [0, 2])]
    writer.close("stopped")
    assert seen == [(paths[0], [0, 2]), (paths[1], [4]), (paths[2], [])]


@pytest.mark.parametrize("num_again", range(1, 6))
@pytest.mark.parametrize("num_reached", range(1, 6))
def test_steps_that_are_handed_over_again_are_ignored(run, tmp_path, writes, num_reached, num_again):
    steps, chunks, paths = [0, 2, 4, 6, 8], [[0, 2], [4, 6], [8]], paths_in(tmp_path, 3)
    writer = ChunkWriter(run, chunks, paths, ENVIRONMENT, nothing)
    for step in steps[:num_reached]:
        writer.keep(snapshot(step))
    for step in steps[:num_reached][-num_again:]:
        writer.keep(dataclasses.replace(snapshot(step), weights=torch.zeros(5)))
    for step in steps[num_reached:]:
        writer.keep(snapshot(step))
    writer.close("finished")
    assert writes == [(path.name, chunk) for path, chunk in zip(paths, chunks, strict=True)]
    for path, chunk in zip(paths, chunks, strict=True):
        assert_same(load_checkpoints(path, device=CPU).snapshots, [snapshot(step) for step in chunk])


def test_chunks_without_files_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match="zip"):
        ChunkWriter(run, [[0], [1]], paths_in(tmp_path, 1), ENVIRONMENT, nothing)


def test_equal_checkpoints_are_equal_files(run, tmp_path):
    paths = [tmp_path / f"{number}.safetensors" for number in range(10)]
    for path in paths:
        save_checkpoints(Checkpoints(run, "last", [snapshot(3)], {5: "stopped"}, ENVIRONMENT), path)

    assert len({path.read_bytes() for path in paths}) == 1
