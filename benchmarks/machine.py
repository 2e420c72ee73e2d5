"""The machine that measures, and how its processes are run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

import pandas as pd

# glibc's malloc keeps large tensors with the process. Nothing is measured under these but what says so: they are no
# user's.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
# What Snakemake sets for its jobs, and no user does.
UNSET = tuple(f"{name}_NUM_THREADS" for name in ("OMP", "GOTO", "OPENBLAS", "MKL", "VECLIB", "NUMEXPR", "JULIA"))
# Threads that wait for each other count as CPU time, which is all that can be compared beside other work.
ONE_THREAD = dict.fromkeys(UNSET, "1")
_KINDS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 with bfloat16, no AMX", "avx512f": "AVX-512, no AMX"}


def machine() -> dict[str, Any]:
    """Where this runs and with what: the same in every row of a run."""
    known = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = re.findall(r"^model name\s*: (.+)$", known, re.MULTILINE)
    flags = set(known.split())
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in ("torch", "scipy"))
    return {
        "cpu": names[0] if names else platform.machine(),
        "kind": next((kind for flag, kind in _KINDS.items() if flag in flags), "no AVX-512"),
        "threads": len(os.sched_getaffinity(0)),
        "versions": versions,
    }


def of_other_kinds(path: Path) -> pd.DataFrame:
    """What a table has of other kinds of processors than this one, which stays; nothing where there is no such file."""
    if not path.exists():
        return pd.DataFrame()
    table = pd.read_csv(path)
    return table[table["kind"] != machine()["kind"]]
