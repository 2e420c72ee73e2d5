"""Where the pipeline's own files are: Snakefile, rules, studies, profiles. Free of torch and pandas."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def pipeline() -> Path:
    """Return the folder of the Snakefile: the project's root in a checkout, else a folder of the installed package."""
    root = _PACKAGE.parents[1]
    return root if (root / "Snakefile").is_file() and (root / "src").is_dir() else _PACKAGE / "pipeline"
