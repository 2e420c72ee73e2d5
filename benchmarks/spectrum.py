"""The table, the page and the figure of what has been measured: ``python -m benchmarks.spectrum``.

Writes results/bench/spectrum.csv, .md, .png and .pdf from the rows that the jobs of benchmarks/Snakefile left. What was
measured on another kind of processor stays in the table, and on a part of the page of its own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import plan
from benchmarks.accuracy import with_errors
from benchmarks.figure import cost_growth, kind_drawn
from benchmarks.jobs import Job
from benchmarks.left_out import Reason
from benchmarks.report import report
from sharpness.analysis.figures.style import style
from sharpness.runtime.files import replacing, write_table, write_text


def main() -> None:
    """Write all that there is, with what was left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("results/bench"), help="of the results")
    options = parser.parse_args()
    cache, path = options.folder / "cache", options.folder / "spectrum.csv"
    found = with_errors(rows(cache))
    if not found:
        parser.error(f"nothing was measured: there is no row in {cache / 'rows'}")
    write_table([*found, *_of_other_kinds(path, found[0]["kind"])], path)
    table = read(path)
    write_text(report(table, failures(cache), not_measured(cache)), options.folder / "spectrum.md")
    with style():
        picture = cost_growth(table[table["kind"] == kind_drawn(table)])
        for ending in ("png", "pdf"):
            with replacing(options.folder / f"spectrum.{ending}") as beside:
                picture.savefig(beside, format=ending, metadata={"CreationDate": None} if ending == "pdf" else {})


def read(path: Path) -> pd.DataFrame:
    """What was measured, kind of processor after kind, the latest first."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def _of_other_kinds(path: Path, kind: str) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    table = read(path)
    others = table[table["kind"] != kind].astype(object)
    found: list[dict[str, Any]] = others.where(others.notna(), None).to_dict("records")
    return found


def rows(cache: Path) -> list[dict[str, Any]]:
    """What was measured here, in the order of the plan."""
    done = (job for job in plan.jobs() if _is_done(job, cache))
    return [row for job in done for row in json.loads((cache / job.row).read_text(encoding="utf-8"))]


def failures(cache: Path) -> dict[Job, str]:
    """The jobs that failed, with the last line of their logs; not one that was stopped when its time was over."""
    said = {
        job: (cache / job.log).read_text(encoding="utf-8", errors="replace").splitlines()
        for job in plan.jobs()
        if not _is_done(job, cache) and (cache / job.log).exists()
    }
    return {job: lines[-1] for job, lines in said.items() if lines and not _was_stopped(lines[-1])}


def not_measured(cache: Path) -> dict[Reason, list[Job]]:
    """The jobs that were neither done nor failed, by the reason."""
    failed = failures(cache)
    left_out: dict[Reason, list[Job]] = {reason: [] for reason in Reason}
    for job in plan.jobs():
        if not _is_done(job, cache) and job not in failed:
            trained = job.part == "train" or _is_done(Job("train", job.network), cache)
            left_out[Reason.TOO_LONG if trained else Reason.UNTRAINED].append(job)
    return left_out


def _is_done(job: Job, cache: Path) -> bool:
    return (cache / job.row).exists()


def _was_stopped(line: str) -> bool:
    """By Ctrl-C, SIGINT or SIGTERM, as a shell tells the latter."""
    return line.startswith("KeyboardInterrupt") or line in ("exit status 130", "exit status 143")


if __name__ == "__main__":
    main()
