"""The machine that measures, for every row of a table."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from pathlib import Path
from typing import Any


def machine(threads: int) -> dict[str, Any]:
    """Where this runs and with what: the same in every row of a run."""
    names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in ("torch", "scipy"))
    return {"cpu": names[0] if names else platform.machine(), "threads": threads, "versions": versions}
