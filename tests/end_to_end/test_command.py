"""The command, as typed: one line of progress, all else in a log, and a run that is stopped goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest
from running import environment

from benchmarks.project import ROOT

STUDY = """\
study: tiny
defaults: { data: digits, num_training: 200, epochs: 1, learning_rate: 0.1 }
experiments: { rates: { kind: eigenvalues, grids: { learning_rate: [{ learning_rate: [0.1, 0.2] }] } } }
"""


@pytest.fixture
def here(tmp_path):
    (tmp_path / "tiny.yaml").write_text(STUDY)
    return tmp_path


def start(folder, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "sharpness", *words],
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said(process):
    output, _ = process.communicate(timeout=600)
    return output


@pytest.mark.slow
def test_a_run_that_is_stopped_says_how_to_go_on_and_does(here):
    process, log = start(here, "run", "tiny"), here / "results" / "tiny" / "logs" / "run.log"
    while not (log.exists() and "rule train" in log.read_text()):
        assert process.poll() is None, said(process)
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)

    assert "Stopped. Finished work is kept" in (output := said(process))
    assert "Traceback" not in output
    assert output.splitlines()[-1].endswith("sharpness run tiny")
    assert process.returncode == 130

    again = said(start(here, "run", "tiny"))
    assert "Report: results/tiny/report.html" in again
    assert "rule train" not in again
    assert "nothing to do" in said(start(here, "plan", "tiny"))
    assert "Nothing to do" in said(start(here, "run", "tiny"))
    assert "rule train" in log.read_text()  # what ran before stays


def test_a_run_can_be_stopped_while_it_is_planned_even_from_a_script_that_ignores_interrupts(here):
    words = [sys.executable, "-m", "sharpness", "run", "tiny"]
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *words],  # as a shell's & does
        cwd=here,
        env=environment() | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout.readline() == "tiny: planning\n"
    os.kill(process.pid, signal.SIGINT)

    assert said(process).startswith("Stopped. Finished work is kept")
    assert process.returncode == 130
    assert not list((here / "results").rglob("*.csv"))


@pytest.mark.slow
def test_a_plan_fits_into_twenty_lines_and_a_typo_into_one(here):
    planned, typo = start(here, "plan", "paper"), start(here, "plan", "tini")

    lines = said(planned).splitlines()
    assert planned.returncode == 0, lines
    assert "93 training runs" in lines[0]
    assert len(lines) <= 20
    assert said(typo) == "sharpness: there is no study 'tini'; nearest: tiny\n"
    assert typo.returncode == 1


def test_what_is_wrong_with_a_study_is_said_in_its_own_words(here):
    (here / "tiny.yaml").write_text(STUDY.replace("epochs: 1", "epochs: 1.5"))
    run = start(here, "run", "tiny")

    assert said(run).startswith("sharpness: tiny.yaml: defaults.epochs is 1.5")
    assert run.returncode == 1
