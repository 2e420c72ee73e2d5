"""What a person is told of a run: the numbers of the line, worked out by hand, and the scalars as TensorBoard reads."""

import io
import logging
import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from sharpness.training import progress_log
from sharpness.training.progress import Record
from sharpness.training.progress_log import ProgressLog

START = SimpleNamespace(epoch=1, index=0)
FAKE = "torch.utils.tensorboard"


def record_of(run, epoch, **changes):
    values = {
        "training_loss": 1.23456,
        "validation_loss": 2.5,
        "validation_accuracy": 0.4321,
        "test_accuracy": 0.25,
        "learning_rate_now": 0.05,
        "distance": 3.0,
        "diverged": False,
        "num_direction_products": 7,
        "direction_residual": math.nan,
    }
    return Record(step=epoch * run.steps_per_epoch, epoch=epoch, **{**values, **changes})


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, moved by hand."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress_log.time, "monotonic", lambda: now.seconds)
    return now


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    """In place of the terminal that the tests may or may not have."""
    written = io.StringIO()
    monkeypatch.setattr(progress_log, "_terminal", lambda: written)
    return written


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="sharpness")
    return lambda: [record.getMessage() for record in caplog.records]


# The line of an epoch


def test_the_line_of_an_epoch_has_the_losses_the_speed_and_the_time_left(run, clock, lines):
    report = ProgressLog(run, START, None)
    clock.seconds += 2  # 5 updates of 4 images each: 10 images a second, and 10 updates are left
    report(record_of(run, 1))
    assert lines() == [
        f"{run.name}: epoch 1 of 3, training loss 1.2346, validation accuracy 43.2%, 10 images/s, 4 s left"
    ]


def test_a_run_that_is_lost_at_the_step_where_it_began_is_told(run, clock, lines):
    report = ProgressLog(run, START, None)
    clock.seconds += 1
    report(record_of(run, 0, diverged=True))
    assert lines()[0].endswith("0 images/s, diverged")


def test_the_speed_is_that_since_the_run_went_on(run, clock, lines):
    report = ProgressLog(run, SimpleNamespace(epoch=2, index=3), None)  # 8 of the 15 updates are done
    clock.seconds += 1
    report(record_of(run, 2))  # 2 updates in one second
    clock.seconds += 9
    report(record_of(run, 3))  # 7 updates in ten seconds
    assert ", 8 images/s, 2 s left" in lines()[0]  # 5 updates, at 2 a second: two and a half
    assert ", 3 images/s, 0 s left" in lines()[1]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((0.2, "0 s"), (59, "59 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"), (3599, "59 min 59 s")),
        *((3600, "1 h 00 min"), (90_061, "25 h 01 min")),
    ],
)
def test_the_time_left_is_in_units_that_a_person_can_read(run, clock, lines, seconds, words):
    report = ProgressLog(replace(run, epochs=2), START, None)
    clock.seconds += seconds  # half of the run
    report(record_of(run, 1))
    assert lines()[0].endswith(f", {words} left")


def test_a_run_that_diverged_has_a_line_too(run, clock, lines):
    report = ProgressLog(run, START, None)
    clock.seconds += 1
    report(record_of(run, 1, training_loss=math.inf, validation_accuracy=math.nan, diverged=True))
    assert "training loss inf, validation accuracy nan%" in lines()[0]


def test_the_terminal_gets_a_line_once_in_ten_seconds(run, clock, lines, terminal):
    run = replace(run, epochs=30)
    report = ProgressLog(run, START, None)
    for epoch in range(1, 31):
        clock.seconds += 1
        report(record_of(run, epoch))
    assert len(lines()) == 30
    assert terminal.getvalue().splitlines() == [lines()[index] for index in (9, 19, 29)]


def test_without_a_terminal_there_is_only_the_log(run, clock, lines, monkeypatch):
    monkeypatch.setattr(progress_log, "_terminal", lambda: None)
    report = ProgressLog(run, START, None)
    clock.seconds += 60
    report(record_of(run, 1))
    assert len(lines()) == 1


# TensorBoard


def test_tensorboard_has_a_scalar_of_every_column_that_each_epoch_fills(run, tmp_path):
    pytest.importorskip("tensorboard")
    report = ProgressLog(run, START, tmp_path)
    for epoch in (1, 2):
        report(record_of(run, epoch, training_loss=1 / epoch))

    events = events_in(tmp_path)

    columns = set(vars(record_of(run, 1))) - {"step", "epoch", "test_accuracy"}
    assert set(events.Tags()["scalars"]) == columns
    assert [(event.step, event.value) for event in events.Scalars("training_loss")] == [(5, 1.0), (10, 0.5)]
    assert [event.value for event in events.Scalars("num_direction_products")] == [7, 7]
    assert [event.value for event in events.Scalars("diverged")] == [0, 0]


@pytest.mark.parametrize("index", [0, 3])
def test_tensorboard_shows_each_epoch_of_a_run_that_went_on_once(run, tmp_path, index):
    pytest.importorskip("tensorboard")
    report = ProgressLog(run, START, tmp_path)
    for epoch in (1, 2):
        report(record_of(run, epoch, training_loss=1.0))
    # Killed before the end of epoch 2 was saved.
    report = ProgressLog(run, SimpleNamespace(epoch=2, index=index), tmp_path)
    for epoch in (2, 3):
        report(record_of(run, epoch, training_loss=2.0))

    events = events_in(tmp_path)

    shown = [(event.step, event.value) for event in events.Scalars("training_loss")]
    assert shown == [(5, 1.0), (10, 2.0), (15, 2.0)]


def events_in(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


# The last update that is done, and all before, stay.
@pytest.mark.parametrize(("progress", "first_hidden"), [((1, 0), 1), ((2, 0), 6), ((2, 3), 9)])
def test_what_comes_again_is_hidden_and_the_epoch_that_just_ended_is_not(
    run, tmp_path, monkeypatch, progress, first_hidden
):
    made = []

    def writer(folder, *, purge_step):
        made.append((folder, purge_step))

    monkeypatch.setitem(sys.modules, FAKE, SimpleNamespace(SummaryWriter=writer))
    epoch, index = progress
    ProgressLog(run, SimpleNamespace(epoch=epoch, index=index), tmp_path)
    assert made == [(str(tmp_path), first_hidden)]  # TensorBoard drops earlier events of this step and later


def test_tensorboard_that_is_not_installed_is_refused_with_what_to_do(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, FAKE, None)
    with pytest.raises(ValueError, match="tensorboard is true, but its package is missing: pip install tensorboard"):
        ProgressLog(run, START, tmp_path)


def test_tensorboard_that_is_not_wanted_need_not_be_installed(run, clock, lines, monkeypatch):
    monkeypatch.setitem(sys.modules, FAKE, None)
    report = ProgressLog(run, START, None)
    clock.seconds += 1
    report(record_of(run, 1))
    assert len(lines()) == 1
