"""What the workflow itself costs: ``python -m benchmarks.workflow [--minutes M]``.

How long plans take and what memory they need, and how much of a whole study goes into Snakemake, into starting Python
and into importing torch, measured on the demo in a folder of its own. What was measured on other kinds of processors
stays on the page.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks.machine import machine, of_other_kinds
from benchmarks.project import ROOT, copy_project
from sharpness.runtime.files import write_table, write_text
from sharpness.study.registry import MEASUREMENTS

_FOLDER = ROOT / "results" / "bench"
_DEMO = "workflow/studies/digits.yaml"
_TARGETS = {"paper": (15.0, 1.5), "1,000 runs": (120.0, None)}  # seconds and GiB
_ROUNDS = 3  # of each plan
_FOR_THE_DEMO = 400.0  # seconds that plans leave to it
_OVERHEAD = 0.15  # of the computing time
_COMPUTING = "computing, drawing, reading and writing"
_STARTING = "starting and ending processes, importing"
_SNAKEMAKE = "Snakemake"
_ALONE = "a job that starts Python itself"


def main() -> None:
    """Measure plans, then the demo, and write the table and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="where workflow.csv and workflow.md go")
    parser.add_argument("--minutes", type=float, default=9, help="of all measurements together")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as scratch:
        project = copy_project(Path(scratch) / "project")
        studies = {"paper": project / "config.yaml", "1,000 runs": _large(project)}
        rows = [row for what, study in studies.items() for row in _plan(what, project, study, end)]
        rows += _demo(project, end)
    path, versions = options.folder / "workflow.csv", f"snakemake {importlib.metadata.version('snakemake')}"
    table = pd.DataFrame(rows).assign(**machine() | {"versions": f"{machine()['versions']}, {versions}"})
    table = pd.concat([table, of_other_kinds(path)])
    write_table(table.to_dict("records"), path)
    write_text(page(table), options.folder / "workflow.md")
    print(page(table))


def _large(project: Path) -> Path:
    """A grid of a thousand runs, each with some three hundred checkpoints that are measured."""
    study = yaml.safe_load((project / "config.yaml").read_text(encoding="utf-8"))
    rates = [round(0.001 * 1.1**power, 6) for power in range(50)]
    study["checkpoints"] = {"many": {"at_epochs": list(range(300))}}
    study["defaults"]["epochs"] = 300
    study["spectrum"] = {"leading": next(iter(study["spectrum"].values())) | {"checkpoints": "many"}}
    for section in MEASUREMENTS.keys() - {"spectrum"}:
        study.pop(section, None)
    grid = {"learning_rate": rates, "seed": list(range(20))}
    measured = {"kind": "eigenvalues", "measure": {"spectrum": ["leading"]}, "grids": {"learning_rate": [grid]}}
    study["experiments"] = {"eigenvalues": measured}
    path = project / "large.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path


@dataclass(frozen=True)
class _Spent:
    """What a run of Snakemake took."""

    seconds: float
    cpu_seconds: float  # with all jobs
    own_cpu_seconds: float  # of Snakemake's own process


def _snakemake(project: Path, *words: str, end: float) -> _Spent | None:
    """Run Snakemake to its end, or stop it at ``end``, and return None."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "snakemake", *words]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = 0.0
    with (project / "said").open("w", encoding="utf-8") as file:
        running = subprocess.Popen(command, cwd=project, env=os.environ | {"PATH": path}, stdout=file, stderr=file)
        while running.poll() is None:
            if time.monotonic() > end:
                running.terminate()
                running.wait()
                return None
            own = _own_cpu_seconds(running.pid) or own
            time.sleep(0.2)
    if running.returncode:
        raise RuntimeError((project / "said").read_text(encoding="utf-8")[-3000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return _Spent(time.monotonic() - began, cpu, own)


def _own_cpu_seconds(process: int) -> float:
    """Of a process that runs, without its children; zero once it has ended."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _plan(what: str, project: Path, study: Path, end: float) -> list[dict[str, Any]]:
    """A dry run of a study: the median of three, where they end in time, and the peak memory."""
    measured: list[tuple[Counter[str], float, float]] = []
    while len(measured) < _ROUNDS and time.monotonic() < end - _FOR_THE_DEMO:
        measured.append(_measured_plan(project, study))
    if not measured:
        return []
    jobs = measured[0][0]
    row = {
        "what": what,
        "jobs": jobs["total"],
        "runs": jobs["train"],
        "rounds": len(measured),
        "seconds": statistics.median(seconds for _, seconds, _ in measured),
        "gibibytes": max(peak for *_, peak in measured),
    }
    print(f"{what}: {row['jobs']:,} jobs, {row['seconds']:.1f} s, {row['gibibytes']:.2f} GiB", flush=True)
    return [row]


