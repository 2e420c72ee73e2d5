"""The documents: their links lead somewhere, and the verdicts that they tell are those of the tables."""

import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_is_to_a_file_of_the_project(document):
    links = re.findall(r"\]\(([^)#]+)", document.read_text())
    assert document.name != "README.md" or links
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize(
    ("column", "study"), [(0, "fashion_mnist_exploring"), (1, "fashion_mnist_10000"), (2, "fashion_mnist_resnet")]
)
def test_the_verdicts_in_the_readme_are_the_published_ones(column, study):
    claims = pd.read_csv(ROOT / "results" / study / "published" / "tables" / "claims.csv")
    measured = claims[claims["seeds"] > 0]
    published = {claim: set(rows["verdict"]) for claim, rows in measured.groupby("claim")}
    rows = re.findall(r"^\| ([a-t]) \|.*\|([^|]+)\|([^|]+)\|([^|]+)\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    told = {claim: set(re.findall("does not hold|holds|undecided", cells[column])) for claim, *cells in rows}

    assert {claim: verdicts for claim, verdicts in told.items() if verdicts} == published


def test_the_table_of_resnet_32_in_the_readme_is_the_published_one():
    whole = (ROOT / "results" / "fashion_mnist_resnet" / "published" / "tables" / "results_table.md").read_text()
    ours, _ = whole.split("For comparison")
    published = re.findall(r"^\|[^|]+\| [^|]+ / ([^|]+) \|[^|]+\| ([^|]+ %) \|", ours, re.MULTILINE)
    told = re.findall(r"^\|[^|]+rate [^|]+\| ([^|]+) \| ([^|]+ %) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)

    assert len(published) == 7
    assert told == published
