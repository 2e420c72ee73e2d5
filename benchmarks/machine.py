"""The machine that measures, and how its processes are run."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from pathlib import Path
from typing import Any

# Of every process that is timed, as in workflow/rules/jobs.smk: large tensors stay with the process.
ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000"}


def machine(threads: int) -> dict[str, Any]:
    """Where this runs and with what: the same in every row of a run."""
    names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in ("torch", "scipy"))
    return {"cpu": names[0] if names else platform.machine(), "threads": threads, "versions": versions}
