"""Training jobs killed by real signals, again and again, leave the files of one that never was, to the byte."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from sharpness.data import originals
from sharpness.runtime.words import flags
from sharpness.study.run import Run

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parents[2] / "src"
# As Snakemake starts a job.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE)}
PATIENCE = 60.0  # seconds for what takes a few
SPIED = """
import itertools, os, signal, sys, time
from sharpness.hessian.operator import HessianOperator
from sharpness.runtime.stage import run_stage
from sharpness.stages.{stage} import {stage}
from sharpness.training.descent import Descent

def spied(*arguments, **settings):
    number = next(numbers)
    {before}
    return method(*arguments, **settings)

method, numbers = {method}, itertools.count()
{method} = spied
run_stage({stage})
"""


@dataclass(frozen=True)
class Job:
    """A training job in a folder of its own."""

    folder: Path
    run: Run
    data: Path
    steps: list[int]
    state_seconds: float = 0.0
    evaluation_epochs: tuple[int, ...] = ()

    @property
    def outputs(self):
        """What Snakemake knows of, by the name of the flag."""
        place = self.folder / "runs" / self.run.name
        return {
            "chunks": [place / "checkpoints" / f"{number}.safetensors" for number in range(4)],
            "best": place / "checkpoints" / "best.safetensors",
            "last": place / "checkpoints" / "last.safetensors",
            "history": place / "history.csv",
            "record": place / "run.yaml",
        }

    @property
    def files(self):
        outputs = self.outputs
        return [*outputs.pop("chunks"), *outputs.values()]

    @property
    def state(self):
        return self.folder / "state" / replace(self.run, epochs=0).name / str(self.run.epochs)

    def start(self, log, *program):
        """The process, with its standard error in ``log``."""
        stage = "train_nudged" if self.run.is_nudged else "train"
        settings = {"data": self.data, "steps": self.steps, "num_evaluated": 50, "threads": 1, "state": self.state}
        settings |= {"evaluation_epochs": list(self.evaluation_epochs), "state_seconds": self.state_seconds}
        settings |= {"tensorboard": False, **self.outputs}
        words = [*(program or ("-m", f"sharpness.stages.{stage}")), *flags("run", asdict(self.run))]
        with log.open("w") as file:
            return subprocess.Popen([sys.executable, *words, *flags("job", settings)], stderr=file, env=ENVIRONMENT)

    def finish(self, *program):
        """Run it to its end; returns what it said."""
        log = self.folder / "last.log"
        self.folder.mkdir(parents=True, exist_ok=True)
        assert self.start(log, *program).wait() == 0, log.read_text()
        return log.read_text()

    def delete_outputs(self):
        """As Snakemake does with those of a job that failed, and before it runs one again."""
        for path in self.files:
            path.unlink(missing_ok=True)

    def contents(self):
        return {path.name: path.read_bytes() for path in self.files}

    def position(self):
        """The number of updates in the saved state; -1 without one."""
        try:
            with safe_open(self.state / "state.safetensors", framework="np") as file:
                header = json.loads(file.metadata()["state"])
        except FileNotFoundError:
            return -1
        return (header["epoch"] - 1) * self.run.steps_per_epoch + header["index"]

    def being_written(self, process, kind):
        """The files that the process has begun to write beside their places: of its state, or of its checkpoints."""
        folders = {"state": [self.state], "checkpoint": [self.state / "kept", self.files[0].parent]}[kind]
        beside = f".{process.pid}."
        found = []
        for folder in folders:
            with suppress(FileNotFoundError):
                found += [entry.path for entry in os.scandir(folder) if entry.name.startswith(beside)]
        return found


def spied(method, before, *, stage="train"):
    """The program of a stage that does something before each call, of that ``number``, of one of its methods."""
    return SPIED.format(method=method, before=before, stage=stage)


def wait_for(process, happened, *, pause=0.002):
    """Wait until something has happened, while the process is alive; false where it ended before."""
    until = time.monotonic() + PATIENCE
    while not happened():
        if process.poll() is not None:
            return False
        assert time.monotonic() < until, "nothing happens"
        if pause:
            time.sleep(pause)
    return True


def freeze_in_writing(job, process, kind):
    """Stop the process for a moment in which such a file is half there; false where it ended before."""

    def caught():
        if not job.being_written(process, kind):
            return False
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if job.being_written(process, kind):
            return True
        os.kill(process.pid, signal.SIGCONT)  # too late
        return False

    return wait_for(process, caught, pause=0)


@dataclass
class Kill:
    """What became of one attempt to kill a job."""

    signal: int
    was_alive: bool
    in_writing: str | None  # of what
    before: int  # updates in the saved state when the signal was sent
    after: int  # and when the process had died
    log: str


def kill_at(job, update, number, *, aim, delay, log):
    """Start a job, let it go on, and kill it once it has come to an update (or, being beyond, soon)."""
    earlier = job.state / "state.safetensors"
    written = earlier.stat().st_mtime_ns if earlier.exists() else 0
    process = job.start(log)

    def has_come():
        return earlier.exists() and earlier.stat().st_mtime_ns != written and job.position() >= update

    alive = wait_for(process, has_come)
    in_writing = alive and aim is not None and freeze_in_writing(job, process, aim)
    if not in_writing:
        time.sleep(delay)
    before = job.position()
    was_alive = process.poll() is None
    if was_alive:
        process.send_signal(number)
        os.kill(process.pid, signal.SIGCONT)
    status = process.wait(PATIENCE)
    # Dead of the signal: SIGTERM is obeyed with the exit status that a shell gives it.
    died = status == (128 + number if number == signal.SIGTERM else -number)
    assert died or status == 0, log.read_text()
    return Kill(
        number, was_alive and died, aim if in_writing and died else None, before, job.position(), log.read_text()
    )


def kill_again_and_again(job, num_kills, *, aims):
    """Kill a job at random moments over all of its training, by turns with either signal, and then let it finish."""
    drawn = random.Random(0)
    last = job.run.epochs * job.run.steps_per_epoch
    kills = []
    for turn, update in enumerate(sorted(drawn.sample(range(round(0.95 * last)), num_kills))):
        number = (signal.SIGTERM, signal.SIGKILL)[turn % 2]
        log = job.folder / f"{turn}.log"
        kills.append(kill_at(job, update, number, aim=aims[turn % len(aims)], delay=drawn.uniform(0, 0.05), log=log))
        if turn % 3:  # otherwise the workflow was killed too, and its files lie as they are
            job.delete_outputs()
    return kills, job.finish()


def going_on(job, log):
    """The number of updates after which a job went on, as its log tells; None where it began anew."""
    found = re.search(r"going on from .*: epoch (\d+), update (\d+)", log)
    return found and (int(found[1]) - 1) * job.run.steps_per_epoch + int(found[2])


def check(job, kills, end):
    """What holds of every kill."""
    for kill, log in zip(kills, [*(later.log for later in kills[1:]), end], strict=True):
        assert going_on(job, log) == kill.after
        assert kill.after >= kill.before
        assert "does not go on" not in log
        if kill.signal == signal.SIGTERM and kill.was_alive:
            assert "stopped by SIGTERM in epoch" in kill.log


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of 8 x 8 pixels, the brighter the higher their class."""
    path, generator = tmp_path_factory.mktemp("data") / "digits.safetensors", torch.Generator().manual_seed(0)
    tensors = {}
    for split, size in (("training", 200), ("validation", 40), ("test", 40)):
        labels = torch.randint(0, 10, (size,), generator=generator)
        tensors[f"{split}_labels"] = labels
        tensors[f"{split}_images"] = torch.rand(size, 1, 8, 8, generator=generator) + labels[:, None, None, None] / 10
    originals.save(tensors, {"num_classes": "10"}, path)
    return path


