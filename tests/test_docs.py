"""The documents: their links lead somewhere, and the verdicts that they tell are those of the tables."""

import re
from pathlib import Path

import pandas as pd
import pytest

from sharpness.report.readme import written

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_is_to_a_file_of_the_project(document):
    links = re.findall(r"\]\(([^)#]+)", document.read_text())
    assert document.name != "README.md" or links
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []


def test_the_findings_in_the_readme_are_the_published_ones():
    readme = (ROOT / "README.md").read_text()
    assert written(readme, ROOT / "results") == readme, "write them: make readme"


def test_the_readme_tells_every_verdict_of_each_study_once():
    lines = (ROOT / "README.md").read_text().splitlines()
    (header,) = (line for line in lines if line.startswith("| | The poster's claim |"))
    studies = re.findall(r"\((results/[a-z0-9_]+)/published", header)
    rows = {
        cells[0]: cells[2:]
        for cells in ([c.strip() for c in line.split("|")[1:-1]] for line in lines if re.match(r"\| [a-t] \|", line))
    }
    assert "".join(rows) == "abcdefghijklmnopqrst"
    for column, study in enumerate(studies):
        claims = pd.read_csv(ROOT / study / "published" / "tables" / "claims.csv")
        for claim, found in claims[claims["seeds"] > 0].groupby("claim"):
            told = re.findall("does not hold|holds|undecided", rows[claim][column])
            assert sorted(told) == sorted(found["verdict"])
