"""Write the whole study beside its results."""

from __future__ import annotations

from pathlib import Path

from sharpness.runtime.files import write_text
from sharpness.runtime.stage import run_stage


def effective_study(lines: list[str], output: Path) -> None:
    """Write the whole study.

    Args:
        lines: of the study, as the plan shows it.
        output: the file.
    """
    write_text("\n".join(lines) + "\n", output)


if __name__ == "__main__":
    run_stage(effective_study)
