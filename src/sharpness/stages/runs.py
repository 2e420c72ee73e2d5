"""The table of a study's runs, which planning makes."""

from __future__ import annotations

from pathlib import Path

from sharpness.runtime.files import write_text
from sharpness.runtime.stage import run_stage


def runs(table: str, output: Path) -> None:
    """Write the table of all runs.

    Args:
        table: its content, as ``sharpness.study.runs`` makes it.
        output: the file.
    """
    write_text(table, output)


if __name__ == "__main__":
    run_stage(runs)
