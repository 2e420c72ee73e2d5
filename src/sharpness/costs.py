"""What a study cost: the benchmark files that every job leaves, summed by part."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """What all jobs of one part of a study took."""

    part: str  # a rule, or all figures
    num_jobs: int
    seconds: float
    cpu_seconds: float


def jobs_of(results: Path) -> list[dict[str, str]]:
    """The benchmark file of each job of the study whose results are in a folder, and which part of the study it is."""
    jobs = []
    for path in sorted(results.glob("**/benchmarks/*.csv")):
        with path.open() as file:
            jobs += [{"part": path.stem.partition("-")[0], **row} for row in csv.DictReader(file)]
    return jobs


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
