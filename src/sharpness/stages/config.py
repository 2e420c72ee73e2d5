"""Print a whole study, and where each of its values comes from: a line of its file, or a default."""

from __future__ import annotations

from pathlib import Path

from sharpness.runtime.stage import run_stage
from sharpness.study.file import key_lines
from sharpness.study.plan import study_in
from sharpness.study.showing import as_yaml


def config(config: Path) -> None:
    """Print a whole study.

    Args:
        config: its file.
    """
    whole = as_yaml(study_in(config).whole, key_lines(config))
    print(f"# {config}: each value with its line there, or as a default", whole, sep="\n", end="")


if __name__ == "__main__":
    run_stage(config)
