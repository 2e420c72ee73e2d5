"""Saved states: a run that was stopped goes on to the bits of one that never was, and no state is taken for another."""

import json
import logging
import math
import os
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from training_cases import KINDS, NUDGED

from sharpness.data.datasets import Dataset, Split
from sharpness.hessian.loss import Loss, flatten
from sharpness.runtime import closure
from sharpness.runtime.interruption import Interrupted
from sharpness.runtime.sealed import open_sealed, save_sealed
from sharpness.stages import train as stage
from sharpness.study.schedule import chunks_of
from sharpness.training import state
from sharpness.training.checkpoints import ChunkWriter, load_checkpoints, save_checkpoints
from sharpness.training.loop import Trainer
from sharpness.training.progress import Directions
from sharpness.training.state import StateFolder, identity

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")

STEPS_PER_EPOCH = 5
CPU = torch.device("cpu")
ENVIRONMENT = {"code": "0a", "torch": torch.__version__, "device": "cpu", "threads": "1", "data_digest": "1b"}


class Signals:
    """In place of real ones: says at one good moment that one came, and counts the moments."""

    def __init__(self, at):
        self.at, self.num_moments = at, 0

    def check(self):
        self.num_moments += 1
        if self.num_moments == self.at:
            raise Interrupted(signal.SIGTERM)


def dataset_of(problem):
    """22 training examples, 9 to validate and 8 to test, with classes that can be learnt."""
    splits = []
    for seed, size in ((1, 22), (2, 9), (3, 8)):
        inputs = problem("conv", num_examples=size, seed=seed, dtype=torch.float32).inputs
        splits.append(Split(inputs, torch.bucketize(inputs.mean(dim=(1, 2, 3)), torch.tensor([-0.05, 0.05]))))
    return Dataset(*splits, num_classes=3)


def directions_at(weights, buffers):
    """Directions that follow from the weights: found at other weights, they are others."""
    drawn = torch.randn(2, len(weights), generator=torch.Generator().manual_seed(0))
    rows = torch.linalg.qr((drawn + torch.stack([weights, weights.roll(1)])).T).Q.T.contiguous()
    size = float(weights.abs().max())
    return Directions(
        rows, num_products=17, residual=size, trace=3 * size, trace_elsewhere=2 * size, trace_error=size / 9
    )


@dataclass
class Job:
    """A run with its files, put together as a training job does; ``done`` tells of the latest call."""

    run: object
    place: Path
    plain: object
    dataset: Dataset
    planned: list[int]
    data: Path
    num_evaluated: int = 10
    evaluation_epochs: frozenset[int] = frozenset()
    num_pauses: int = 0
    num_searches: int = 0

    @property
    def chunks(self):
        return [self.place / "outputs" / str(self.run.epochs) / f"{number}.safetensors" for number in range(3)]

    @property
    def folder(self):
        """Of its state."""
        return self.place / "state" / str(self.run.epochs)

    @property
    def state(self):
        return self.folder / "state.safetensors"

    def train(self, *, stop_at=None, save_always=False):
        """To the end; or to the pause of that number, where the state is saved."""
        run, self.num_searches = self.run, 0
        same = identity(
            run,
            num_evaluated=self.num_evaluated,
            evaluation_epochs=self.evaluation_epochs,
            data=self.data,
            stage="sharpness.stages.train",
        )
        folder = StateFolder(self.folder, same, ENVIRONMENT)
        writer = ChunkWriter(run, chunks_of(self.planned, 3), self.chunks, ENVIRONMENT, folder.link)

        signals = Signals(stop_at)
        keeper = stage._Keeper(run, folder, writer, signals, seconds=0 if save_always else math.inf)

        def find(weights, buffers):
            self.num_searches += 1
            return directions_at(weights, buffers)

        training = Trainer(
            run=run,
            loss=Loss(self.plain.model, l2=run.l2),
            dataset=self.dataset,
            weights=flatten(self.plain.model)[0],
            buffers=flatten(self.plain.model)[1],
            planned_steps=frozenset(self.planned),
            keep=keeper.keep,
            find_directions=find,
            num_evaluated=self.num_evaluated,
            evaluation_epochs=self.evaluation_epochs,
            pause=keeper.pause,
        )
        progress = keeper.begin(training)
        try:
            training.resume(progress)
        finally:
            folder.save(progress)
            self.num_pauses = signals.num_moments
        writer.close(progress.ended)
        return self.outcome(progress)

    def stop(self, number):
        with pytest.raises(Interrupted):
            self.train(stop_at=number)

    def outcome(self, progress):
        """All that comes out, as values that can be compared to the bit; not-a-numbers are equal as words."""
        descent = progress.descent
        return {
            "weights": bits(descent.weights),
            "buffers": bits(descent.buffers),
            "velocity": None if descent.velocity is None else bits(descent.velocity),
            "learning rate": descent.learning_rate,
            "history": repr(progress.history),
            "ended": progress.ended,
            "best": whole(progress.best),
            "last": whole(progress.last),
            "plateau": progress.plateau,
            "stop": progress.stop,
            "chunks": [chunk.read_bytes() for chunk in self.chunks],
        }


