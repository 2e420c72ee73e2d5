"""Captions for Snakemake's own report, which wants reStructuredText: the project's are Markdown."""

from __future__ import annotations

import re
import sys
from pathlib import Path

FOLDER = Path(".snakemake") / "captions"


def caption(source: Path) -> str:
    """Return the file of a caption for ``report(..., caption=...)``; it is translated only where a report is asked for.

    Args:
        source: the caption in Markdown.
    """
    if not any(word == "--report" or word.startswith("--report=") for word in sys.argv):
        return str(source.absolute())
    path = (FOLDER / source.with_suffix(".rst").name).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_rst(source.read_text(encoding="utf-8")), encoding="utf-8")
    return str(path)


def as_rst(markdown: str) -> str:
    """Translate what captions are written with: titles, code, links, and braces that Snakemake would fill in."""
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", markdown)
    text = re.sub(r"\[([^\]]+)\]\((https?://[^)]+)\)", r"`\1 <\2>`__", text)
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)
    text = re.sub(r"^#+ (.+)$", lambda title: f"{title[1]}\n{'=' * len(title[1])}", text, flags=re.MULTILINE)
    return re.sub(r"\{\{|\}\}|\{%|%\}", lambda braces: " ".join(braces[0]), text)
