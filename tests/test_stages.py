"""What every stage does on its command line."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

import sharpness

STAGE = """
import time
from sharpness.stages import run_stage

def burn(seconds: float, sleep: float) -> None:
    if seconds < 0:
        raise ValueError("seconds must be at least 0")
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