def bits(tensor):
    return tensor.numpy().tobytes()


def whole(snapshot):
    moment = None if snapshot.second_moment is None else bits(snapshot.second_moment)
    return snapshot.step, bits(snapshot.weights), bits(snapshot.buffers), snapshot.learning_rate, moment


@pytest.fixture
def job_of(run, problem, tmp_path):
    """Makes jobs; those of one ``place`` share their saved states, as the lengths of one run do."""

    def make(changes=(), *, place="here", network="batch_norm", planned=None, **settings):
        changed = replace(run, **dict(changes))
        data = tmp_path / "data.safetensors"
        if not data.exists():
            save_file({"images": torch.zeros(1)}, data)
        if planned is None:
            planned = [0, 1, 2, 3, 5, 7, 10, 13, 14, 15, 18, 20]
        planned = [step for step in planned if step <= changed.epochs * changed.steps_per_epoch]
        plain = problem(network, dtype=torch.float32)
        return Job(changed, tmp_path / place, plain, dataset_of(problem), planned, data, **settings)

    return make


@pytest.fixture
def said(caplog):
    """What is logged."""
    caplog.set_level(logging.INFO, logger="sharpness")
    return lambda: [record.getMessage() for record in caplog.records]


# Going on


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stopped_at_any_update_goes_on_to_the_same_bits(job_of, kind):
    whole_run = job_of(KINDS[kind], network="batch_norm", place="whole")  # which has a convolution, too
    expected = whole_run.train()
    for moment in range(1, whole_run.num_pauses + 1):
        job = job_of(KINDS[kind], network="batch_norm", place=str(moment))
        job.stop(moment)
        assert job.train() == expected
        # Nothing was done twice: the first pause is where the run was stopped, and again before that update.
        assert job.num_pauses <= whole_run.num_pauses - moment + 2


@pytest.mark.slow
def test_a_run_that_is_evaluated_now_and_then_goes_on_to_the_same_bits(job_of):
    settings = {"changes": NUDGED | {"epochs": 4}, "evaluation_epochs": frozenset({2, 4})}
    whole_run = job_of(place="whole", **settings)
    expected = whole_run.train()
    for moment in range(1, whole_run.num_pauses + 1):
        job = job_of(place=str(moment), **settings)
        job.stop(moment)
        assert job.train() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stopped_at_every_update_comes_to_the_same_bits(job_of, kind):
    expected = job_of(KINDS[kind], place="whole").train()
    job = job_of(KINDS[kind])
    outcome = None
    for _ in range(100):
        try:
            outcome = job.train(stop_at=3)  # the first two may be before one and the same update
            break
        except Interrupted:
            pass
    assert outcome == expected


def test_a_run_that_was_killed_goes_on_from_the_latest_time_that_it_was_saved(job_of, said):
    expected = job_of(KINDS["augmented"], place="whole").train()
    job = job_of(KINDS["augmented"])
    job.stop(5)
    earlier = job.state.read_bytes()
    job.stop(9)  # and its checkpoints are there, but not its state
    job.state.write_bytes(earlier)
    assert job.train() == expected
    assert f"going on from {job.state}: epoch 1, update 3" in said()


def test_directions_are_not_searched_again_in_the_epoch_for_which_they_were_found(job_of):
    job = job_of(NUDGED)
    job.stop(4)
    assert job.num_searches == 1
    job.train()
    assert job.num_searches == 2  # of the second and of the third epoch


