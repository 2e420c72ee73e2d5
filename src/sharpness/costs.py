"""What a study cost: the benchmark files that Snakemake keeps of every job, summed by part."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """What all jobs of one part of a study took."""

    part: str  # a rule, or all figures
    num_jobs: int
    seconds: float
    cpu_seconds: float


def costs_of(results: Path) -> list[Cost]:
    """The cost of each part of the study whose results are in a folder, the largest first."""
    spent: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for path in sorted(results.glob("**/benchmarks/*.tsv")):
        with path.open() as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        spent[path.stem.partition("-")[0]] += [(float(row["s"]), _number(row["cpu_time"])) for row in rows]
    costs = [
        Cost(part, len(jobs), sum(wall for wall, _ in jobs), sum(cpu for _, cpu in jobs))
        for part, jobs in spent.items()
    ]
    return sorted(costs, key=lambda cost: -cost.seconds)


def _number(text: str) -> float:
    # Snakemake writes NA where a job was too short to be looked at.
    return 0.0 if text in ("NA", "-") else float(text)
