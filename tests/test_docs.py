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


def test_the_verdicts_in_the_readme_are_the_published_ones():
    claims = pd.read_csv(ROOT / "results" / "fashion_mnist" / "published" / "tables" / "claims.csv")
    published = {claim: set(rows["verdict"]) for claim, rows in claims.groupby("claim")}
    rows = re.findall(r"^\| ([a-t]) \|.*\|([^|]+)\|$", (ROOT / "README.md").read_text(), re.MULTILINE)

    assert {claim: set(re.findall("does not hold|holds|undecided", cell)) for claim, cell in rows} == published
