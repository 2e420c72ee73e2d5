"""Run what a page of the documentation shows in Python, block after block, as it stands there."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def run_page(name: str) -> dict[str, object]:
    """Return the names that the blocks of a page define; errors name the lines of the page."""
    path = DOCS / name
    text = path.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE))
    assert blocks
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        lines = "\n" * (text[: block.start()].count("\n") + 1) + block[1]
        exec(compile(lines, str(path), "exec"), names)
    return names
