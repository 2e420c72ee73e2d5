"""Captions in reStructuredText, by the parser that Snakemake's report has."""

from pathlib import Path

import pytest
from docutils.core import publish_parts

from sharpness.workflow.captions import as_rst

CAPTIONS = sorted((Path(__file__).parents[2] / "workflow" / "report").glob("*.md"))


@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: path.stem)
def test_every_caption_is_read_without_a_complaint(path):
    settings = {"report_level": 2, "halt_level": 2, "initial_header_level": 2}
    parts = publish_parts(as_rst(path.read_text()), writer="html", settings_overrides=settings)

    assert parts["title"] == path.read_text().splitlines()[0].removeprefix("# ").replace("*", "")
    assert "system-message" not in parts["html_body"]


def test_titles_code_links_and_braces_are_translated():
    assert as_rst("# A title\n\nSee `x`, [there](https://a.b/c) and [here](page.md), {{ no }}.") == (
        "A title\n=======\n\nSee ``x``, `there <https://a.b/c>`__ and here, { { no } }."
    )
