"""A study that has run, for all tests of the workflow."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import run_study


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small study has run once, undisturbed."""
    folder = tmp_path_factory.mktemp("finished")
    run_study(folder)
    return folder