def _measured_plan(project: Path, study: Path) -> tuple[Counter[str], float, float]:
    program = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], capture_output=True, text=True);"
        "print(done.stdout); print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    began = time.monotonic()
    command = [sys.executable, "-c", program, sys.executable, "-m", "snakemake", "-n", "--configfile", str(study)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True, encoding="utf-8")
    seconds = time.monotonic() - began
    jobs = Counter({rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE)})
    return jobs, seconds, jobs.pop("peak") / 2**20


def _demo(project: Path, end: float) -> list[dict[str, Any]]:
    """Run the demo, and say where its CPU seconds went; nothing if it does not end in time."""
    print("Running the demo: some five minutes ...", flush=True)
    cores = len(os.sched_getaffinity(0))
    words = ("--cores", "all", "--scheduler", "greedy", "--max-jobs-per-timespan", "1000/5s", "--configfile", _DEMO)
    spent = _snakemake(project, *words, end=end)
    if spent is None:
        return []
    jobs = pd.concat([pd.read_csv(path) for path in (project / "results").rglob("benchmarks/*.csv")])
    num_jobs = len(jobs)
    computing = (jobs["cpu_seconds"] - jobs["starting_cpu_seconds"]).sum()
    shares = {
        _COMPUTING: computing,
        _STARTING: spent.cpu_seconds - spent.own_cpu_seconds - computing,
        _SNAKEMAKE: spent.own_cpu_seconds,
        "waiting": cores * spent.seconds - spent.cpu_seconds,
    }
    parts = [
        {"what": f"demo: {name}", "jobs": num_jobs, "cpu_seconds": seconds, "of_computing": seconds / computing}
        for name, seconds in shares.items()
    ]
    whole = {"what": "demo", "jobs": num_jobs, "seconds": spent.seconds, "cpu_seconds": spent.cpu_seconds}
    return [*parts, whole, {"what": _ALONE, "jobs": 1, "cpu_seconds": _start_seconds(project, "measure")}]


def _start_seconds(project: Path, stage: str) -> float:
    """CPU seconds until a stage that starts Python itself has been imported: the median of five."""
    spent = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", f"import sharpness.stages.{stage}"]
        subprocess.run(command, cwd=project, env=os.environ | {"PYTHONPATH": str(project / "src")}, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(spent)


def page(table: pd.DataFrame) -> str:
    """The page, in Markdown, by kind of processor."""
    lines = ["# What the workflow costs"]
    for kind, rows in table.groupby("kind", sort=False):
        first = rows.iloc[0]
        lines += ["", f"## {first['cpu']} ({kind}), {first['threads']} cores, {first['versions']}", ""]
        lines += [*_of_plans(rows), "", *_of_demo(rows)]
    return "\n".join([*lines, ""])


def _of_plans(table: pd.DataFrame) -> list[str]:
    plans = table[table["gibibytes"].notna()][["what", "runs", "jobs", "rounds", "seconds", "gibibytes"]]
    lines = ["### Plans", "", plans.astype({"runs": int, "rounds": int}).to_markdown(index=False, floatfmt=".2f"), ""]
    for what, (seconds, gibibytes) in _TARGETS.items():
        if what not in set(plans["what"]):
            lines.append(f"- {what}: not within the time")
            continue
        row = plans[plans["what"] == what].iloc[0]
        is_met = row["seconds"] <= seconds and (gibibytes is None or row["gibibytes"] <= gibibytes)
        wanted = f"at most {seconds:g} s" + (f" and {gibibytes} GiB" if gibibytes else "")
        lines.append(f"- {what}: {wanted} wanted: {_met(is_met)}")
    return lines


def _of_demo(table: pd.DataFrame) -> list[str]:
    if "demo" not in set(table["what"]):
        return ["### The demo", "", "It did not end within the time."]
    demo = table[table["what"] == "demo"].iloc[0]
    parts = table[table["what"].str.startswith("demo: ")].set_index("what")
    overhead = parts.loc[[f"demo: {_STARTING}", f"demo: {_SNAKEMAKE}"], "of_computing"].sum()
    start, compute = (parts.loc[f"demo: {part}", "cpu_seconds"] / demo["jobs"] for part in (_STARTING, _COMPUTING))
    alone = table.loc[table["what"] == _ALONE, "cpu_seconds"].item()
    return [
        "### The demo",
        "",
        f"{demo['jobs']:.0f} jobs in {demo['seconds']:.0f} s; {demo['cpu_seconds']:.0f} CPU seconds.",
        "",
        parts[["cpu_seconds", "of_computing"]].to_markdown(floatfmt=(".0f", ".0f", ".3f")),
        "",
        f"- Snakemake, processes and imports: {overhead:.1%} of the computing time, at most {_OVERHEAD:.0%} wanted: "
        f"{_met(overhead <= _OVERHEAD)}",
        f"- A job takes {start:.2f} CPU seconds to start and end, and computes for {compute:.1f}. It is a fork of a "
        f"process that has imported torch; one that starts Python itself takes {alone:.2f} to its first line.",
    ]


def _met(is_met: bool) -> str:
    return "met" if is_met else "not met"


if __name__ == "__main__":
    main()