@pytest.fixture
def job_of(run, data, tmp_path):
    """Makes jobs of 50 updates an epoch; ``every``: so many updates lie between two checkpoints."""

    def make(place, *, every, epochs, state_seconds=0.0, evaluation_epochs=(), **changes):
        usual = {"num_training": 200, "model": "resnet8", "augment": True, "momentum": 0.9, "learning_rate": 0.01}
        settings = {**usual, "epochs": epochs, **changes}
        changed = replace(run, **settings)
        (tmp_path / place).mkdir()
        steps = list(range(0, changed.epochs * changed.steps_per_epoch + 1, every))
        return Job(tmp_path / place, changed, data, steps, state_seconds, evaluation_epochs)

    yield make
    shutil.rmtree(tmp_path)  # hundreds of checkpoints


def test_a_job_killed_at_twenty_random_moments_leaves_the_same_bytes(job_of):
    whole, job = job_of("whole", every=10, epochs=14), job_of("killed", every=10, epochs=14)
    whole.finish()
    # Both signals come at any moment, in the writing of a checkpoint and in that of the state.
    aims = [None, None, "checkpoint", "checkpoint", None, None, "state", "state"]

    kills, end = kill_again_and_again(job, 20, aims=aims)

    assert job.contents() == whole.contents()
    check(job, kills, end)
    live = [kill for kill in kills if kill.was_alive]
    print(f"{len(live)} live; in writing: {[(kill.signal, kill.in_writing) for kill in live if kill.in_writing]}")
    assert len(live) >= 15
    for number in (signal.SIGTERM, signal.SIGKILL):
        hit = [kill.in_writing for kill in live if kill.signal == number and kill.in_writing]
        assert {"checkpoint", "state"} <= set(hit)
    assert not list(job.state.glob("**/.*"))  # what was half written
    assert len(list((job.state / "kept").iterdir())) == 4  # the chunks, and no checkpoint besides

    # Asked again without its outputs, it writes them from its state.
    job.delete_outputs()
    assert ": epoch " not in job.finish().replace(f"{job.state}/state.safetensors: epoch", "")
    assert job.contents() == whole.contents()


