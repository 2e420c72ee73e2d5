"""The site of the documentation: built with warnings as errors, whole within itself, and right in a real browser."""

import importlib.util
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import PROGRAM, browser

ROOT = Path(__file__).parents[1]
IS_CI = os.environ.get("CI") == "true"
HAS_MKDOCS = importlib.util.find_spec("mkdocs") is not None

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HAS_MKDOCS and not IS_CI, reason="needs make .venv/docs")]


class Links(HTMLParser):
    """What a page leads to, what it loads, and the places that it has."""

    def __init__(self, text):
        super().__init__()
        self.leads, self.loads, self.places = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.places |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.leads.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "prev", "next") and given.get("href"):
            self.loads.append(given["href"])
        elif given.get("src"):
            self.loads.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    return folder


def test_every_link_of_the_site_leads_to_a_page_and_a_place_of_it(site):
    pages = {path: Links(path.read_text()) for path in site.rglob("*.html")}
    assert len(pages) > 30
    lost = []
    for path, links in pages.items():
        for link in [*links.leads, *links.loads]:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//") or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            is_lost = not target.is_file() or (
                parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places
            )
            lost += [(str(path.relative_to(site)), link)] * bool(is_lost)
    assert lost == []


def test_nothing_of_the_site_comes_from_another_host(site):
    for path in site.rglob("*.html"):
        assert [link for link in Links(path.read_text()).loads if "//" in link] == [], path
    for path in site.rglob("*.css"):
        text = path.read_text()
        assert "url(http" not in text, path
        assert "@import" not in text, path


def test_the_tutorial_was_run(site):
    text = (site / "tutorial.html").read_text()
    assert "none is missing: True" in text
    assert text.count('alt="What the cell above draws"') == 2
    # Five cells, what three of them print, and nothing that libraries log.
    assert text.count('<div class="highlight">') == 8


@pytest.mark.skipif(PROGRAM is None and not IS_CI, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_open_in_a_browser_without_a_network_and_without_a_complaint(site, tmp_path, width):
    names = [
        "index",
        "quickstart",
        "tutorial",
        "findings",
        "figures/eigenvalues",
        "engine",
        "api",
        "running",
        "workflow",
    ]
    with browser(tmp_path) as page:
        page.resize(width, 900)
        for name in names:
            page.open(f"file://{site}/{name}.html")
            assert page.evaluate("document.querySelector('h1').getBoundingClientRect().width") > 50, name
            pictures = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
            assert page.evaluate(pictures) == [], name
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            if name == "engine":
                height = (
                    "Math.min(...[...document.querySelectorAll('math')].map(m => m.getBoundingClientRect().height))"
                )
                assert page.evaluate(height) > 5
        assert [address for address in page.requests if not address.startswith(("file:", "data:", "blob:"))] == []
        assert page.complaints == []


@pytest.mark.skipif(PROGRAM is None and not IS_CI, reason="needs Chromium")
def test_the_search_finds_a_page_where_the_site_is_files(site, tmp_path):
    with browser(tmp_path) as page:
        page.resize(1280, 900)
        page.open(f"file://{site}/index.html")
        page.evaluate("""(() => {
            const box = document.querySelector('.md-search__input');
            box.focus();
            box.value = 'Haynsworth';
            for (const name of ['keyup', 'input']) box.dispatchEvent(new Event(name, {bubbles: true}));
        })()""")
        found = """new Promise(done => {
            const began = Date.now();
            const look = () => {
                const link = document.querySelector('.md-search-result__link');
                if (link || Date.now() - began > 20000) done(link ? link.href : '');
                else setTimeout(look, 100);
            };
            look();
        })"""
        assert "engine.html" in page.evaluate(found)
