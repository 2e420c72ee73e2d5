"""Print what a study found and what it cost: for the terminal, after a run."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from sharpness.stages import run_stage


def summary(study: str, results: Path, report: Path) -> None:
    """Print the tables of results, the cost of each part, and where figures and report are."""
    print(f"\nThe study {study}\n")
    for table in sorted((results / "tables").glob("*.md")):
        print(table.read_text().rstrip() + "\n")
    _print_costs(sorted(results.glob("**/benchmarks/*.tsv")))
    print("Figures:")
    for figure in sorted((results / "figures").glob("*.pdf")):
        print(f"  {figure}")
    print(f"Report: {report} (one file, opens without a network)")


def _print_costs(benchmarks: list[Path]) -> None:
    costs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for path in benchmarks:
        with path.open() as file:
            seconds = [(float(row["s"]), _number(row["cpu_time"])) for row in csv.DictReader(file, delimiter="\t")]
        costs[path.stem.partition("-")[0]] += seconds
    print(f"{'part':<16}{'jobs':>6}{'seconds':>10}{'CPU seconds':>13}")
    for part, spent in sorted(costs.items(), key=lambda item: -sum(wall for wall, _ in item[1])):
        print(f"{part:<16}{len(spent):>6}{sum(wall for wall, _ in spent):>10.0f}{sum(cpu for _, cpu in spent):>13.0f}")
    print()


def _number(text: str) -> float:
    # Snakemake writes NA where a job was too short to be looked at.
    return 0.0 if text in ("NA", "-") else float(text)


if __name__ == "__main__":
    run_stage(summary)