@pytest.mark.slow
def test_the_epochs_waited_for_something_better_are_remembered(job_of):
    changes = {"learning_rate": 0.4, "momentum": 0.9, "epochs": 20, "plateau_patience": 2, "stop_patience": 6}
    whole_run = job_of(changes, place="whole", planned=range(0, 101, 4))
    expected = whole_run.train()
    assert expected["ended"] == "stopped"
    assert expected["learning rate"] < 0.4 / 50  # cut twice, at least
    for moment in range(1, whole_run.num_pauses + 1, 5):
        job = job_of(changes, place=str(moment), planned=range(0, 101, 4))
        job.stop(moment)
        assert job.train() == expected


# Runs that ended


ENDS = {
    "finished": {},
    "stopped": {"epochs": 20, "stop_patience": 1},
    "diverged": {"learning_rate": 1e6, "momentum": 0.9, "epochs": 10},
}


@pytest.mark.parametrize("ended", ENDS)
def test_a_run_that_ended_is_not_trained_again(job_of, ended):
    planned = range(101)
    job = job_of(ENDS[ended], planned=planned, network="residual")
    expected = job.train()
    assert expected["ended"] == ended
    shutil.rmtree(job.place / "outputs")
    assert job.train() == expected
    assert job.num_pauses == 0


@pytest.mark.parametrize("planned", [range(51), [0, 5, 10], [], [3]])
def test_a_run_that_diverges_after_it_went_on_comes_to_the_same_bits(job_of, planned):
    whole_run = job_of(ENDS["diverged"], place="whole", planned=planned, network="residual")
    expected = whole_run.train()
    for moment in range(1, whole_run.num_pauses + 1):
        job = job_of(ENDS["diverged"], place=str(moment), planned=planned, network="residual")
        job.stop(moment)
        assert job.train() == expected


def test_a_search_that_is_lost_after_the_run_went_on_ends_it_in_the_same_way(job_of, monkeypatch):
    def lost(weights, _):
        raise FloatingPointError

    def train_with(job):
        job.stop(9)  # in the second epoch
        with monkeypatch.context() as patch:
            patch.setitem(globals(), "directions_at", lost)
            return job.train()

    job = job_of(NUDGED)
    expected = train_with(job)
    assert expected["ended"] == "diverged"
    shutil.rmtree(job.place / "outputs")
    assert job.train() == expected


def test_a_loss_beyond_the_bound_is_not_forgotten_with_the_update_in_which_it_was_seen(job_of):
    free = job_of(place="free", network="conv")
    free.stop(5)  # after three updates
    seen = opened(free.state)[1]["largest_loss"]
    free.train()
    assert opened(free.state)[1]["largest_loss"] == seen  # later losses are smaller
    bound = {"loss_bound": 0.99 * float(seen)}

    expected = job_of(bound, place="whole", network="conv").train()
    job = job_of(bound, network="conv")
    job.stop(5)
    assert job.train() == expected
    assert expected["ended"] == "diverged"


# Other lengths of the run


def test_a_longer_run_goes_on_from_the_end_of_a_shorter_one(job_of, said):
    expected = job_of({"epochs": 4}, place="whole").train()
    short, long = job_of({"epochs": 2}), job_of({"epochs": 4})
    assert short.train()["ended"] == "finished"
    shutil.rmtree(short.place / "outputs")  # the saved state has what it needs

    assert long.train() == expected

    assert f"going on from {short.state}: epoch 3, update 0" in said()
    assert long.num_pauses == 2 * (STEPS_PER_EPOCH + 1)
    # And it needs the shorter one no more.
    shutil.rmtree(short.folder)
    shutil.rmtree(long.place / "outputs")
    assert long.train() == expected
    assert long.num_pauses == 0


def test_a_longer_run_goes_on_from_the_middle_of_a_shorter_one(job_of, said):
    expected = job_of({"epochs": 4}, place="whole").train()
    short, long = job_of({"epochs": 2}), job_of({"epochs": 4})
    long.stop(4)
    short.stop(10)  # on from there, and so the one that is further
    assert long.train() == expected
    assert f"going on from {short.state}: epoch 2, update 4" in said()


