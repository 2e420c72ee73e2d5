"""Print what a study found and what it cost: for the terminal, after a run."""

from __future__ import annotations

from pathlib import Path

from sharpness.costs import costs_of
from sharpness.stages import run_stage


def summary(study: str, results: Path, report: Path) -> None:
    """Print the tables of results, the cost of each part, and where figures and report are."""
    print(f"\nThe study {study}\n")
    for table in sorted((results / "tables").glob("*.md")):
        print(table.read_text().rstrip() + "\n")
    print(f"{'part':<16}{'jobs':>6}{'seconds':>10}{'CPU seconds':>13}")
    for cost in costs_of(results):
        print(f"{cost.part:<16}{cost.num_jobs:>6}{cost.seconds:>10.0f}{cost.cpu_seconds:>13.0f}")
    print("\nFigures:")
    for figure in sorted((results / "figures").glob("*.pdf")):
        print(f"  {figure}")
    print(f"Report: {report} (one file, opens without a network)")


if __name__ == "__main__":
    run_stage(summary)
