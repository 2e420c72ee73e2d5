"""The public interface: what a notebook finds in ``sharpness``."""

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import sharpness


def test_the_stub_names_what_is_public():
    stub = ast.parse(Path(sharpness.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    named = {alias.asname: node.module for node in stub.body for alias in node.names}

    assert named == sharpness._PUBLIC


def test_every_public_name_is_there_and_says_what_it_is():
    for name in sharpness.__all__:
        assert inspect.getdoc(getattr(sharpness, name)), name


def test_public_names_are_completed_before_torch_is_imported():
    script = (
        "import sys, sharpness; assert {*sharpness.__all__} <= {*dir(sharpness)}; assert 'torch' not in sys.modules"
    )

    environment = {**os.environ, "PYTHONPATH": str(Path(sharpness.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