def test_a_longer_run_goes_on_from_its_own_state_where_that_is_as_far(job_of, said):
    short, long = job_of({"epochs": 2}), job_of({"epochs": 4})
    long.stop(4)
    short.stop(4)
    long.train()
    assert f"going on from {long.state}: epoch 1, update 2" in said()


@pytest.mark.parametrize("moment", [4, 10, 13])
def test_a_shorter_run_goes_on_from_a_state_within_it(job_of, said, moment):
    whole_run = job_of({"epochs": 2}, place="whole")
    expected = whole_run.train()
    short, long = job_of({"epochs": 2}), job_of({"epochs": 4})
    long.stop(moment)  # the last of them at the end of the second epoch: there is nothing left to do
    assert short.train() == expected
    assert any(line.startswith(f"going on from {long.state}") for line in said())
    assert short.num_pauses <= whole_run.num_pauses - moment + 2


@pytest.mark.parametrize("moment", [15, None])
def test_a_state_beyond_the_end_of_a_shorter_run_is_of_no_use_to_it(job_of, moment):
    whole_run = job_of({"epochs": 2}, place="whole")
    expected = whole_run.train()
    short, long = job_of({"epochs": 2}), job_of({"epochs": 4})
    if moment is None:
        long.train()
    else:
        long.stop(moment)
    assert short.train() == expected
    assert short.num_pauses == whole_run.num_pauses
    assert long.state.exists()


@pytest.mark.parametrize("epochs", [4, 6, 7, 12])
def test_a_run_that_stopped_early_is_the_same_for_every_length(job_of, epochs):
    changes = {"learning_rate": 0.4, "momentum": 0.9, "stop_patience": 4}
    early = job_of({**changes, "epochs": 20})
    assert early.train()["ended"] == "stopped"
    expected = job_of({**changes, "epochs": epochs}, place="whole").train()
    assert job_of({**changes, "epochs": epochs}).train() == expected


@pytest.mark.parametrize("epochs", [1, 2, 3, 12])
def test_a_run_that_diverged_is_the_same_for_every_length_that_gets_there(job_of, epochs):
    def job(epochs, **where):
        return job_of({**ENDS["diverged"], "epochs": epochs}, planned=range(61), network="residual", **where)

    assert job(10).train()["ended"] == "diverged"
    assert job(epochs).train() == job(epochs, place="whole").train()


def test_a_run_that_was_lost_at_the_start_of_an_epoch_is_of_no_use_to_one_that_ends_there(job_of, monkeypatch):
    def lost(weights, _):
        raise FloatingPointError

    expected = job_of({**NUDGED, "epochs": 2}, place="whole").train()
    long = job_of({**NUDGED, "epochs": 4})
    long.stop(13)  # at the start of the third epoch
    with monkeypatch.context() as patch:
        patch.setitem(globals(), "directions_at", lost)
        assert long.train()["ended"] == "diverged"
    assert job_of({**NUDGED, "epochs": 2}).train() == expected


def test_a_longer_run_with_a_checkpoint_that_the_shorter_one_did_not_keep_starts_over(job_of, said):
    expected = job_of({"epochs": 4}, place="whole", planned=[0, 3, 4, 20]).train()
    short, long = job_of({"epochs": 2}, planned=[0, 3]), job_of({"epochs": 4}, planned=[0, 3, 4, 20])
    short.train()
    assert long.train() == expected
    assert f"{short.state} lacks the checkpoint of step 4: training does not go on from it" in said()


def test_a_state_that_is_replaced_while_it_is_read_is_not_mixed_with_the_other(job_of, said, monkeypatch):
    # Two lengths of a run may train at the same time.
    expected = job_of({"epochs": 4}, place="whole").train()
    short, long = job_of({"epochs": 2}), job_of({"epochs": 4})
    short.stop(6)
    later = short.state.read_bytes()
    shutil.rmtree(short.folder)
    short.stop(4)

    def slow(*arguments, **settings):
        short.state.write_bytes(later)
        return load_checkpoints(*arguments, **settings)

    monkeypatch.setattr(state, "load_checkpoints", slow)
    assert long.train() == expected
    assert f"{short.state} was replaced while it was read: training does not go on from it" in said()


