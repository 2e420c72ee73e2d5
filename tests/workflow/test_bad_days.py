"""What a study meets on a bad day: others at work in its folder, locks left behind, kills, a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import SMALL, environment, snakemake

from benchmarks.project import copy_project

DATA = "results/data/digits.safetensors"


def tiny(name: str) -> dict[str, Any]:
    """The least of a study: one short run, and its largest eigenvalues."""
    study: dict[str, Any] = yaml.safe_load(SMALL.read_text(encoding="utf-8"))
    study |= {"study": name, "chunks_per_run": 1, "checkpoints": {"all": {"at_epochs": [0, 1]}}}
    study["defaults"]["epochs"] = 1
    study["spectrum"] = {"leading": study["spectrum"]["leading"] | {"checkpoints": "all"}}
    study |= {kind: {} for kind in ("density", "slices", "steps", "variants", "gradients")}
    grids = {"learning_rate": [{"learning_rate": [0.1]}]}
    study["experiments"] = {
        "eigenvalues": {"kind": "eigenvalues", "measure": {"spectrum": ["leading"]}, "grids": grids}
    }
    return study


@pytest.fixture
def folder(tmp_path):
    """A copy of the project with the studies one and two."""
    folder = copy_project(tmp_path / "project")
    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(tiny(name)), encoding="utf-8")
    return folder


@pytest.fixture
def start(folder):
    """Start Snakemake on a study for one target."""
    started = []

    def start(study: str, target: str = DATA) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "snakemake", "-c", "1", target, "--configfile", f"{study}.yaml"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started.append(
            subprocess.Popen(command, cwd=folder, env=environment(), text=True, start_new_session=True, **pipes)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(path: Path, *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.05)


def test_a_second_study_waits_for_the_data_set_that_the_first_makes(folder, start):
    first = start("one")
    wait_for(folder / "results" / "data" / "digits.at_work")
    second = start("two")
    (said, _), (said_second, _) = first.communicate(timeout=120), second.communicate(timeout=120)

    assert (first.returncode, second.returncode) == (0, 0), said + said_second
    assert "Waiting for another run, which makes results/data/digits.safetensors, to end: process" in said_second
    assert str(first.pid) in said_second
    assert "Nothing to be done" in said_second
    assert "unlock" not in said_second


def test_a_second_run_of_a_study_waits_and_no_living_run_is_unlocked(folder, start):
    first = start("one")
    wait_for(folder / ".snakemake" / "locks")
    second = start("one")
    wait_for(folder / "results" / "one" / ".at_work")
    refused = snakemake(folder, "--unlock", "--configfile", "two.yaml")
    is_alive = first.poll() is None
    (said, _), (said_second, _) = first.communicate(timeout=120), second.communicate(timeout=120)

    assert is_alive
    assert refused.returncode == 1
    assert f"A run is at work in this folder: process {first.pid} on" in refused.stdout + refused.stderr
    assert (first.returncode, second.returncode) == (0, 0), said + said_second
    assert f"Waiting for another run of this study to end: process {first.pid} on" in said_second
    assert "Nothing to be done" in said_second


def test_of_a_run_that_was_killed_the_lock_may_be_removed(folder, start):
    first = start("one")
    wait_for(folder / DATA.replace("digits.safetensors", "logs"))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    words = ("-c", "1", DATA, "--configfile", "one.yaml")

    locked = snakemake(folder, *words)
    unlocked = snakemake(folder, "--unlock", "--configfile", "one.yaml")
    done = snakemake(folder, *words)

    assert locked.returncode == 1
    assert "A run in this folder was killed and has left its lock." in locked.stdout + locked.stderr
    assert unlocked.returncode == 0, unlocked.stderr
    assert done.returncode == 0, done.stderr
