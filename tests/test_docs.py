"""The documents: links lead somewhere, examples do what they say, and verdicts are those of the tables."""

import doctest
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

import sharpness
from sharpness.report.findings import PAGE, written

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# The tutorial's page is made of its notebook, the others of files in the root, when the site is built.
MADE = {"tutorial.md": "tutorial.ipynb", "changelog.md": "../CHANGELOG.md", "contributing.md": "../CONTRIBUTING.md"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_is_to_a_file_of_the_project(document):
    links = re.findall(r"\]\(([^)#]+)", document.read_text())
    assert document.name != "README.md" or links
    files = [document.parent / MADE.get(link, link) for link in links if "://" not in link]
    assert [str(file) for file in files if not file.exists()] == []


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if ">>> " in path.read_text()], ids=lambda path: path.name
)
def test_the_examples_of_a_page_answer_what_the_page_says(document):
    failed, tried = doctest.testfile(str(document), module_relative=False, optionflags=doctest.ELLIPSIS)

    assert tried > 5
    assert failed == 0


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_block_of_code_is_indented_from_its_first_line_on(document):
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    # A line of a paragraph or of code that lost its indentation: a block of code comes after an empty line.
    joined = [
        before
        for before, after in pairwise(text.splitlines())
        if re.match(r" {4,}\S", after) and re.match(r"[^\s\-*|#>\d]", before)
    ]

    assert joined == []


def test_the_reference_has_every_public_name_once():
    named = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    public = [f"{module}.{name}" for name, module in sharpness._PUBLIC.items() if name != "__version__"]

    assert sorted(named) == sorted(public)


def test_the_readme_is_short_and_its_library_runs():
    readme = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    run = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=False
    )

    assert len(readme.splitlines()) <= 100
    assert run.returncode == 0, run.stderr
    assert float(run.stdout.splitlines()[-1]) > 0


def test_every_target_of_make_that_a_document_names_is_there():
    makefile = (ROOT / "Makefile").read_text()
    targets = {name for line in re.findall(r"^([a-z][a-z -]*):", makefile, re.MULTILINE) for name in line.split()}
    named = {
        word
        for path in DOCUMENTS
        for words in re.findall(r"`make ((?:[A-Z_]+=\S+ )*[a-z][a-z-]*)[ `]", path.read_text())
        for word in [words.split()[-1]]
    }

    assert len(named) > 8
    assert named - targets == set()


def test_the_findings_are_the_published_ones():
    page = (ROOT / PAGE).read_text()
    assert written(page, ROOT / "results") == page, "write them: make findings"


def test_the_findings_tell_every_verdict_of_each_study_once():
    lines = (ROOT / PAGE).read_text().splitlines()
    (header,) = (line for line in lines if line.startswith("| | The poster's claim |"))
    studies = re.findall(r"\(\.\./(results/[a-z0-9_]+)/published", header)
    rows = {
        cells[0]: cells[2:]
        for cells in ([c.strip() for c in line.split("|")[1:-1]] for line in lines if re.match(r"\| [a-t] \|", line))
    }
    assert "".join(rows) == "abcdefghijklmnopqrst"
    assert studies
    for column, study in enumerate(studies):
        claims = pd.read_csv(ROOT / study / "published" / "tables" / "claims.csv")
        for claim, found in claims[claims["seeds"] > 0].groupby("claim"):
            told = re.findall("does not hold|holds|undecided", rows[claim][column])
            assert sorted(told) == sorted(found["verdict"])


def test_the_example_at_full_batch_ends_at_the_edge_of_stability():
    """As the page says of its figure: whatever the largest eigenvalue was at first, it comes to 2 / learning rate."""
    folder = ROOT / "docs" / "examples"
    spectrum = pd.read_csv(folder / "edge_of_stability.csv").merge(
        pd.read_csv(folder / "edge_of_stability_runs.csv"), on="run"
    )
    largest = spectrum[(spectrum["which"] == "largest") & (spectrum["rank"] == 0)]
    scaled = largest.assign(ratio=largest["eigenvalue"] * largest["learning_rate"] / 2)
    assert set(scaled.loc[scaled["epoch"] == 0, "ratio"] < 0.6) == {True, False}
    assert scaled.loc[scaled["epoch"] >= 1000, "ratio"].between(0.95, 1.15).all()
    assert (largest["residual"] <= 0.01).all()
