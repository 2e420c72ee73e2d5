"""Which files a stage depends on: the closure read from the sources against what an interpreter really imports."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sharpness.runtime.closure import executed, sources
from sharpness.study.measurement import code_of
from sharpness.study.registry import MEASUREMENTS

PACKAGE = Path(__file__).parents[2] / "src" / "sharpness"
SOURCES = sorted(PACKAGE.rglob("*.py"))
STAGES = sorted(path.stem for path in (PACKAGE / "stages").glob("*.py") if path.stem != "__init__")
FIGURES = sorted(path.stem for path in (PACKAGE / "analysis" / "figures").glob("*.py") if path.stem != "__init__")

# What the rules run.
RULES = {
    stage
    for path in (PACKAGE.parents[1] / "workflow" / "rules").glob("*.smk")
    for stage in re.findall(r"-m sharpness\.stages\.(\w+)", path.read_text(encoding="utf-8"))
}

# Imports one module after the other in one interpreter, so that torch is loaded once; prints what each brought along.
TORCHLESS = ("collect", "figure", "report")
IMPORT_EACH = """
import importlib, json, sys

def ours():
    return [name for name in sys.modules if name.partition(".")[0] == "sharpness"]

brought = {}
for module in sys.argv[1:]:
    importlib.import_module(module)
    brought[module] = [sys.modules[name].__file__ for name in ours()], [name for name in sys.modules if "." not in name]
    for name in ours():
        del sys.modules[name]
