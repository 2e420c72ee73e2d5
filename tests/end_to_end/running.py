"""Running the workflow itself, in a scratch folder, as a user would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.project import ROOT

SMALL = ROOT / "tests" / "workflow" / "small.yaml"
# As the tests began: packages that they import set variables of their own, in one worker and not in another.
AT_FIRST = dict(os.environ)


def environment() -> dict[str, str]:
    """This environment's programs first, and no data folder of the machine's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{AT_FIRST['PATH']}"
    return {key: value for key, value in AT_FIRST.items() if key != "SHARPNESS_DATA"} | {"PATH": path}


def snakemake(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in ``folder``, on the copy of the project that is there, else on the project itself."""
    snakefile = [] if (folder / "Snakefile").exists() else ["--snakefile", str(ROOT / "Snakefile")]
    command = [sys.executable, "-m", "snakemake", *snakefile, *words]
    return subprocess.run(
        command, cwd=folder, env=environment() | variables, capture_output=True, text=True, check=False
    )


def run_study(folder: Path, *words: str) -> str:
    """Run the small study to its end; returns what Snakemake said."""
    done = snakemake(folder, "--cores", "2", "--show-failed-logs", "--configfile", str(SMALL), "--", *words)
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stderr


def planned_jobs(folder: Path, *words: str, study: Path = SMALL, **variables: str) -> dict[str, int]:
    """How many jobs of each rule a dry run names, without ``all`` and the sum; nothing where there is nothing to do."""
    done = snakemake(folder, "-n", *words, "--configfile", str(study), **variables)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    counts = re.findall(r"^(\w+) +(\d+)$", done.stdout, flags=re.MULTILINE)
    jobs = {rule: int(count) for rule, count in counts if rule not in ("all", "total")}
    assert jobs or "Nothing to be done" in done.stdout + done.stderr
    return jobs


def contents(folder: Path, *, states: bool = True) -> dict[str, bytes]:
    """Every table of a study and of its runs, every checkpoint and, with ``states``, every saved state.

    Not what a job cost, which is never the same.
    """
    results = folder / "results" / "small"
    paths = [path for kind in ("*.csv", "*.md", "*.tex", "*.safetensors") for path in results.rglob(kind)]
    names = {str(path.relative_to(results)): path for path in paths if not path.name.startswith(".")}
    return {
        name: path.read_bytes()
        for name, path in names.items()
        if path.parent.name != "benchmarks" and (states or not name.startswith("state/"))
    }


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """The names of files whose contents are not those expected: a test that failed prints what it compared."""
    return sorted(name for name, content in found.items() if content != expected.get(name))
