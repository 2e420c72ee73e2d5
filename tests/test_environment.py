"""The environments: conda's, pip's, what the project declares and what runs here are one and the same."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
import rattler
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Where conda's name of a package differs from pip's.
PIP_NAMES = {"pytorch": "torch", "snakemake-minimal": "snakemake"}
# Where the name of an import differs from pip's name of the package.
IMPORT_NAMES = {"scikit-learn": "sklearn", "pyyaml": "yaml", "pillow": "PIL"}


def conda_pins() -> dict[str, str]:
    """What stands behind the name of each package in environment.yml."""
    pairs = [dependency.partition(" ") for dependency in CONDA["dependencies"]]
    return {name: pin for name, _, pin in pairs}


def locked() -> dict[str, str]:
    """The version of each package in requirements.lock."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", LOCK, re.MULTILINE))


def declared(*extras: str) -> dict[str, Requirement]:
    """What the project needs to run, and what the extras add."""
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    requirements = [Requirement(line) for lines in lists for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


CONDA_PACKAGES = [name for name in conda_pins() if name != "python"]


def pip_name(name: str) -> str:
    return PIP_NAMES.get(name, name)


def test_conda_takes_packages_from_the_two_free_channels_and_from_no_default():
    assert CONDA["channels"] == ["conda-forge", "bioconda", "nodefaults"]


def test_conda_dependencies_are_named_once_in_order():
    assert next(iter(conda_pins())) == "python"
    assert sorted(set(CONDA_PACKAGES)) == CONDA_PACKAGES


@pytest.mark.parametrize("package", CONDA_PACKAGES)
def test_conda_pins_a_package_to_the_version_in_the_lock(package):
    assert conda_pins()[package] == f"=={locked()[pip_name(package)]}"


@pytest.mark.parametrize("line", CONDA["dependencies"])
def test_conda_reads_each_line_as_one_exact_specification(line):
    found = rattler.MatchSpec(line, strict=True)
    name, _, pin = line.partition(" ")
    assert found.name.normalized == name
    assert str(found.version) == pin
    assert re.fullmatch(r"==[0-9][0-9a-z.]*", pin)


def test_conda_has_a_python_that_the_project_allows():
    version = conda_pins()["python"].removeprefix("==")

    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)


def test_conda_has_every_package_that_the_pipeline_needs():
    lacking = set(declared("workflow")) - {pip_name(package) for package in CONDA_PACKAGES}

    assert lacking == set()


def test_conda_has_no_package_that_nothing_needs():
    assert {pip_name(package) for package in CONDA_PACKAGES} <= set(declared("workflow"))


def test_the_lock_is_pinned_line_by_line_and_each_line_has_hashes():
    logical = LOCK.replace("\\\n", " ").splitlines()
    packages = [line for line in logical if line.strip() and not line.startswith("#")]

    assert len(packages) == len(locked()) > 100
    for package in packages:
        assert re.fullmatch(r"[a-z0-9-]+==[^\s;]+( ; [^\\]*?)?(\s+--hash=sha256:[0-9a-f]{64})+", package), package


@pytest.mark.parametrize("extras", [(), ("workflow",), ("test",)], ids=str)
def test_the_lock_has_every_declared_package_in_a_version_that_is_allowed(extras):
    for name, requirement in declared(*extras).items():
        assert name in locked(), f"{name} is not in the lock"
        assert requirement.specifier.contains(locked()[name])


@pytest.mark.parametrize("package", CONDA_PACKAGES)
def test_the_version_that_runs_here_is_that_of_the_lock(package):
    running = Version(importlib.metadata.version(pip_name(package)))

    # A build for one kind of device says so after a plus sign: 2.14.1+cpu.
    assert running.public == locked()[pip_name(package)]


def test_the_python_that_runs_here_is_one_that_the_project_allows():
    version = ".".join(map(str, sys.version_info[:3]))

    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)


def imported_by(path):
    """The packages of others that a module of the sources imports."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    ours = {"sharpness", "mpl_toolkits", "_typeshed"}  # the last is the type checker's alone
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - ours


@pytest.mark.slow
def test_the_sources_import_what_the_project_declares():
    paths = list((ROOT / "src").rglob("*.py"))
    of_snakemake = {path.name for path in paths if any(name.startswith("snakemake") for name in imported_by(path))}
    imported = {name for path in paths for name in imported_by(path) if not name.startswith("snakemake")}
    declared_names = {IMPORT_NAMES.get(name, name) for name in declared("workflow")}

    assert imported <= declared_names
    assert {"torch", "pandas", "yaml"} <= imported
    # What Snakemake itself runs, and what starts it; the library needs none of it.
    assert of_snakemake == {"events.py", "locking.py", "slurm.py", "snakemake.py", "stopping.py"}


def test_the_library_needs_torch_and_numpy_alone_and_takes_every_torch_since_2_4():
    needed = {canonicalize_name(requirement.name): requirement.specifier for requirement in declared().values()}

    assert set(needed) == {"numpy", "torch"}
    assert [version for version in ("2.3.1", "2.4.0", "2.14.1", "3.0") if needed["torch"].contains(version)] == [
        "2.4.0",
        "2.14.1",
        "3.0",
    ]


def test_the_requirements_of_the_site_hold_its_extra_and_change_nothing_of_the_lock():
    text = (ROOT / "docs" / "requirements.txt").read_text()
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+) ", text, re.MULTILINE))
    asked = [Requirement(line) for line in PROJECT["optional-dependencies"]["docs"]]

    assert {canonicalize_name(requirement.name) for requirement in asked} <= set(pinned)
    assert set(pinned) & set(locked()) == set()
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", text)) >= len(pinned) > 30


def test_every_pinned_package_takes_each_python_that_the_project_allows():
    first = re.search(r">=(\d+\.\d+)", PROJECT["requires-python"])[1]
    pins = (LOCK, *((ROOT / folder / "requirements.txt").read_text() for folder in ("docs", "benchmarks")))
    demanded = {}
    for name in re.findall(r"^([a-z0-9-]+)==", "\n".join(pins), re.MULTILINE):
        with suppress(importlib.metadata.PackageNotFoundError):  # of another platform, or not asked for here
            demanded[name] = importlib.metadata.metadata(name).get("Requires-Python") or ""

    assert len(demanded) > 100
    assert {name: asked for name, asked in demanded.items() if not SpecifierSet(asked).contains(f"{first}.0")} == {}


# The container


def test_the_container_installs_the_lock_and_copies_what_there_is():
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    assert any("--require-hashes" in line and "requirements.lock" in line for line in lines)
    (base,) = [line for line in lines if line.startswith("FROM ")]
    version = re.fullmatch(r"FROM python:(3\.\d+\.\d+)-slim-\w+", base)[1]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert {"Snakefile", "config.yaml", "workflow", "src", "slurm"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
