"""The documents: their links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_is_to_a_file_of_the_project(document):
    links = re.findall(r"\]\(([^)#]+)", document.read_text())
    assert document.name != "README.md" or links
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []
