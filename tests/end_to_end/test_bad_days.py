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

from benchmarks.project import ROOT, copy_project
from sharpness.study.registry import MEASUREMENTS

pytestmark = pytest.mark.slow

DATA = "results/data/digits.safetensors"


def tiny(name: str) -> dict[str, Any]:
    """The least of a study: one short run, and its largest eigenvalues."""
    study: dict[str, Any] = yaml.safe_load(SMALL.read_text(encoding="utf-8"))
    study |= {"study": name, "chunks_per_run": 1, "checkpoints": {"all": {"at_epochs": [0, 1]}}}
    study["defaults"]["epochs"] = 1
    study["spectrum"] = {"leading": study["spectrum"]["leading"] | {"checkpoints": "all"}}
    study |= {name: {} for name in MEASUREMENTS if name != "spectrum"}
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
    first, lock = start("one"), folder / "results" / "data" / "digits.at_work"
    wait_for(lock)
    while not lock.read_text(encoding="utf-8"):  # until it is held
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGSTOP)  # however long the second takes to come so far
    try:
        second = start("two")
        said_second = ""
        while "to end:" not in said_second and (line := second.stdout.readline()):
            said_second += line
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    (said, _), (rest, _) = first.communicate(timeout=120), second.communicate(timeout=120)
    said_second += rest

    assert (first.returncode, second.returncode) == (0, 0), said + said_second
    assert "Waiting for another run, which makes results/data/digits.safetensors, to end: process" in said_second
    assert str(first.pid) in said_second
    assert "Nothing to be done" in said_second
    assert "unlock" not in said_second


def test_a_second_run_of_a_study_waits_and_no_living_run_is_unlocked(folder, start):
    first = start("one")
    wait_for(folder / ".snakemake" / "locks" / "0.output.lock")
    os.killpg(first.pid, signal.SIGSTOP)  # it lives, and does not end in the meantime
    try:
        second = start("one")
        refusals = [snakemake(folder, "--unlock", "--configfile", f"{study}.yaml") for study in ("one", "two")]
        is_alive = first.poll() is None
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    (said, _), (said_second, _) = first.communicate(timeout=120), second.communicate(timeout=120)

    assert is_alive
    for refused in refusals:
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


LOCALES = {"ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "UTF-8": {"LC_ALL": "C.UTF-8"}}


def test_a_locale_without_utf_8_and_closed_streams_give_the_same_tables_and_an_odd_path_does_too(folder):
    odd = folder.rename(folder.with_name("a colon: and a space"))
    study = tiny("one")
    # Claims on several rates are told with letters beyond ASCII.
    study["experiments"]["eigenvalues"]["grids"] = {"learning_rate": [{"learning_rate": [0.05, 0.1]}]}
    (odd / "one.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    tables = {}
    for name, variables in LOCALES.items():
        command = f"exec {sys.executable} -m snakemake -c 2 --configfile one.yaml" + " >&- <&-" * (name == "ASCII")
        done = subprocess.run(
            command, shell=True, cwd=odd, env=environment() | variables, stderr=subprocess.PIPE, check=False
        )
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        results = odd / "results" / "one"
        tables[name] = {path.name: path.read_bytes() for path in (results / "tables").iterdir()}
        (odd / "results" / "one").rename(odd / name)

    assert not tables["ASCII"]["claims.md"].isascii()
    assert tables["ASCII"] == tables["UTF-8"]


def test_a_path_that_snakemake_or_python_cannot_read_is_refused_in_one_sentence(folder):
    braces = folder.rename(folder.with_name("b{r}ce"))
    refused = snakemake(braces, "-n", "--configfile", "one.yaml")
    colon = braces.rename(folder.with_name("co:lon"))
    elsewhere = snakemake(
        folder.parent, "-n", "--snakefile", f"{colon}/Snakefile", "--configfile", str(colon / "one.yaml")
    )

    for done, words in ((refused, "takes braces in the path"), (elsewhere, "takes a colon for the end of a path")):
        (said,) = [line for line in (done.stdout + done.stderr).splitlines() if line]
        assert done.returncode == 1
        assert words in said


def test_a_study_that_there_is_not_is_refused_by_make_with_those_that_there_are(folder):
    for goal in ("demo", "study", "figure", "cost", "publish"):
        command = ["make", goal, "STUDY=none", "-f", str(ROOT / "Makefile")]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

        assert done.returncode == 2
        assert "STUDY=none: there is no workflow/studies/none.yaml; there are paper digits " in done.stderr
        assert len(done.stderr.splitlines()) == 1


HISTORY = "results/one/runs/digits-200-simple_cnn-lr0.1-bs20-e1-seed0/history.csv"


def test_a_job_that_the_kernel_kills_is_said_in_one_sentence_at_the_end(folder):
    (folder / "src" / "sharpness" / "stages" / "train.py").write_text(
        "import os\nheld = bytearray(200 << 20)\nos.kill(os.getpid(), 9)\n", encoding="utf-8"
    )
    for words in ((), ("--no-hooks",)):
        done = snakemake(folder, "-c", "1", *words, HISTORY, "--configfile", "one.yaml")

        assert done.returncode == 1
        assert "train: the job was killed by SIGKILL" in done.stdout
        if not words:
            last = done.stderr.partition("What failed, and the last line of its log:\n")[2].splitlines()[0]
            assert last.startswith("results/one/runs/")
            assert "train.log: train: the job was killed by SIGKILL, as the kernel does for want of memory" in last


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_said_in_one_sentence_with_the_file_at_the_end(folder):
    snakemake(folder, "-c", "1", DATA, "--configfile", "one.yaml")
    small = folder / "results" / "one"
    small.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=True)
    try:
        done = snakemake(folder, "-c", "1", HISTORY, "--configfile", "one.yaml")
    finally:
        subprocess.run(["umount", str(small)], check=True)

    assert done.returncode == 1
    assert "train: the disk is full, or your quota of it: no space for results/one/state/" in done.stdout
    assert "MiB are free in" in done.stdout
    assert "What failed, and the last line of its log:" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_on_a_full_disk_nothing_begins(folder):
    inside = folder / "elsewhere"
    inside.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(inside)], check=True)
    try:
        words = ("-n", "--snakefile", str(folder / "Snakefile"), "--configfile", str(folder / "one.yaml"))
        done = snakemake(inside, *words)
    finally:
        subprocess.run(["umount", str(inside)], check=True)

    (said,) = [line for line in (done.stdout + done.stderr).splitlines() if line]
    assert done.returncode == 1
    assert said.startswith("the disk is full")
