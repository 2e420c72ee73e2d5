"""Text is read and written in UTF-8 whatever the locale is: no file is opened in an encoding that nobody named."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("src", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
OPENING = {"open", "read_text", "write_text"}
# Of these, open is not of text: modules, and a zip file.
OTHERS = {"gzip", "os", "tarfile", "zipfile", "safetensors", "Image", "archive"}


def unnamed(source: str) -> Iterator[str]:
    """Every call that opens text, or reads that of a process, without a word about its encoding."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(node.func.value, "id", "") if isinstance(node.func, ast.Attribute) else ""
        modes = [value.value for value in (*node.args, *given.values()) if isinstance(value, ast.Constant)]
        is_binary = any(isinstance(mode, str) and set(mode) <= set("rwaxb+") and "b" in mode for mode in modes)
        is_file = name in OPENING if isinstance(node.func, ast.Attribute) else name == "open"
        opens = is_file and owner not in OTHERS and not is_binary
        reads = ast.unparse(given.get("text", ast.Constant(None))) == "True"
        if (opens or reads) and "encoding" not in given:
            yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_text_is_opened_with_its_encoding(path):
    assert list(unnamed(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("code", "num_found"),
    [
        ("open(path)", 1),
        ("path.open('w', newline='')", 1),
        ("path.read_text()", 1),
        ("path.write_text(text)", 1),
        ("subprocess.run(words, text=True)", 1),
        ("open(path, encoding='utf-8')", 0),
        ("path.open('rb')", 0),
        ("open(path, mode='ab')", 0),
        ("path.write_text(text, encoding='utf-8')", 0),
        ("gzip.open(path)", 0),
        ("write_text(text, path)", 0),
        ("subprocess.run(words, capture_output=True)", 0),
    ],
)
def test_what_is_opened_without_is_found(code, num_found):
    assert len(list(unnamed(code))) == num_found


@pytest.mark.parametrize(
    "path", ["Snakefile", *(f"workflow/rules/{path.name}" for path in ROOT.glob("workflow/rules/*"))]
)
def test_snakemake_reads_what_every_encoding_has(path):
    assert (ROOT / path).read_bytes().isascii()