print(json.dumps(brought))
"""


def imported(*modules: str) -> dict[str, tuple[set[str], set[str]]]:
    """The files of this package, and the names of all top-level modules, that are loaded after each import."""
    command = [sys.executable, "-c", IMPORT_EACH, *modules]
    environment = {"PYTHONPATH": str(PACKAGE.parent)}
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return {module: (set(files), set(names)) for module, (files, names) in json.loads(answer.stdout).items()}


@pytest.fixture(scope="module")
def stages_imported():
    # What a stage loads stays loaded for the next: first those that need least.
    ordered = sorted(STAGES, key=lambda stage: stage not in TORCHLESS)
    return imported(*(f"sharpness.stages.{stage}" for stage in ordered))


@pytest.fixture(scope="module")
def figures_imported():
    return imported(*(f"sharpness.analysis.figures.{figure}" for figure in FIGURES))


def modules_of(*modules: str) -> set[str]:
    """The closure as module names below the package: "training", "stages.train"; "" for the package itself."""
    paths = [Path(path).relative_to(PACKAGE).with_suffix("") for path in sources(*modules)]
    return {".".join(part for part in path.parts if part != "__init__") for path in paths}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_the_closure_of_a_stage_holds_all_that_importing_it_loads(stage, stages_imported):
    files, _ = stages_imported[f"sharpness.stages.{stage}"]
    closure = set(sources(f"sharpness.stages.{stage}"))

    assert str(PACKAGE / "stages" / f"{stage}.py") in files
    if str(PACKAGE / "study" / "registry.py") in closure:  # what plans loads all measurements, of which no import tells
        # The report reads the plan: changed defaults of a measurement reach it through the effective study.
        assert stage == "report" or stage not in RULES
        files = {path for path in files if Path(path).parent.name != "measurements"}
    assert files <= closure


@pytest.mark.slow
@pytest.mark.parametrize("figure", FIGURES)
def test_the_closure_of_a_figure_holds_all_that_importing_it_loads(figure, figures_imported):
    files, _ = figures_imported[f"sharpness.analysis.figures.{figure}"]

    assert str(PACKAGE / "analysis" / "figures" / f"{figure}.py") in files
    assert files <= set(sources(f"sharpness.analysis.figures.{figure}"))


@pytest.mark.slow
def test_no_figure_and_no_stage_that_only_handles_tables_loads_torch(figures_imported, stages_imported):
    # Figures are imported in one interpreter: none in the last means none in any.
    assert "torch" not in figures_imported[f"sharpness.analysis.figures.{FIGURES[-1]}"][1]
    assert "matplotlib" in figures_imported[f"sharpness.analysis.figures.{FIGURES[-1]}"][1]
    for stage in TORCHLESS:
        assert "torch" not in stages_imported[f"sharpness.stages.{stage}"][1]
    assert "torch" in stages_imported["sharpness.stages.train"][1]


@pytest.mark.parametrize(
    "module",
    [
        *(f"analysis.figures.{figure}" for figure in FIGURES),
        "stages.figure",
        "stages.collect",
        "stages.results_table",
        "stages.report",
    ],
)
def test_a_figure_or_a_table_depends_on_no_module_that_imports_torch(module):
    texts = {path: Path(path).read_text(encoding="utf-8") for path in sources(f"sharpness.{module}")}

    assert [path for path, text in texts.items() if re.search(r"^\s*(import|from) torch", text, re.MULTILINE)] == []


@pytest.mark.parametrize(
    ("stage", "within", "without"),
    [
        (
            "train",
            {"training.loop", "hessian.loss", "training.models", "data.datasets", "training.nudge", "stages"},
            {"eigen.lanczos", "hessian.operator", "study.measurement", "data.originals", "study.plan"},
        ),
        (
            "train_nudged",
            {"training.loop", "stages.train", "eigen.lanczos", "hessian.operator"},
            {"measurements.along", "data.originals", "study.plan", "analysis.tables"},
        ),
        (
            "prepare_data",
            {"data.originals", "data.catalogue", "runtime.files"},
            {"training.models", "training.loop", "hessian.loss", "study.run"},
        ),
        ("collect", {"runtime.files"}, {"data.datasets", "hessian.loss", "study.run", "study.plan"}),
        ("results_table", {"analysis.tables", "runtime.files"}, {"data.datasets", "hessian.loss", "study.plan"}),
        (
            "figure",
            {"analysis.figures.style"},
            {"data.datasets", "hessian.loss", "study.plan", "analysis.figures.slices"},
        ),
    ],
)
def test_a_stage_depends_on_what_it_computes_with_and_on_nothing_else(stage, within, without):
    modules = modules_of(f"sharpness.stages.{stage}")

    assert within <= modules
    assert without & modules == set()
    if stage not in ("figure", "results_table"):
        assert not any(module.startswith("analysis.figures") for module in modules)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_depends_on_its_module_and_neither_on_the_others_nor_on_their_list(name):
    modules = modules_of(*code_of(name))

    assert {"stages.measure", f"measurements.{name}", "measurements.measuring", "hessian.operator"} <= modules
    assert {f"measurements.{other}" for other in MEASUREMENTS if other != name} & modules == set()
    assert {"study.registry", "study.plan", "study.records", "data.originals", "analysis.tables"} & modules == set()
    assert ("training.descent" in modules) == (name == "variants")
    assert ("measurements.along" in modules) == (name in ("slices", "steps"))


def test_no_training_depends_on_a_measurement():
    modules = modules_of("sharpness.stages.train", "sharpness.stages.train_nudged")

    assert {f"measurements.{name}" for name in MEASUREMENTS} & modules == set()
    assert {"study.registry", "measurements.measuring", "stages.measure"} & modules == set()


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_planning_reads_a_measurement_without_torch(name):
    files, names = imported(f"sharpness.measurements.{name}")[f"sharpness.measurements.{name}"]
    assert str(PACKAGE / "measurements" / f"{name}.py") in files
    assert {"torch", "pandas"} & names == set()


def test_every_stage_depends_on_the_packages_around_it():
    for stage in STAGES:
        assert {"", "stages", f"stages.{stage}"} <= modules_of(f"sharpness.stages.{stage}")


def test_a_closure_is_sorted_and_made_of_files():
    paths = sources("sharpness.stages.train")

    assert paths == sorted(set(paths))
    assert all(Path(path).is_file() for path in paths)


def test_a_closure_follows_every_way_to_import_at_any_depth_and_ends_on_a_circle(tmp_path):
    package = tmp_path / "sharpness"
    (package / "inner").mkdir(parents=True)
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
    files = {
        "start.py": "import sharpness.first, json\nfrom sharpness import second as other\n",
        "first.py": "def later():\n    from sharpness.inner.third import thing\n    return thing\n",
        "typed.py": f"{typed}import sharpness.unrelated\nelse:\n    import sharpness.fifth\n",
        "fifth.py": "",
        "second.py": "import numpy, sharpness.typed\n",
        "inner/third.py": "import sharpness.start as back\nthing = 3\n",
        "inner/__init__.py": "from sharpness.fourth import *\n",
        "fourth.py": "import sharpness.one; import sharpness.two\n",
        "one.py": "if True: from sharpness import three\n",
        "two.py": "from sharpness \\\n    import four\nfrom sharpness import (  # import\n    five,\n)\n",
        "three.py": "try:\n    import sharpness.six as six  # noqa: F401\nexcept ImportError:\n    six = None\n",
        **dict.fromkeys(("four.py", "five.py", "six.py"), ""),
        "unrelated.py": "import sharpness.start\n",
        "__init__.py": "",
    }
    for name, text in files.items():
        (package / name).write_text(text)
    copied = package / "runtime" / "closure.py"
    copied.parent.mkdir()
    copied.write_text((PACKAGE / "runtime" / "closure.py").read_text())
    specification = importlib.util.spec_from_file_location("sharpness.runtime.closure", copied)
    closure = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(closure)

    assert closure.sources("sharpness.start") == sorted(str(package / name) for name in files if name != "unrelated.py")


@pytest.mark.parametrize("stage", STAGES)
def test_the_closure_of_a_stage_is_that_of_its_parsed_sources(stage):
    paths = {".".join(("sharpness", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in SOURCES}
    modules = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    found, waiting = set(), {f"sharpness.stages.{stage}"}
    while waiting:
        module = waiting.pop()
        found.add(module)
        named = {module.rpartition(".")[0]}
        for node in executed(ast.parse(modules[module].read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        waiting |= (named & modules.keys()) - found

    assert sources(f"sharpness.stages.{stage}") == sorted(str(modules[module]) for module in found)


def test_imports_are_absolute_because_the_closure_follows_no_others():
    relative = [
        str(path)
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith("from .")
    ]

    assert relative == []


@pytest.mark.parametrize("module", ["sharpness.stages.nothing", "sharpness.nothing", "torch", "json", "sharp", ""])
def test_a_module_that_is_not_of_this_package_is_refused_by_name(module):
    with pytest.raises(ModuleNotFoundError, match=f"no module {module} under"):
        sources(module)


@pytest.mark.parametrize("module", ["study.plan", "runtime.closure", "data.catalogue", "study.run"])
def test_planning_loads_neither_torch_nor_pandas_nor_numpy(module):
    files, names = imported(f"sharpness.{module}")[f"sharpness.{module}"]

    assert str(PACKAGE / f"{module.replace('.', '/')}.py") in files
    assert names & {"torch", "torchvision", "pandas", "numpy", "sklearn", "matplotlib", "scipy"} == set()


def test_planning_a_study_loads_neither_torch_nor_pandas_nor_numpy():
    root = PACKAGE.parent.parent
    program = """
import sys
from pathlib import Path
import yaml
from sharpness.study.plan import study_of
study = study_of(yaml.safe_load(Path(sys.argv[1]).read_text()), source="digits")
assert len(study.chunks) == len(study.runs) > 0
print(" ".join(sorted({"torch", "pandas", "numpy"} & set(sys.modules))) or "none of them")
"""
    files = [root / "workflow/studies/digits.yaml"]
    answer = subprocess.run(
        [sys.executable, "-c", program, *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(PACKAGE.parent)},
    )

    assert answer.stdout.strip() == "none of them"
