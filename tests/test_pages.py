"""What a page shows in Python runs as it stands there, one block after the other, in an empty folder."""

import re
from pathlib import Path

import matplotlib as mpl
import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ["tracking.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = mpl.get_backend()
    mpl.use("Agg")
    path = DOCS / page
    text = path.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE))
    assert blocks
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        # Errors name the lines of the page.
        lines = "\n" * (text[: block.start()].count("\n") + 1) + block[1]
        exec(compile(lines, str(path), "exec"), names)
    mpl.use(before)
