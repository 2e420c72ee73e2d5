"""The built package: the library, the command and the pipeline in one wheel, of use outside a checkout."""

import os
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import sharpness

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the files that Git would commit, built without a network."""
    folder, files = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", ":!results", ":!docs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    build = f"from setuptools import build_meta; print(build_meta.build_wheel({str(files)!r}))"
    built = subprocess.run([sys.executable, "-c", build], cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return files / built.stdout.split()[-1]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that the wheel is unpacked into, as pip does."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def command(installed, folder, *words):
    """Run the command of the installed package in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "sharpness", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_wheel_has_every_module_and_every_file_of_the_pipeline(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    folders = {"sharpness": ROOT / "src" / "sharpness", "sharpness/pipeline/workflow": ROOT / "workflow"}
    folders["sharpness/pipeline/examples"] = ROOT / "examples"
    wanted = {
        f"{package}/{path.relative_to(folder)}"
        for package, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted |= {f"sharpness/pipeline/{name}" for name in ("Snakefile", "config.yaml", "environment.yml", "CITATION.cff")}
    assert wanted - names == set()


def test_the_metadata_ask_for_torch_and_numpy_and_offer_the_command_and_the_extras(wheel):
    with zipfile.ZipFile(wheel) as archive:
        of_metadata = {name.rpartition("/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        metadata = message_from_string(archive.read(of_metadata["METADATA"]).decode())
        entries = archive.read(of_metadata["entry_points.txt"]).decode()
    always = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]

    assert sorted(always) == ["numpy", "torch>=2.4"]
    assert {"workflow", "docs", "test", "bench"} <= set(metadata.get_all("Provides-Extra"))
    assert metadata["Version"] == sharpness.__version__
    assert "sharpness = sharpness.command.main:main" in entries


@pytest.mark.slow
def test_a_study_is_begun_and_planned_outside_of_the_checkout(installed, tmp_path):
    begun = command(installed, tmp_path, "new", "mine")
    planned = command(installed, tmp_path, "plan", "mine")

    assert begun.returncode == 0, begun.stderr
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "21 jobs would run; 6 training runs in all" in planned.stdout
    log = (tmp_path / "results" / "mine" / "logs" / "plan.log").read_text()
    assert not any(str(ROOT / name) in log for name in ("src", "workflow", "Snakefile"))


def test_the_studies_that_come_along_are_found_by_name(installed, tmp_path):
    shown = command(installed, tmp_path, "show", "digits", "--settings")

    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[0].startswith(f"# {installed}/sharpness/pipeline/workflow/studies/digits.yaml")
