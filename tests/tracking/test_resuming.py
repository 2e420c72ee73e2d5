"""A training that is stopped and resumed has the tracker's records that it would have had without the stop."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from sharpness import CurvatureTracker

inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
targets = (inputs[:, 0] > 0).long()


class Training:
    """A small network, its optimizer, and the tracker that looks at every second step."""

    def __init__(self, folder, kind=torch.optim.SGD, *, checkpoint=None, **settings):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
        self.optimizer = kind(self.model.parameters(), lr=0.05)
        resume = None
        if checkpoint is not None:
            kept = torch.load(checkpoint, weights_only=True)
            self.model.load_state_dict(kept["model"])
            self.optimizer.load_state_dict(kept["optimizer"])
            resume = kept["tracker"]
        self.tracker = CurvatureTracker(
            self.model,
            (inputs, targets),
            None,
            self.optimizer,
            every=2,
            to=folder / "curvature.csv",
            resume=resume,
            **settings,
        )

    def steps(self, first, last):
        for step in range(first, last):
            batch = torch.randint(60, (16,), generator=torch.Generator().manual_seed(step))
            self.optimizer.zero_grad()
            functional.cross_entropy(self.model(inputs[batch]), targets[batch]).backward()
            self.optimizer.step()
            self.tracker.step()
        return self

    def save(self, path):
        parts = {"model": self.model, "optimizer": self.optimizer, "tracker": self.tracker}
        torch.save({name: part.state_dict() for name, part in parts.items()}, path)
        return path


def measured(history):
    """Records, but for what they cost."""
    return [replace(record, cpu_seconds=0.0, seconds=0.0) for record in history]


def rows(folder):
    with (folder / "curvature.csv").open(newline="", encoding="utf-8") as file:
        return [{name: row[name] for name in row if "seconds" not in name} for row in csv.DictReader(file)]


@pytest.fixture
def folders(tmp_path: Path):
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    return tmp_path / "whole", tmp_path / "stopped"


@pytest.mark.parametrize("stop", [1, 2, 13])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (torch.optim.SGD, {}),
        (torch.optim.SGD, {"probe_every": 1, "products": 12, "batch_sharpness": 2, "batch_size": 10}),
        (torch.optim.Adam, {"num_pairs": 3, "renew_overlap": 1.0}),
    ],
    ids=["as usual", "probes and mini-batches", "searches"],
)
def test_a_resumed_training_has_the_records_of_one_that_was_not_stopped(folders, kind, settings, stop):
    whole, stopped = folders
    expected = Training(whole, kind, **settings).steps(0, 40).tracker
    first = Training(stopped, kind, **settings).steps(0, stop)
    checkpoint = first.save(stopped / "checkpoint.pt")
    first.steps(stop, min(stop + 5, 40))  # what came after the checkpoint is lost
    if stop == 1:  # nothing had been measured yet, so that nothing tells whose file it is
        (stopped / "curvature.csv").unlink()

    found = Training(stopped, kind, checkpoint=checkpoint, **settings).steps(stop, 40).tracker

    assert measured(found.history) == measured(expected.history)
    assert torch.equal(found.pairs.eigenvectors, expected.pairs.eigenvectors)
    assert found.pairs.provenance == expected.pairs.provenance
    assert rows(stopped) == rows(whole)
    assert len(rows(whole)) == 20


def test_a_state_that_was_taken_is_not_changed_by_going_on(folders):
    training = Training(folders[0]).steps(0, 10)
    state = training.tracker.state_dict()
    vectors, generator = state["follower"]["vectors"].clone(), state["follower"]["generator"].clone()
    training.steps(10, 20)
    assert len(state["history"]) == 5
    assert torch.equal(state["follower"]["vectors"], vectors)
    assert torch.equal(state["follower"]["generator"], generator)


def test_a_file_of_another_training_is_not_continued(folders):
    checkpoint = Training(folders[0]).steps(0, 10).save(folders[0] / "checkpoint.pt")
    Training(folders[1], lambda weights, lr: torch.optim.SGD(weights, lr=2 * lr)).steps(0, 10)
    before = rows(folders[1])
    with pytest.raises(FileExistsError, match="does not begin with the resumed records"):
        Training(folders[1], checkpoint=checkpoint)
    assert rows(folders[1]) == before


def test_a_refused_state_leaves_the_file_as_it_is(folders):
    training = Training(folders[0]).steps(0, 4)
    checkpoint = training.save(folders[0] / "checkpoint.pt")
    training.steps(4, 20)
    before = (folders[0] / "curvature.csv").read_bytes()
    with pytest.raises(ValueError, match="num_pairs=3"):
        Training(folders[0], checkpoint=checkpoint, num_pairs=3)
    assert (folders[0] / "curvature.csv").read_bytes() == before


def test_a_block_of_equal_size_is_another(folders):
    model = nn.Sequential(nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 2))
    tracker = CurvatureTracker(model, (inputs, targets), parameters="0.bias")
    tracker.measure()
    with pytest.raises(ValueError, match="resume is of another Hessian: its parameters differ"):
        CurvatureTracker(model, (inputs, targets), parameters="2.bias", resume=tracker.state_dict())


def test_pairs_are_in_the_precision_of_the_tracker_that_goes_on(folders):
    state = Training(folders[0], precision="float64").steps(0, 4).tracker.state_dict()
    tracker = CurvatureTracker(
        nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)), (inputs, targets), resume=state
    )
    assert tracker.pairs.eigenvectors.dtype == torch.float32
    assert tracker.pairs.eigenvalues.dtype == torch.float64


def test_a_file_that_is_gone_is_written_anew(folders):
    checkpoint = Training(folders[0]).steps(0, 10).save(folders[0] / "checkpoint.pt")
    Training(folders[1], checkpoint=checkpoint)
    assert rows(folders[1]) == rows(folders[0])


@pytest.mark.parametrize(
    ("resume", "settings", "kind", "said"),
    [
        (
            {"model": 1},
            {},
            TypeError,
            r"resume must be what state_dict\(\) of a CurvatureTracker gave, got a mapping of m",
        ),
        (
            "tracker.pt",
            {},
            TypeError,
            r"resume must be what state_dict\(\) of a CurvatureTracker gave, got 'tracker.pt'",
        ),
        (None, {"num_pairs": 3}, ValueError, "resume is of a tracker of 2 eigenvalues, this one has num_pairs=3"),
        ({"num_steps": 1, "history": [], "pairs": None, "follower": {}}, {}, TypeError, "got a mapping of num_steps, "),
        (
            {"num_steps": 1, "history": [{}], "pairs": None, "follower": {"vectors": None}},
            {},
            TypeError,
            "must be what",
        ),
        (None, {"parameters": "0.*"}, ValueError, "resume is of another Hessian: its parameters differ"),
        (None, {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}, ValueError, "its loss differ: .*, here .*0.1"),
    ],
)
def test_another_state_is_refused_in_a_sentence(folders, resume, settings, kind, said):
    state = Training(folders[0]).steps(0, 4).tracker.state_dict()
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    with pytest.raises(kind, match=said):
        CurvatureTracker(model, (inputs, targets), resume=state if resume is None else resume, **settings)
