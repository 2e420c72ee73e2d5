"""The source files behind a job as one file, which changes when one of them does.

A job of a measurement follows from a hundred source files, and a study has thousands of such jobs: were each file an
input of each job, planning would take twice the time and the memory.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

from sharpness.runtime import closure
from sharpness.runtime.files import write_text

# Beside Snakemake's records, and lost with them: planning makes no results.
FOLDER = ".snakemake/code"


@cache
def listing(name: str, *modules: str) -> str:
    """Write which source files the behaviour of modules follows from, with the digest of each, and return the file.

    Where it says the same already, it is left as it is, with its date. A new one is as old as the newest source.

    Args:
        name: of the file, without its ending.
        modules: full names, such as "sharpness.stages.train".
    """
    sources = [Path(source) for source in closure.sources(*modules)]
    text = "".join(f"{_digest(source)}  {closure.told(source)}\n" for source in sources)
    path = Path(FOLDER) / f"{name}.txt"
    before = path.read_text(encoding="utf-8") if path.exists() else None
    if before != text:
        write_text(text, path)
    if before is None:
        newest = max(source.stat().st_mtime for source in sources)
        os.utime(path, (newest, newest))
    return str(path)


@cache
def _digest(source: Path) -> str:
    return hashlib.sha256(source.read_bytes()).hexdigest()[:12]
