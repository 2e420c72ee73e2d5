"""A user's own files: found without running them, imported in jobs, with their lines in every message."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sharpness.runtime import own
from sharpness.runtime.definitions import OwnError


@pytest.fixture
def folder(own_folder) -> Path:
    """The folder of a study, with a package and a file beside each other."""
    tmp_path = own_folder
    files = {
        "mine.py": "import json\nimport nets.deep\nfrom helper import three\n\n\ndef build(n=three()):\n    return n\n",
        "helper.py": "def three():\n    import late\n    return 3\n",
        "late.py": "",
        "unused.py": "raise RuntimeError\n",
        "nets/__init__.py": "from . import layers\n",
        "nets/deep.py": "from .layers import norm\nfrom sharpness.study.settings import setting\n\n"
        "\ndef deep():\n    return norm\n",
        "nets/layers.py": "from . import beside\n\nnorm = beside.one\n",
        "nets/beside.py": "one = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def names(files: list[str], folder: Path) -> set[str]:
    inside = [Path(file).resolve() for file in files]
    return {str(file.relative_to(folder.resolve())) for file in inside if file.is_relative_to(folder.resolve())}


def test_the_files_are_those_that_importing_runs(folder):
    files = own.sources("mine.py:build")
    package = {"nets/__init__.py", "nets/deep.py", "nets/layers.py", "nets/beside.py"}
    assert names(files, folder) == {"mine.py", "helper.py", "late.py", *package}
    assert any(file.endswith("sharpness/study/settings.py") for file in files)
    assert names(own.sources("nets/deep.py:deep"), folder) == package
    own.load("mine.py:build")
    imported = {getattr(module, "__file__", None) or "" for module in sys.modules.values()}
    assert {str(folder / name) for name in ("mine.py", "helper.py", *package)} <= imported


def test_what_they_name_is_imported_and_called(folder):
    assert own.call("mine.py:build", own.load("mine.py:build")) == 3
    assert own.load("nets/deep.py:deep")() == 1
    assert own.load("nets.deep:deep")() == 1
    assert own.load("json:dumps")([1]) == "[1]"
    assert not [*folder.rglob("__pycache__")]
    assert str(folder) not in sys.path


def test_a_file_named_as_an_imported_module_is_the_users(folder):
    (folder / "random.py").write_text("def build():\n    return 'mine'\n")
    assert own.load("random.py:build")() == "mine"
    import random

    assert random.random() < 1


def test_the_version_follows_what_is_imported_and_nothing_else(folder):
    before = own.version("mine.py:build")
    (folder / "unused.py").write_text("")
    assert own.version("mine.py:build") == before
    (folder / "nets" / "beside.py").write_text("one = 2\n")
    assert own.version("mine.py:build") != before


def test_checking_runs_nothing(folder):
    (folder / "loud.py").write_text("raise SystemExit\n\n\ndef build(): ...\n")
    own.check("loud.py:build")


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("min.py:build", "min.py, which does not exist (did you mean mine.py?)"),
        ("mine.py:biuld", "defines no 'biuld'; it has build"),
        ("broken.py:build", "broken.py, line 2 is not valid Python"),
    ],
)
def test_what_planning_can_see_is_one_sentence(folder, reference, said):
    (folder / "broken.py").write_text("import os\ndef build(:\n")
    with pytest.raises(OwnError) as told:
        own.check(reference)
    assert said in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "import os\nimport no_such_package\n\n\ndef build(): ...\n",
            "failing.py, line 2: ModuleNotFoundError: No module",
        ),
        ("def build():\n    x = 1\n    return x / 0\n", "failing.py, line 3: ZeroDivisionError: division by zero"),
        ("import sys\n\n\ndef build():\n    sys.exit(3)\n", "failing.py, line 5: SystemExit: 3"),
        ("import helper\n\n\ndef build():\n    return helper.three(1)\n", "failing.py, line 5: TypeError"),
    ],
)
def test_what_fails_in_a_job_is_one_sentence_with_the_users_line(folder, text, said):
    (folder / "failing.py").write_text(text)
    with pytest.raises(OwnError) as told:
        own.call("failing.py:build", own.load("failing.py:build"))
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_no_torch_is_imported_for_planning():
    code = "import sys; import sharpness.runtime.own, sharpness.data.arrays; print('torch' in sys.modules)"
    paths = os.environ | {"PYTHONPATH": str(Path(own.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import os\nimport no_such_module_here\n", "line 2: there is no module 'no_such_module_here'"),
        ("from no_such_package.part import name\n", "line 1: there is no module 'no_such_package.part'"),
        ("import os\nfrom helper import two\n", "line 2: {folder}/helper.py defines no 'two'; it has three"),
        ("from nets.deep import narow\n", "line 1: {folder}/nets/deep.py defines no 'narow'; it has"),
        ("from nets import shallow\n", "line 1: {folder}/nets/__init__.py defines no 'shallow'; it has"),
    ],
)
def test_what_is_nowhere_is_told_with_its_line_before_anything_runs(folder, text, said):
    (folder / "other.py").write_text(f"{text}\n\ndef build():\n    return 1\n")
    with pytest.raises(OwnError) as error:
        own.check("other.py:build")
    assert f"other.py, {said.format(folder=folder)}" in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    import no_such_module_here\nexcept ImportError:\n    pass\n",
        "import sys\nif sys.platform == 'plan9':\n    import no_such_module_here\n",
        "import torch.nn.functional, math, helper, nets.deep, sys\nfrom os.path import join\n",
        "from namespace.part import one\n",
        "def late():\n    import no_such_module_here\n",
    ],
)
def test_what_may_be_imported_elsewhere_or_is_there_passes(folder, text):
    (folder / "namespace").mkdir()
    (folder / "namespace" / "part.py").write_text("one = 1\n")
    (folder / "other.py").write_text(f"{text}\n\ndef build():\n    return 1\n")
    own.check("other.py:build")


def test_what_a_function_says_of_itself_is_read_without_running_it(folder):
    text = 'raise RuntimeError\n\n\ndef draw():\n    """A title.\n\n    And more.\n    """\n'
    text += "\n\ndef bare():\n    return 1\n"
    (folder / "plot.py").write_text(text)
    assert own.definition("plot.py:draw").docstring == "A title.\n\nAnd more."
    assert own.definition("plot.py:bare").docstring == ""
    assert own.definition("json:dumps") is None


def test_the_tables_that_a_figure_needs_are_read_without_running_it(folder):
    text = "raise RuntimeError\n\n\ndef draw(history, /, probe, spectrum=None, *rest, other, more=1, **all):\n"
    text += "    return 1\n"
    (folder / "plot.py").write_text(f"{text}\n\ndraw2 = print\n\n\n@print\ndef draw3(nothing):\n    return 1\n")
    assert own.definition("plot.py:draw").needed == ["history", "probe", "other"]
    assert own.definition("plot.py:draw2").needed == own.definition("plot.py:draw3").needed == []


@pytest.mark.parametrize(
    ("body", "nothing"),
    [
        ("figure = 1\n    print(figure)", True),
        ("if tables:\n        return\n    return None", True),
        ("def inner():\n        return 1\n    inner()", True),
        ("if tables:\n        return 1", False),
        ("for row in tables:\n        yield row", False),
        ("with open(tables) as file:\n        return file.read()", False),
    ],
)
def test_a_function_without_a_value_is_known_without_running_it(folder, body, nothing):
    text = f"raise RuntimeError\n\n\ndef draw(tables):\n    {body}\n\n\n@print\ndef wrapped(tables):\n    pass\n"
    (folder / "plot.py").write_text(text)
    assert own.definition("plot.py:draw").returns_nothing is nothing
    assert not own.definition("plot.py:wrapped").returns_nothing
