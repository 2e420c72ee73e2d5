"""The line of progress: what is done, what is left, and how long that takes by an independent count."""

import io
import re
from pathlib import Path

import pytest

from sharpness.command.parts import parts_of, why
from sharpness.command.progress import Progress, Shown
from sharpness.study.plan import study_in

SMALL = Path(__file__).parents[1] / "workflow" / "small.yaml"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Missing output files: a.csv, b.csv; Input files updated by another job: c.csv", "not made yet"),
        ("Input files updated by another job: c.csv", "follows from the above"),
        ("Updated input files: .snakemake/code/train.txt", "its code changed"),
        ("Updated input files: .snakemake/code/measure-own.txt, mine/my_probe.py", "edited: my_probe.py"),
        ("Updated input files: src/a.py, src/b.py, src/c.py", "edited: a.py and 2 more"),
        ("Params have changed since last execution: Before: 1, Now: 2", "its settings changed"),
        ("Code has changed since last execution: shell", "its command changed"),
        ("Set of input files has changed since last execution", "its inputs are others"),
        ("Forced execution", "asked for"),
        ("Incomplete output files: a.csv", "was interrupted"),
    ],
)
def test_a_reason_of_snakemake_is_said_in_words(reason, words):
    assert why(reason) == words


def test_jobs_are_counted_by_part_in_the_order_in_which_they_depend():
    jobs = [
        {"rule_name": rule, "reason": "Missing output files: x"}
        for rule in (
            "report",
            "figure_steps",
            "collect",
            "claims",
            "spectrum",
            "spectrum",
            "train",
            "prepare_data",
            "all",
        )
    ]
    assert [(part.name, part.num_jobs, part.reason) for part in parts_of(jobs)] == [
        (name, number, "not made yet")
        for name, number in (("data", 1), ("train", 1), ("spectrum", 2), ("tables", 2), ("figures", 1), ("report", 1))
    ]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def job(number, rule, run=""):
    return {"event": "job_info", "jobid": number, "rule_name": rule, "wildcards": {"run": run} if run else None}


def test_time_left_is_that_of_the_jobs_left_at_the_pace_of_those_that_ended():
    study, clock = study_in(SMALL), Clock()
    runs = [name for name in study.runs if not study.runs[name].is_nudged][:2]
    progress = Progress(study, clock)
    assert progress.line().endswith("planning")
    progress.see({"event": "run_info", "stats": {"train": 3, "all": 1, "total": 4}})
    assert progress.seconds_left() is None

    progress.see(job(1, "train", runs[0]))
    clock.now = 10.0
    progress.see({"event": "job_finished", "job_id": 1})
    progress.see(job(2, "train", runs[0]))
    clock.now = 14.0

    units = progress._units
    expected = (10 - 4) + 10 * units("train") / units(
        "train", runs[0]
    )  # this one's rest, and one of which nobody knows
    assert progress.seconds_left() == pytest.approx(expected)
    assert "train 1/3" in progress.line()
    assert "25 %" not in progress.line()
    assert "33 %" in progress.line()


def test_two_jobs_at_a_time_take_half_the_time():
    study, clock = study_in(SMALL), Clock()
    progress = Progress(study, clock)
    progress.see({"event": "run_info", "stats": {"collect": 8, "total": 8}})
    for number in (1, 2):
        progress.see(job(number, "collect"))
    clock.now = 6.0
    for number in (1, 2):
        progress.see({"event": "job_finished", "job_id": number})

    assert progress.seconds_left() == pytest.approx(6 * 6 / 2)


def test_what_computes_is_named_and_of_many_jobs_counted():
    study, clock = study_in(SMALL), Clock()
    progress = Progress(study, clock)
    progress.see({"event": "run_info", "stats": {"train": 3, "collect": 1, "total": 4}})
    runs = list(study.runs)[:3]
    progress.see(job(1, "train", runs[0]))
    (_, _, now, counts) = progress.line().split(" | ")
    assert now.startswith("train ")
    assert runs[0].endswith(now.removeprefix("train "))
    assert counts == "train 0/3 · tables 0/1"

    for number, run in enumerate(runs[1:], start=2):
        progress.see(job(number, "train", run))
    progress.see(job(4, "collect"))
    assert progress.line().split(" | ")[2] == "now 3 train, 1 tables"


def test_a_run_that_was_told_to_stop_says_so_until_it_has():
    progress = Progress(study_in(SMALL), Clock())
    progress.see({"event": "run_info", "stats": {"collect": 1, "total": 1}})
    progress.see({"event": "stopping"})
    progress.see(job(1, "collect"))

    assert progress.line() == "small: stopping; jobs save what they have"


def test_a_job_that_failed_and_runs_again_is_counted_once():
    study, clock = study_in(SMALL), Clock()
    progress = Progress(study, clock)
    progress.see({"event": "run_info", "stats": {"collect": 1, "total": 1}})
    progress.see(job(1, "collect"))
    progress.see({"event": "job_error", "jobid": 1})
    progress.see(job(1, "collect"))
    progress.see({"event": "job_finished", "job_id": 1})

    assert progress.done == progress.total
    assert progress.line() == "small 100 %"


def test_where_there_is_no_terminal_a_line_comes_now_and_then_and_no_control_character():
    stream = io.StringIO()
    shown = Shown(stream)
    for line in ("a", "b", "c"):
        shown.show(line)
    shown.clear()

    assert stream.getvalue() == "a\n"


def test_in_a_narrow_terminal_runs_are_counted_and_the_last_parts_added_up():
    study, clock = study_in(SMALL), Clock()
    progress = Progress(study, clock)
    stats = {"train": 3, "spectrum": 3, "collect": 2, "figure_steps": 2, "report": 1}
    progress.see({"event": "run_info", "stats": {**stats, "total": 11}})
    for number, run in enumerate(list(study.runs)[:2]):
        progress.see(job(number, "train", run))

    widest = progress.line()
    assert f"train {progress._short(next(iter(study.runs)))}" in widest
    assert "train 0/3 · spectrum 0/3 · tables 0/2 · figures 0/2 · report 0/1" in widest
    least = progress.line(0)
    for width in range(len(least), len(widest) + 1):
        line = progress.line(width)
        assert len(line) <= width
        assert line.startswith(least)
        if line != least:
            assert sum(int(number) for number in re.findall(r" 0/(\d+)", line)) == 11
            assert line == widest or "now 2 train" in line
    assert progress.line(75).endswith(" | now 2 train | train 0/3 · 4 more 0/8")
