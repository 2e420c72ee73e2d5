"""What every stage does on its command line."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

import sharpness

STAGE = """
import errno
import time
from sharpness.runtime.stage import run_stage

def burn(seconds: float, sleep: float) -> None:
    if seconds < 0:
        raise ValueError("seconds must be at least 0")
    if sleep < 0:
        raise OSError(errno.ENOSPC, "no space")
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    time.sleep(sleep)

run_stage(burn)
"""


@pytest.fixture
def run(tmp_path):
    """Run the stage above; the finished process."""

    def run(*words):
        return subprocess.run(
            [sys.executable, "-c", STAGE, *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(sharpness.__file__).parents[1])},
            capture_output=True,
            text=True,
        )

    return run


def test_a_stage_leaves_what_it_took_where_it_is_told_to(run, tmp_path):
    before = time.time()
    done = run("--seconds", "0.5", "--benchmark", "made/for/it.csv", "--sleep", "0.3")
    after = time.time()

    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader((tmp_path / "made/for/it.csv").read_text().splitlines())
    spent = {name: float(row[name]) for name in ("seconds", "cpu_seconds", "starting_cpu_seconds", "peak_mebibytes")}
    assert 0.8 < spent["seconds"] < after - before + 0.1
    assert spent["cpu_seconds"] - spent["starting_cpu_seconds"] > 0.489  # each is rounded to a hundredth
    assert spent["starting_cpu_seconds"] > 0
    assert 10 < spent["peak_mebibytes"] < 1000
    assert before - 1.1 < datetime.fromisoformat(row["began"]).timestamp() < after
    assert row["host"] == socket.gethostname()


def test_a_stage_that_fails_leaves_a_sentence_and_no_cost(run, tmp_path):
    done = run("--seconds=-1", "--sleep", "0", "--benchmark", "it.csv")

    assert (done.returncode, done.stderr) == (1, "burn: seconds must be at least 0\n")
    assert not (tmp_path / "it.csv").exists()


def test_a_stage_needs_no_benchmark(run):
    assert run("--seconds", "0", "--sleep", "0").returncode == 0


def test_a_word_that_is_no_setting_is_refused(run):
    done = run("--seconds", "0", "--sleep", "0", "--bench", "it.csv")

    assert done.returncode != 0
    assert "--bench" in done.stdout + done.stderr


# Sources that are edited while a job runs

SLOW = """
import sys, time
from pathlib import Path
import sharpness.stages
from sharpness.runtime.stage import run_stage
from sharpness.training import {imported}

def slow(begun: Path, end: Path, output: Path) -> None:
    begun.touch()
    while not end.exists():
        time.sleep(0.01)
    output.write_text("computed")

run_stage(slow)
"""


@pytest.fixture
def run_slowly(tmp_path):
    """Run a stage in a copy of the package, and edit a file of it meanwhile; the finished process."""
    package = shutil.copytree(
        Path(sharpness.__file__).parent, tmp_path / "src" / "sharpness", ignore=shutil.ignore_patterns("__pycache__")
    )

    def run(edited, text, *, before=""):
        begun, end = tmp_path / "begun", tmp_path / "end"
        words = ["--begun", str(begun), "--end", str(end), "--output", str(tmp_path / "out")]
        with subprocess.Popen(
            [sys.executable, "-c", before + SLOW.format(imported="nudge"), *words],
            env=os.environ | {"PYTHONPATH": str(package.parent)},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            while not begun.exists() and process.poll() is None:
                time.sleep(0.01)
            path = package / edited
            whole = path.read_text()
            path.write_text(text(whole))
            end.touch()
            said = process.stderr.read()
        path.write_text(whole)
        return process.returncode, said

    return run


@pytest.mark.slow
@pytest.mark.parametrize("edited", ["training/nudge.py", "__init__.py"])
def test_a_job_whose_sources_are_edited_while_it_runs_fails_by_their_name(run_slowly, edited):
    status, said = run_slowly(edited, lambda text: text + "\n# Edited.\n")
    assert status == 1
    assert said.startswith(f"slow: sharpness/{edited} changed while this job ran")
    assert said.count("\n") == 1


@pytest.mark.slow
def test_an_edit_of_what_a_job_does_not_run_is_not_its_affair(run_slowly):
    assert run_slowly("hessian/operator.py", lambda text: text + "\n# Edited.\n") == (0, "")


@pytest.mark.slow
def test_an_edit_between_the_beginning_of_a_job_and_its_imports_is_found_at_once(run_slowly):
    before = "import sharpness.stages, sharpness.runtime.closure\nfrom pathlib import Path\n"
    before += "path = Path(sharpness.runtime.closure.__file__).parents[1] / 'training' / 'nudge.py'\n"
    before += "path.write_text(path.read_text() + '# Edited.')\n"
    status, said = run_slowly("hessian/operator.py", str, before=before)
    assert status == 1
    assert "slow: sharpness/training/nudge.py changed while this job ran" in said


def test_the_version_of_the_code_is_that_at_the_start(tmp_path):
    package = shutil.copytree(Path(sharpness.__file__).parent, tmp_path / "src" / "sharpness")
    program = """
from pathlib import Path
import sharpness.stages
from sharpness.runtime import closure
before = closure.version("sharpness.stages.train")
path = Path(closure.__file__).parents[1] / "training" / "loop.py"
path.write_text(path.read_text() + "# Edited.")
assert closure.version("sharpness.stages.train") == before
print(before)
"""
    said = []
    for _ in range(2):
        variables = os.environ | {"PYTHONPATH": str(package.parent)}
        done = subprocess.run(
            [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True
        )
        said.append(done.stdout)
    assert said[0] != said[1]


def test_a_full_disk_is_said_on_both_streams_since_the_log_may_lie_on_it(run):
    done = run("--seconds", "0", "--sleep=-1")

    assert (done.returncode, done.stderr) == (1, "burn: [Errno 28] no space\n")
    assert done.stdout == done.stderr
