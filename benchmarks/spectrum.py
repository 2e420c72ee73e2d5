"""Measure all tools in turn, and write results/bench/spectrum.csv, .md, .png and .pdf.

python -m benchmarks.spectrum --budget-minutes 50
python -m benchmarks.spectrum --full --budget-minutes 600 --resume
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import plan
from benchmarks.accuracy import with_errors
from benchmarks.figure import cost_growth
from benchmarks.jobs import Job
from benchmarks.left_out import Reason
from benchmarks.load import wait_for_quiet
from benchmarks.machine import ENVIRONMENT, machine
from benchmarks.problem import weights_file
from benchmarks.report import report
from sharpness.analysis.figures.style import style
from sharpness.runtime.files import replacing, write_table, write_text


def main() -> None:
    """Run what fits into the time budget; what does not is named in the report."""
    options = _options()
    jobs = plan.full() if options.full else plan.short()
    rows = _earlier_rows(options.folder) if options.resume else []
    if options.budget_minutes > 0:
        rows = [row for row in rows if row["part"] != "train" or _has_weights(Job.of(row), options.folder / "cache")]
    done = {Job.of(row) for row in rows}
    begin, earlier = time.monotonic(), len(rows)
    here = machine(options.threads) | {"sitting": 1 + max((row["sitting"] for row in rows), default=0)}
    left_out: dict[Reason, list[Job]] = {reason: [] for reason in Reason}
    for number, job in enumerate(jobs, 1):
        if job in done:
            continue
        left = 60 * options.budget_minutes - (time.monotonic() - begin)
        expected = plan.expected_seconds(job, _product_seconds(rows))
        progress = f"[{number}/{len(jobs)}, {left / 60:.1f} min left] {job}"
        if reason := _obstacle(job, done, expected=expected, left=left):
            left_out[reason].append(job)
            print(f"{progress}: left out, {reason.lower()} (about {expected:.0f} s)", file=sys.stderr)
            continue
        wait_for_quiet(at_most=min(60.0, left / 20))
        found = _run(job, options.folder / "cache", threads=options.threads, limit=max(60.0, left))
        print(f"{progress}: {_shown(found)}", file=sys.stderr, flush=True)
        rows.append(asdict(job) | found | here)
        if "failure" not in found:
            done.add(job)
        write_table(with_errors(rows), options.folder / "spectrum.csv")
    left_out[Reason.NOT_SHORT] = [job for job in plan.full() if job not in jobs and job not in done]
    minutes = (time.monotonic() - begin) / 60 if len(rows) > earlier else None
    _write(options.folder, left_out, minutes=minutes)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="measure everything, for hours")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are there, measure the others")
    parser.add_argument("--budget-minutes", type=float, default=50.0, help="start nothing that would not end in time")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every tool")
    parser.add_argument("--folder", type=Path, default=Path("results/bench"), help="of the results")
    return parser.parse_args()


def _obstacle(job: Job, done: Set[Job], *, expected: float, left: float) -> Reason | None:
    """What keeps the job from being done now."""
    if job.part != "train" and job.training not in done:
        return Reason.UNTRAINED
    return Reason.TOO_LONG if expected > left else None


def _has_weights(job: Job, cache: Path) -> bool:
    """Whether trained weights are still there: they are not in version control, unlike the table."""
    return weights_file(job.network, job.width, cache).exists()


def _run(job: Job, cache: Path, *, threads: int, limit: float) -> dict[str, Any]:
    """What the job found, measured in a process of its own; a failure is a row with its last line."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.measure", str(threads), str(cache)]
    environment = os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)}
    cache.mkdir(parents=True, exist_ok=True)
    try:
        ended = subprocess.run(
            [*command, json.dumps(asdict(job))],
            env=environment,
            capture_output=True,
            text=True,
            timeout=limit,
            encoding="utf-8",
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"did not end within {limit:.0f} s"}
    if ended.returncode:
        return {"failure": (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return found


def _earlier_rows(folder: Path) -> list[dict[str, Any]]:
    place = folder / "spectrum.csv"
    if not place.exists():
        return []
    table = pd.read_csv(place, keep_default_na=False, na_values=[""]).astype({"verify": bool})
    table["tool"] = table["tool"].fillna("")
    table = table[table["failure"].isna()] if "failure" in table else table
    rows = [{name: value for name, value in row.items() if pd.notna(value)} for row in table.to_dict("records")]
    return [{str(name): value for name, value in row.items()} for row in rows]


def _product_seconds(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    timed = [row for row in rows if row["part"] == "product" and "seconds" in row]
    return {(row["network"], row["tool"]): row["seconds"] for row in timed}


def _shown(found: dict[str, Any]) -> str:
    shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in found.items()}
    shown.pop("eigenvalues", None)
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _write(folder: Path, left_out: Mapping[Reason, Sequence[Job]], *, minutes: float | None) -> None:
    table = pd.read_csv(folder / "spectrum.csv", keep_default_na=False, na_values=[""])
    write_text(report(table, left_out, minutes=minutes), folder / "spectrum.md")
    with style():
        picture = cost_growth(table)
        for ending in ("png", "pdf"):
            with replacing(folder / f"spectrum.{ending}") as beside:
                picture.savefig(beside, format=ending, metadata={"CreationDate": None} if ending == "pdf" else {})


if __name__ == "__main__":
    main()