def test_a_nudged_job_killed_at_random_moments_leaves_the_same_bytes(job_of):
    search = {"gamma": 0.1, "num_directions": 2, "direction_examples": 50, "direction_products": 60}
    nudged = {**search, "direction_tolerance": 1e-9, "every": 10, "epochs": 3, "evaluation_epochs": (2, 3)}
    whole, job = job_of("whole", **nudged), job_of("killed", **nudged)
    whole.finish()

    # Told to stop in the second search for directions, which takes long, it does so at once.
    log = job.folder / "searching.log"
    told = "number == 70 and os.kill(os.getpid(), signal.SIGTERM); number > 70 and print('one more', file=sys.stderr)"
    process = job.start(log, "-c", spied("HessianOperator.__matmul__", told, stage="train_nudged"))
    assert process.wait() == 128 + signal.SIGTERM
    assert job.position() == 50
    assert "one more" not in log.read_text()

    kills, end = kill_again_and_again(job, 8, aims=[None, "checkpoint", "state", None, None])

    assert job.contents() == whole.contents()
    check(job, kills, end)
    print(f"{sum(kill.was_alive for kill in kills)} live")
    assert sum(kill.was_alive for kill in kills) >= 3


def test_a_job_that_is_told_to_stop_loses_no_update(job_of):
    # Its state is not saved on the way.
    whole, job = (job_of(place, every=100, epochs=2, state_seconds=3600) for place in ("whole", "stopped"))
    whole.finish()
    log = job.folder / "stopped.log"
    process = job.start(log, "-c", spied("Descent.step", "number == 70 and os.kill(os.getpid(), signal.SIGTERM)"))
    assert process.wait() == 128 + signal.SIGTERM
    assert "stopped by SIGTERM in epoch 2" in log.read_text()
    assert not any(path.exists() for path in job.files[1:])
    assert going_on(job, job.finish()) == 71  # the one in which it was told, too, is done
    assert job.contents() == whole.contents()


def test_a_job_that_is_killed_loses_no_more_than_the_time_between_two_states(job_of):
    whole, job = (job_of(place, every=100, epochs=2, state_seconds=0.5) for place in ("whole", "killed"))
    whole.finish()
    # An update takes a twentieth of a second at least: no more than eleven begin between two states.
    before = "time.sleep(0.05); number == 70 and os.kill(os.getpid(), signal.SIGKILL)"
    assert job.start(job.folder / "killed.log", "-c", spied("Descent.step", before)).wait() == -signal.SIGKILL
    assert 70 - 11 <= going_on(job, job.finish()) <= 70
    assert job.contents() == whole.contents()
