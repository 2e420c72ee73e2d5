"""Print what a study found and what it cost: for the terminal, after a run."""

from __future__ import annotations

import csv
import textwrap
from pathlib import Path

from sharpness.analysis.claims.deciding import decided_by
from sharpness.analysis.claims.poster import IN_SHORT
from sharpness.report.costs import costs_of, jobs_of
from sharpness.runtime.stage import run_stage
from sharpness.study.jobs import jobs
from sharpness.study.naming import title_of_value
from sharpness.study.paths import StudyFolder
from sharpness.study.plan import CLAIMS, Study, study_in

WIDTH = 118  # of a line in the terminal
INDENT = " " * 20  # below a claim's letter and verdict


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
    own = [name for experiment in study.experiments.values() for name in experiment.own_drawings]
    for name in sorted([*study.figures, *own]):
        print(f"  {folder.figure(name, 'pdf')}")
    if Path(folder.report).exists():
        print(f"Report: {folder.report} (one file, opens without a network)")


def _print_verdicts(claims: Path) -> None:
    """Each claim that the study is about, in short, with the test that decided it: a line, or two in a terminal."""
    with claims.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    print("The poster's claims" if rows else "None of the poster's claims is about what was trained and measured.")
    told = [(row["claim"], title_of_value("model", row["model"])) for row in rows]
    for row, (claim, model) in zip(rows, told, strict=True):
        # Two of one claim and one network are of other settings.
        place = [model, row["configuration"]] if told.count((claim, model)) > 1 else [model]
        where = ", ".join(filter(None, place))
        words = f"{where}: {IN_SHORT[claim]}" if where else IN_SHORT[claim]
        test, mark = decided_by(row), " *" if row["seeds_are"] == "exploring" else ""
        print("\n".join(_told(f"{claim}  {row['verdict'] + mark:<15}  {words}", f"({test})" if test else "")))
    if any(row["seeds_are"] == "exploring" for row in rows):
        print("* by the seeds that suggested the rules: not confirmed")


def _told(finding: str, test: str) -> list[str]:
    """A finding and its test: on one line if a terminal is wide enough, else below one another."""
    if len(line := f"{finding} {test}".rstrip()) <= WIDTH:
        return [line]
    lines = textwrap.wrap(finding, WIDTH, subsequent_indent=INDENT)
    return [*lines, INDENT + test] if test else lines


if __name__ == "__main__":
    run_stage(summary)