def test_a_checkpoint_that_is_moved_into_its_chunk_while_it_is_read_does_no_harm(job_of, monkeypatch):
    expected = job_of({"epochs": 4}, place="whole").train()
    short, long = job_of({"epochs": 2}), job_of({"epochs": 4})
    short.stop(5)
    link = state._link

    def gone(source, place):
        source.unlink()
        monkeypatch.setattr(state, "_link", link)
        link(source, place)

    monkeypatch.setattr(state, "_link", gone)
    assert long.train() == expected


# States that are refused


def truncated(length):
    def spoil(job, _):
        contents = job.state.read_bytes()
        job.state.write_bytes(contents[: length if isinstance(length, int) else int(length * len(contents))])
        return job

    return spoil


def of_other(**changes):
    return lambda job, _: replace(job, run=replace(job.run, **changes))


def of_other_code(job, monkeypatch):
    monkeypatch.setattr(closure, "sources", lambda _: [closure.__file__])
    return job


def of_other_torch(job, monkeypatch):
    monkeypatch.setattr(state.torch, "__version__", "9.9.9")
    return job


def of_other_data(job, _):
    save_file({"images": torch.ones(1)}, job.data)
    return job


def without_a_checkpoint(job, _):
    (job.folder / "kept" / "5.safetensors").unlink()
    return job


def without_a_chunk(job, _):
    (job.folder / "kept" / "0-3-4.safetensors").unlink()
    return job


def with_half_a_checkpoint(job, _):
    os.truncate(job.folder / "kept" / "5.safetensors", 300)
    return job


def of_no_state(job, _):
    save_file({"weights": torch.ones(3)}, job.state)
    return job


def of_words(job, _):
    save_file({"weights": torch.ones(3)}, job.state, metadata={"state": "no JSON"})
    return job


def of_an_earlier_layout(job, _):
    save_file({"weights": torch.ones(3)}, job.state, metadata={"state": json.dumps({"epoch": 3})})
    return job


def flipped(path_of, *, bit=0):
    """One bit of a file of the job's other than it was written, in its last tensor."""

    def spoil(job, _):
        path = path_of(job)
        contents = bytearray(path.read_bytes())
        contents[-1] ^= 1 << bit
        path.write_bytes(contents)
        return job

    return spoil


def with_kept(**changes):
    """A kept checkpoint in whose place lies another, of the same step."""

    def spoil(job, _):
        path = job.folder / "kept" / "5.safetensors"
        there = load_checkpoints(path, device=CPU)
        save_checkpoints(replace(there, **{name: change(there) for name, change in changes.items()}), path)
        return job

    return spoil


def halved(there):
    (one,) = there.snapshots
    return [replace(one, weights=one.weights[:-1].clone())]


def doubled(there):
    (one,) = there.snapshots
    return [replace(one, weights=one.weights.double())]


