"""What ran, and where."""

import pandas as pd
import torch

from sharpness.report import provenance
from sharpness.report.provenance import Host


def test_histories_say_of_what_and_where_their_runs_were_trained():
    fields = {"model": "simple_cnn", "data": "digits", "num_training": 1300, "torch": "2.0", "device": "cpu AVX2"}
    # An epoch a row; the second experiment has a run of the first.
    one = pd.DataFrame([{**fields, "run": run, "threads": 1, "epoch": epoch} for run in "ab" for epoch in (0, 1)])
    two = pd.DataFrame([{**fields, "run": run, "threads": 1 + (run == "c"), "epoch": 0} for run in "bc"])

    training = provenance.training_of([one, two])

    assert training.subjects == ["SimpleCNN, digits, 1,300 images"]
    assert training.environments == {
        "torch 2.0, device cpu AVX2, threads 1": 2,
        "torch 2.0, device cpu AVX2, threads 2": 1,
    }


def test_versions_and_machine_are_those_that_run_here():
    assert provenance.versions()["torch"] == torch.__version__.partition("+")[0]
    assert int(provenance.machine()["cores"]) >= 1
    assert all(provenance.machine().values())


def test_hosts_and_times_are_those_of_the_jobs():
    began = [("2026-01-02 03:04:05", "one"), ("2026-01-03 00:00:00", "one"), ("2026-01-01 00:00:00", "two")]
    assert provenance.hosts_of([{"began": time, "host": host} for time, host in began]) == [
        Host("one", 2, "2026-01-02 03:04", "2026-01-03 00:00"),
        Host("two", 1, "2026-01-01 00:00", "2026-01-01 00:00"),
    ]


def test_what_made_some_tables_is_said_in_one_line():
    one = pd.DataFrame({"code": ["a", "a"], "torch": "2.0", "device": "cpu AVX2", "threads": [1, 1]})
    two = one.assign(code="b", more=3)
    assert provenance.made_by([one, two]) == "code a, b; torch 2.0; cpu AVX2; threads 1"


def test_the_commit_is_unknown_where_git_tracks_nothing(tmp_path):
    assert provenance.commit(tmp_path) == "unknown"
