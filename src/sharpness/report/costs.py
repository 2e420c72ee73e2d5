"""What a study cost: the benchmark files that its jobs leave, summed by part."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sharpness.study.jobs import Jobs
from sharpness.study.records import RecordError


@dataclass(frozen=True)
class Cost:
    """What all jobs of one part of a study took."""

    part: str  # a rule, or all figures
    num_jobs: int
    seconds: float
    cpu_seconds: float


def jobs_of(results: Path, jobs: Jobs) -> list[dict[str, str]]:
    """The benchmark file of each job of the study whose results are in a folder, and which part of the study it is.

    Raises:
        RecordError: one of them is damaged.
    """
    found = []
    for path in jobs.files(results):
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                rows = list(csv.DictReader(file))
            if len(rows) != 1 or not all(_is_number(rows[0].get(name)) for name in ("seconds", "cpu_seconds")):
                raise RecordError(f"{path} is damaged: remove it, and only what that job cost is lost")
            part, _, name = path.stem.partition("-")
            found.append({"part": name if part == "own" else part, **rows[0]})
    return found


def _is_number(text: str | None) -> bool:
    return text is not None and text.replace(".", "", 1).isdigit()


def costs_of(jobs: Iterable[Mapping[str, str]]) -> list[Cost]:
    """The cost of each part of a study, by its jobs, the largest first."""
    spent: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for job in jobs:
        spent[job["part"]].append((float(job["seconds"]), float(job["cpu_seconds"])))
    costs = [
        Cost(part, len(times), sum(wall for wall, _ in times), sum(cpu for _, cpu in times))
        for part, times in spent.items()
    ]
    return sorted(costs, key=lambda cost: -cost.seconds)
