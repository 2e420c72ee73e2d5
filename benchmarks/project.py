"""A copy of all that a study needs of this project, for tests and benchmarks that run the workflow itself."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = ("Snakefile", "config.yaml", "workflow", "src", "slurm", "CITATION.cff", "environment.yml")


def copy_project(folder: Path) -> Path:
    """A copy of the project in ``folder``: in it everything may be edited."""
    folder.mkdir(exist_ok=True)
    for name in PROJECT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    return folder
