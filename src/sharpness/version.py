"""The version of this package; no module of a stage imports it, so that another version alone runs nothing again."""

import tomllib
from importlib.metadata import version
from pathlib import Path


def _version() -> str:
    """Read the version: from a checkout's pyproject.toml, else from the installed package's metadata."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    if not project.is_file():
        return version("sharpness")
    return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


__version__ = _version()
