"""What a page shows in Python runs as it stands there, one block after the other, in an empty folder."""

import matplotlib as mpl
import pytest
from pages import run_page

PAGES = ["tracking.md", "quickstart.md"]  # test_library_page.py runs library.md, and holds it to its words


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = mpl.get_backend()
    mpl.use("Agg")
    run_page(page)
    mpl.use(before)
