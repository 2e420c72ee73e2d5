"""What made the results: the programs, the machine, the code, and where the runs were trained. Loads no torch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sharpness.study.naming import subject

PACKAGES = ("torch", "numpy", "scipy", "pandas", "scikit-learn", "matplotlib", "plotly", "snakemake")


@dataclass(frozen=True)
class Training:
    """What runs were trained on, and in which environments."""

    subjects: list[str]  # "SimpleCNN, Fashion-MNIST, 5,000 images", each once
    environments: Mapping[str, int]  # "torch 2.14.1, device cpu AVX2, threads 1" to the number of runs


@dataclass(frozen=True)
class Host:
    """A host on which jobs of a study ran, according to their benchmark files."""

    name: str
    num_jobs: int
    first: str  # start of the first recorded job, by the host's clock
    last: str  # of the last one


def hosts_of(jobs: Iterable[Mapping[str, str]]) -> list[Host]:
    """List the hosts on which jobs of a study ran, the one with most jobs first."""
    began: dict[str, list[str]] = {}
    for job in jobs:
        began.setdefault(job["host"], []).append(job["began"].rpartition(":")[0])
    hosts = [Host(host, len(times), min(times), max(times)) for host, times in began.items()]
    return sorted(hosts, key=lambda host: (-host.num_jobs, host.name))


def versions() -> dict[str, str]:
    """Python and the packages that shape results, here and now."""
    packages = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **packages}


def machine() -> dict[str, str]:
    """This machine: processor, cores that may be used, system."""
    return {
        "processor": _processor(Path("/proc/cpuinfo")),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": platform.platform(),
    }


def commit(folder: Path) -> str:
    """The git commit of the code in ``folder``, and whether it was changed since; "unknown" where git tracks none."""
    # Asked of a file, since a folder that git ignores may lie inside someone else's repository.
    tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
    head = _git(folder, "rev-parse", "HEAD") if tracked else ""
    if not head:
        return "unknown"
    return f"{head}, with changes that are not committed" if _git(folder, "status", "--porcelain", ".") else head


def made_by(tables: Iterable[pd.DataFrame]) -> str:
    """What the rows of collected tables were computed by: code, torch, device, threads, chosen kernels."""
    names = ["code", "torch", "device", "threads", "kernels"]
    found = pd.concat([table.reindex(columns=names).drop_duplicates() for table in tables])
    words = {name: ", ".join(map(str, values.dropna().unique())) for name, values in found.items()}
    kernels = f"; {words['kernels']}" if words["kernels"] else ""
    return "code {code}; torch {torch}; {device}; threads {threads}".format(**words) + kernels


def training_of(histories: Iterable[pd.DataFrame]) -> Training:
    """What the collected histories of some experiments say of their runs, each run once."""
    runs = pd.concat(histories).drop_duplicates("run").to_dict("records")
    subjects = [subject(run["model"], run["data"], run["num_training"]) for run in runs]
    environments = ["torch {torch}, device {device}, threads {threads}".format(**run) for run in runs]
    return Training(list(dict.fromkeys(subjects)), Counter(environments))


def _processor(information: Path) -> str:
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, encoding="utf-8"
        )
    except (OSError, subprocess.CalledProcessError):
        return ""  # no git, no repository, or none that git trusts
    return done.stdout.strip()