SPOILT = {
    "a flipped bit": (flipped(lambda job: job.state), "cannot be read (is damaged: its tensor"),
    "a flipped bit of a kept checkpoint": (
        flipped(lambda job: job.folder / "kept" / "5.safetensors"),
        "cannot be read",
    ),
    # A hard link of its chunk: damage to one is damage to both.
    "a flipped bit of a chunk": (flipped(lambda job: job.chunks[0], bit=7), "cannot be read"),
    "a kept checkpoint of another run": (with_kept(run=lambda there: replace(there.run, seed=1)), "is of digits-22-"),
    "a kept checkpoint of other code": (
        with_kept(environment=lambda there: {**there.environment, "code": "0b"}),
        "has beside it",
    ),
    "a kept checkpoint of other data": (
        with_kept(environment=lambda there: {**there.environment, "data_digest": "1c"}),
        "has beside it",
    ),
    "a kept checkpoint of another shape": (with_kept(snapshots=halved), "has weights of"),
    "a kept checkpoint of another type": (with_kept(snapshots=doubled), "has weights of"),
    **{f"cut at {length}": (truncated(length), "cannot be read") for length in (0, 1, 7, 8, 100, 0.3, 0.5, 0.99)},
    "another seed": (of_other(seed=1), "is the state of another run"),
    "another learning rate": (of_other(learning_rate=0.06), "is the state of another run"),
    "another code": (of_other_code, "is the state of another version of the code"),
    "another torch": (of_other_torch, "is the state of another version of torch"),
    "other data": (of_other_data, "is the state of another data set"),
    "other evaluation": (lambda job, _: replace(job, num_evaluated=11), "is the state of another evaluation_examples"),
    "other epochs": (
        lambda job, _: replace(job, evaluation_epochs=frozenset({3})),
        "is the state of another evaluation_epochs",
    ),
    "no checkpoint": (without_a_checkpoint, "lacks the checkpoint of step 5"),
    "no chunk": (without_a_chunk, "lacks the checkpoint of step 0"),
    "half a checkpoint": (with_half_a_checkpoint, "cannot be read"),
    "no state": (of_no_state, "cannot be read"),
    "words": (of_words, "cannot be read"),
    "an earlier layout": (of_an_earlier_layout, "cannot be read"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_state_that_is_of_no_use_is_refused_with_the_reason_and_training_starts_over(job_of, said, monkeypatch, name):
    spoil, reason = SPOILT[name]
    job = job_of(KINDS["momentum"])
    job.stop(12)
    job = spoil(job, monkeypatch)
    expected = replace(job, place=job.place / "whole").train()

    job.stop(10)  # and what the other one kept is not taken for this one's, when this one goes on in turn
    lines = said()
    assert job.train() == expected

    (refusal,) = [line for line in lines if "does not go on" in line]
    assert refusal.startswith(f"{job.state} {reason}")
    assert refusal.endswith(": training does not go on from it")
    assert not any(line.startswith("going on") for line in lines)
    assert f"going on from {job.state}: epoch 2, update 2" in said()


def test_a_state_of_no_use_does_not_hide_one_of_another_length(job_of, said):
    expected = job_of({"epochs": 4}, place="whole").train()
    short, long = job_of({"epochs": 2}), job_of({"epochs": 4})
    short.stop(5)
    long.stop(9)
    truncated(0.5)(long, None)
    assert long.train() == expected
    assert any(line.startswith(f"{long.state} cannot be read") for line in said())
    assert f"going on from {short.state}: epoch 1, update 3" in said()


def test_what_a_longer_run_takes_over_is_not_mixed_with_what_was_kept_in_its_folder(job_of, said):
    expected = job_of({"epochs": 4}, place="whole").train()
    job_of({"epochs": 4, "seed": 1}).stop(22)
    short, long = job_of({"epochs": 2}), job_of({"epochs": 4})
    short.stop(10)
    long.stop(3)
    assert f"going on from {short.state}: epoch 2, update 2" in said()
    assert long.train() == expected
    assert f"going on from {long.state}: epoch 2, update 3" in said()


def test_a_lost_checkpoint_of_a_run_that_diverged_is_not_taken_for_one_that_it_did_not_reach(job_of, said):
    job = job_of(ENDS["diverged"], planned=range(51), network="residual")
    expected = job.train()
    steps = [path for path in (job.folder / "kept").iterdir() if path.stem.isdigit()]
    chunks = [path for path in (job.folder / "kept").iterdir() if not path.stem.isdigit()]
    for path in [*steps, *chunks][:1]:
        path.unlink()
    assert job.train() == expected
    assert any("lacks the checkpoint of step" in line for line in said())


def test_a_state_from_another_machine_is_taken_with_a_warning(job_of, said):
    expected = job_of(place="whole").train()
    job = job_of()
    job.stop(9)
    header, tensors = opened(job.state)
    header["environment"]["device"] = "cuda H100"
    save_sealed(tensors, header, job.state, entry="state")
    assert job.train() == expected
    (line,) = [line for line in said() if "made elsewhere" in line]
    assert line.startswith(str(job.state))
    assert "cuda H100" in line


def opened(path):
    with open_sealed(path, entry="state") as file:
        return file.header, {name: file.tensor(name) for name in file.digests}


def test_kept_checkpoints_of_another_run_are_refused_by_both_names_when_a_run_is_made_longer(job_of, said):
    expected = job_of({"epochs": 4}, place="whole").train()
    other = job_of({"epochs": 2, "learning_rate": 0.01}, place="other")
    other.train()
    short, long = job_of({"epochs": 2}), job_of({"epochs": 4})
    short.train()
    for path in (other.folder / "kept").iterdir():
        shutil.copy(path, short.folder / "kept" / path.name)

    assert long.train() == expected

    (line,) = [line for line in said() if "does not go on" in line]
    assert long.run.name in line
    assert other.run.name in line


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_any_flipped_bit_of_a_state_is_found(job_of, said, where):
    expected = job_of(place="whole").train()
    job = job_of()
    job.stop(9)
    contents = bytearray(job.state.read_bytes())
    contents[int(where * len(contents))] ^= 4
    job.state.write_bytes(contents)
    assert job.train() == expected
    assert any("does not go on" in line for line in said())


# What must be the same


def test_the_length_of_a_run_is_no_part_of_its_identity_and_everything_else_is(run, tmp_path):
    data = tmp_path / "data.safetensors"
    save_file({"images": torch.zeros(1)}, data)

    def of(run=run, **changes):
        same = {"num_evaluated": 10, "evaluation_epochs": [2, 1], "data": data, "stage": "sharpness.stages.train"}
        return identity(run, **(same | changes))

    assert of() == of(replace(run, epochs=9)) == of(evaluation_epochs=[1, 2])
    assert json.loads(json.dumps(of())) == of()  # it comes back from a file as it was
    other = tmp_path / "other.safetensors"
    save_file({"images": torch.ones(1)}, other)
    others = [of(replace(run, seed=1)), of(replace(run, learning_rate_epochs=(2,), learning_rate_factor=0.5))]
    others += [
        of(num_evaluated=11),
        of(evaluation_epochs=[2]),
        of(data=other),
        of(stage="sharpness.stages.train_nudged"),
    ]
    assert all(one != of() for one in others)


def test_a_file_of_data_is_known_by_its_contents_not_by_its_name(run, tmp_path):
    paths = [tmp_path / name for name in ("one.safetensors", "other.safetensors")]
    for path in paths:
        save_file({"images": torch.zeros(1)}, path)
    same = {"num_evaluated": 1, "evaluation_epochs": [], "stage": "sharpness.stages.train"}
    one, other = (identity(run, data=path, **same) for path in paths)
    assert one == other


# Files


# By the first step, the last and how many: 0 to 3; 5, 7 and 10; 13 to 15.
KEPT = ["0-3-4.safetensors", "5-10-3.safetensors", "13-15-3.safetensors"]


def kept_in(job):
    return sorted(path.name for path in (job.folder / "kept").iterdir())


def test_every_chunk_takes_the_place_of_its_checkpoints_without_a_copy(job_of):
    job = job_of()
    job.train()
    assert kept_in(job) == sorted(KEPT)
    for chunk, name in zip(job.chunks, KEPT, strict=True):
        assert chunk.samefile(job.folder / "kept" / name)


@pytest.mark.parametrize("moment", range(1, 19))
def test_a_run_that_went_on_keeps_each_checkpoint_once(job_of, moment):
    job = job_of()
    job.stop(moment)
    job.train()
    assert kept_in(job) == sorted(KEPT)


def test_a_file_system_without_links_gets_copies(job_of, monkeypatch):
    def refused(*_):
        raise PermissionError

    expected = job_of(place="whole").train()
    monkeypatch.setattr(os, "link", refused)
    job = job_of()
    job.stop(9)
    assert job.train() == expected
    for chunk, name in zip(job.chunks, KEPT, strict=True):
        copy = job.folder / "kept" / name
        assert chunk.read_bytes() == copy.read_bytes()
        assert not chunk.samefile(copy)
    shutil.rmtree(job.place / "outputs")
    assert job.train() == expected


def test_what_was_being_written_when_the_job_was_killed_is_swept_away(job_of):
    expected = job_of(place="whole").train()
    job = job_of()
    job.stop(9)
    left = [job.folder / ".4242.state.safetensors", job.folder / "kept" / ".4242.7.safetensors"]
    for path in left:
        path.write_bytes(b"half of it")
    assert job.train() == expected
    assert not any(path.exists() for path in left)
    assert sorted(path.name for path in job.folder.iterdir()) == ["kept", "state.safetensors"]


def test_saving_changes_nothing(job_of):
    job = job_of(KINDS["nudged and augmented, with momentum"])
    assert job.train(save_always=True) == job_of(KINDS["nudged and augmented, with momentum"], place="whole").train()
