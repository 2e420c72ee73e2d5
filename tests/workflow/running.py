"""Running the workflow itself, in a scratch folder, as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "tests" / "workflow" / "small.yaml"
SNAKEMAKE = (sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"))


def environment() -> dict[str, str]:
    """This environment's programs first, and no data folder of the machine's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {key: value for key, value in os.environ.items() if key != "SHARPNESS_DATA"} | {"PATH": path}


def snakemake(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake on the project's Snakefile in ``folder``."""
    command = [*SNAKEMAKE, "--directory", str(folder), *words]
    return subprocess.run(command, env=environment() | variables, capture_output=True, text=True, check=False)


def run_study(folder: Path, *words: str) -> str:
    """Run the small study to its end; returns what Snakemake said."""
    done = snakemake(folder, "--cores", "2", "--show-failed-logs", "--configfile", str(SMALL), "--", *words)
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stderr
