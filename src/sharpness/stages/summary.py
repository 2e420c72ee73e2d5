"""Print what a study found and what it cost: for the terminal, after a run."""

from __future__ import annotations

import csv
from pathlib import Path

from sharpness.analysis.claims.deciding import decided_by
from sharpness.report.costs import costs_of, jobs_of
from sharpness.runtime.stage import run_stage
from sharpness.study.jobs import jobs
from sharpness.study.paths import StudyFolder
from sharpness.study.plan import CLAIMS, Study, study_in

WIDTH = 118  # of a line in the terminal


def summary(config: Path, results: Path) -> None:
    """Print the tables of results, the verdicts, the cost of each part, and where figures and report are.

    Args:
        config: the study's file.
        results: the study's folder.
    """
    tell(study_in(config), results)


def tell(study: Study, results: Path) -> None:
    """Print the same of a study that was read already."""
    print(f"\nThe study {study.name}\n")
    folder = StudyFolder(str(results))
    claims = Path(folder.table(CLAIMS, "md"))
    for name in sorted(study.result_tables):
        print(Path(folder.table(name, "md")).read_text(encoding="utf-8").rstrip() + "\n")
    _print_verdicts(claims.with_suffix(".csv"))
    print(f"More: {claims}\n")
    if costs := costs_of(jobs_of(results, jobs(study))):
        print(f"{'part':<16}{'jobs':>6}{'seconds':>10}{'CPU seconds':>13}")
        for cost in costs:
            print(f"{cost.part:<16}{cost.num_jobs:>6}{cost.seconds:>10.0f}{cost.cpu_seconds:>13.0f}")
        print()
    print("Figures:")
    for name in sorted(study.figures):
        print(f"  {folder.figure(name, 'pdf')}")
    if Path(folder.report).exists():
        print(f"Report: {folder.report} (one file, opens without a network)")


def _print_verdicts(claims: Path) -> None:
    """A line for each claim that the study is about, with the test that decided it, as far as a terminal is wide."""
    with claims.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    print("The poster's claims" if rows else "None of the poster's claims is about what was trained and measured.")
    for row in rows:
        # What tells two parts of a sentence apart stands at its end.
        sentence, colon, part = row["finding"].partition(": ")
        test = decided_by(row)
        end = colon + part + (f" ({row['model']})" if row["model"] else "") + (f"; {test}" if test else "")
        begin = f"{row['claim']}  {row['verdict']:<13}  {sentence}"
        room = WIDTH - len(end)
        print((begin if len(begin) <= room else f"{begin[: room - 1]}…") + end)


if __name__ == "__main__":
    run_stage(summary)
