"""Explain why the jobs of a workflow failed, in one line each."""

from __future__ import annotations

import re
from pathlib import Path


def last_words(log: Path) -> list[str]:
    """Return the log file and its last line for each job that failed finally.

    Args:
        log: Snakemake's log of the run.
    """
    failed: dict[str, Path] = {}
    number = ""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := re.match(r" +jobid: (\d+)$", line):
            number = found[1]
        elif found := re.match(r" +log: (.+) \(check log file\(s\) for error details\)$", line):
            failed[number] = Path(found[1])
        elif found := re.match(r"Finished jobid: (\d+)", line):
            failed.pop(found[1], None)
    return [f"{path}: {_last_line(path)}" for path in dict.fromkeys(failed.values())]


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        return error.strerror or str(error)
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")
