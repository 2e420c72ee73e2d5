"""One line that tells how far a run of a study is: its parts, the time that is left, and what is computing."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TextIO

from sharpness.command.parts import in_order, part_of
from sharpness.study.forecast import Job, work_of
from sharpness.study.plan import MEASUREMENTS

if TYPE_CHECKING:
    from sharpness.study.plan import Study

_NAMED = 2  # jobs that are named in the line
_QUIET_SECONDS = 30  # between two lines where no terminal shows them
_SMALL = 2.0  # seconds of a table, figure or report, until one has ended


@dataclass
class _Begun:
    part: str
    run: str
    since: float


@dataclass
class Progress:
    """How far a run is, kept up by Snakemake's events.

    The time left is that of the jobs left: what a job of the same part took for each unit of its planned work, where
    some have ended, else what all parts took; divided by the number of jobs that ran at the same time.
    """

    study: Study
    clock: Callable[[], float] = time.monotonic
    total: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._began, self._is_stopping = self.clock(), False
        self._work = _work(self.study)
        self._known: dict[Any, tuple[str, str]] = {}
        self._running: dict[Any, _Begun] = {}
        self._spent: Counter[str] = Counter()  # seconds of the jobs that have ended, by part
        self._earned: Counter[str] = Counter()  # units of their work

    def see(self, event: Mapping[str, Any]) -> None:
        """Take an event into account."""
        match event.get("event"):
            case "run_info":
                self._plan(event["stats"])
            case "job_info" if event["rule_name"] != "all":
                run = (event["wildcards"] or {}).get("run", "")
                self._known[event["jobid"]] = part_of(event["rule_name"]), run
                self._running[event["jobid"]] = _Begun(*self._known[event["jobid"]], self.clock())
            case "job_finished":
                self._end(event["job_id"])
            case "job_error":
                self._running.pop(event["jobid"], None)
            case "stopping":
                self._is_stopping = True

    def _plan(self, stats: Mapping[str, int]) -> None:
        for rule, number in stats.items():
            if rule not in ("all", "total"):
                self.total[part_of(rule)] += number

    def _end(self, number: Any) -> None:
        if begun := self._running.pop(number, None):
            self.done[begun.part] += 1
            self._spent[begun.part] += self.clock() - begun.since  # type: ignore[assignment]
            self._earned[begun.part] += self._units(begun.part, begun.run)  # type: ignore[assignment]

    def _units(self, part: str, run: str = "") -> float:
        """Planned work of a job; of one of which the run is not known, that of the mean."""
        of_part = self._work.get(part, {})
        return of_part.get(run) or (sum(of_part.values()) / len(of_part) if of_part else 1.0)

    def _seconds(self, part: str, run: str = "") -> float | None:
        """Seconds that a job will take; None while nothing tells."""
        if self._earned[part]:
            return self._spent[part] / self._earned[part] * self._units(part, run)
        if part not in self._work:
            return _SMALL
        computed = [name for name in self._work if self._earned[name]]
        if not computed:
            return None
        spent, earned = (sum(counts[name] for name in computed) for counts in (self._spent, self._earned))
        return spent / earned * self._units(part, run)

    def seconds_left(self) -> float | None:
        """Seconds until the run ends; None while nothing tells."""
        left = 0.0
        for part, total in self.total.items():
            running = [begun for begun in self._running.values() if begun.part == part]
            for begun in running:
                if (seconds := self._seconds(part, begun.run)) is None:
                    return None
                left += max(seconds - (self.clock() - begun.since), 0.1 * seconds)
            if waiting := total - self.done[part] - len(running):
                if (seconds := self._seconds(part)) is None:
                    return None
                left += waiting * seconds
        elapsed = self.clock() - self._began
        busy = sum(self._spent.values()) + sum(self.clock() - begun.since for begun in self._running.values())
        return left / max(1.0, busy / elapsed if elapsed else 1.0)

    def line(self, width: int | None = None) -> str:
        """Say it in one line.

        Args:
            width: characters that there are; where the line has more, runs are counted instead of named, and then the
                last parts are added up.
        """
        total, done = sum(self.total.values()), sum(self.done.values())
        if self._is_stopping:
            return f"{self.study.name}: stopping; jobs save what they have"
        if not total:
            return f"{self.study.name}: planning"
        if done == total:
            return f"{self.study.name} 100 %"
        left = self.seconds_left()
        time_left = "time left unknown" if left is None else f"{_duration(left)} left"
        head = f"{self.study.name} {100 * done // total} %"
        parts = [name for name in in_order(self.total) if self.done[name] < self.total[name]]
        named = " | ".join(filter(None, (head, time_left, self._named(), self._counts(parts, len(parts)))))
        counted = (
            " | ".join(filter(None, (head, time_left, self._counted(), self._counts(parts, shown))))
            for shown in range(len(parts), 0, -1)
        )
        fitting = (line for line in (named, *counted) if width is None or len(line) <= width)
        return next(fitting, f"{head} | {time_left}")

    def _counts(self, parts: list[str], shown: int) -> str:
        """Jobs that are done of each part, and of all behind the first few together."""
        counts = [f"{name} {self.done[name]}/{self.total[name]}" for name in parts[:shown]]
        if rest := parts[shown:]:
            done, total = (sum(numbers[name] for name in rest) for numbers in (self.done, self.total))
            counts.append(f"{len(rest)} more {done}/{total}")
        return " · ".join(counts)

    def _named(self) -> str:
        """What is computing: by name, or of more than two jobs how many of each part."""
        begun = list(self._running.values())
        if len(begun) > _NAMED:
            return self._counted()
        return ", ".join(f"{job.part} {self._short(job.run)}".strip() for job in begun)

    def _counted(self) -> str:
        """How many jobs of each part are computing."""
        numbers = Counter(job.part for job in self._running.values())
        return f"now {', '.join(f'{numbers[part]} {part}' for part in in_order(numbers))}" if numbers else ""

    def _short(self, run: str) -> str:
        """What tells a run from the others: without the words that all names begin with."""
        names = [name.split("-") for name in self.study.runs]
        common = [words[0] for words in takewhile(lambda words: len({*words}) == 1, zip(*names, strict=False))]
        return "-".join(run.split("-")[len(common) :]) or run


class Shown:
    """A line that is written over itself in a terminal, and now and then anew elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._is_terminal = stream, stream.isatty()
        self._last, self._at = "", float("-inf")

    @property
    def width(self) -> int | None:
        """Characters that there are for the line; None where no terminal shows it."""
        return shutil.get_terminal_size().columns - 1 if self._is_terminal else None

    def show(self, line: str) -> None:
        """Show a line, cut to the terminal's width."""
        if (width := self.width) is not None:
            shown = line if len(line) <= width else f"{line[: width - 1]}…"
            self._stream.write(f"\r\x1b[K{shown}")
        elif line != self._last and time.monotonic() - self._at >= _QUIET_SECONDS:
            self._at = time.monotonic()
            self._stream.write(f"{line}\n")
        self._last = line
        self._stream.flush()

    def clear(self) -> None:
        """Leave the line to what comes next."""
        if self._is_terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def _work(study: Study) -> dict[str, dict[str, float]]:
    """Planned work of a job of each part and run, in images that pass forwards through the network; in the mean."""
    sums: dict[str, dict[str, list[float]]] = {part: {} for part in ("train", *MEASUREMENTS)}
    for job in work_of(study):
        sums[job.part].setdefault(job.run.name, []).append(_images(job))
    return {
        part: {run: sum(some) / len(some) for run, some in of_runs.items()} for part, of_runs in sums.items() if of_runs
    }


def _images(job: Job) -> float:
    """A gradient takes as long as three passes forwards, and a product as two gradients."""
    products = sum(6 * some.expected * some.num_examples for some in job.products)
    return 3.0 * job.gradients * job.run.examples_per_step + job.evaluated + products


def _duration(seconds: float) -> str:
    """Seconds in words, as exactly as such an estimate is."""
    if seconds < 50:
        return f"{max(5, round(seconds / 5) * 5)} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    if seconds < 172800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
