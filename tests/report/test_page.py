"""The page of the report, made from invented tables."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figures.invented import slices_table, spectrum_table
from plotly.offline import get_plotlyjs

from sharpness.analysis.claims.poster import CLAIMS
from sharpness.analysis.figures import interactive
from sharpness.report.costs import Cost
from sharpness.report.page import Caption, Origin, Picture, Table, caption_of, render
from sharpness.report.provenance import Host, Training
from sharpness.study.plan import KINDS

ROOT = Path(__file__).parents[2]


VOID = {"meta", "img", "br", "hr", "link", "input"}


# One dot, transparent: 1 x 1.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d4944415478da6364f8ffbf1e000584027f"
    "6d1dd2230000000049454e44ae426082"
)


ODD = 'a < b & "c" <script>alert(1)</script>'


def claims_table():
    row = {
        "model": "simple_cnn",
        "data": "digits",
        "configuration": "",
        "quantity": "ratio, below 1",
        "measured": "learning rate 0.1: 20 ± 1",
        "effect": 0.36,
        "low": 0.3,
        "high": 0.42,
        "test": "Student",
        "seeds": 3,
        "diverged": 0,
        "seeds_are": "confirming",
        "exploring": "",
        "would_decide": "",
    }
    rows = [
        {"claim": "a", "finding": "Peaks are lower", **row, "verdict": "holds"},
        {"claim": "b", "finding": ODD, **row, "diverged": 1, "measured": ODD, "verdict": "does not hold"},
        {
            "claim": "c",
            "finding": "Bowls are wide",
            **row,
            **dict.fromkeys(("model", "data", "measured", "test"), ""),
            **dict.fromkeys(("effect", "low", "high"), np.nan),
            "seeds": 0,
            "verdict": "undecided",
            "would_decide": f"an experiment, {ODD}",
        },
    ]
    return pd.DataFrame(rows)


def origin():
    return Origin(
        training=Training(["SimpleCNN, digits, 1,300 images"], {"torch 2.0, device cpu, threads 1": 4}),
        hosts=[Host("node7", 3, "2018-07-12 21:00", "2018-07-12 23:59")],
        versions={"python": "3.11.2"},
        machine={"processor": "A & B", "cores": "2"},
        commit="unknown",
        date="2018-07-13 00:00 UTC",
        costs=[Cost("train", 4, 1234.5, 1200.4)],
    )


def page(pictures=None, tables=(), claims=None, brackets=""):
    caption = Caption("Peaks", f"Look *here*: {ODD}")
    shown = interactive.spectrum(spectrum_table())
    if pictures is None:
        pictures = [
            Picture("peaks", PNG, "Dots and lines", caption, ODD, None),
            Picture("spectrum", PNG, ODD, caption, "Hessian on 65 training images", shown),
            Picture("slices", PNG, "A surface", caption, "", interactive.slices(slices_table())),
        ]
    return render(
        "made_up",
        claims=claims_table() if claims is None else claims,
        claims_caption=Caption("Findings", "Each row is one claim."),
        pictures=pictures,
        tables=tables,
        brackets=brackets,
        origin=origin(),
        citation={"title": "sharpness", "version": "1.0", "authors": [{"name": "The & authors"}]},
    )


class Read(HTMLParser):
    """A page as its elements: fails where one is not closed, or closed twice."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        # Optional, but this page writes every one.
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_is_one_whole_document_with_unique_ids_and_no_dead_link_within():
    read = Read(page(tables=[Table("table", "| a | b |\n| --- | ---: |\n| 1 | 2 |", Caption("Table", "Look."))]))

    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [link["href"] for link in read.all("a") if link["href"].startswith("#")]
    assert {target.removeprefix("#") for target in targets} <= set(ids)
    assert {"findings", "figures", "tables", "figure-peaks", "figure-spectrum", "table-table"} <= set(ids)


def test_the_contents_tell_figures_of_one_kind_apart():
    caption = Caption("Peaks", "Look.")
    links = re.findall(
        r'<li><a href="#figure-\w+">(.*?)</a>',
        page(
            pictures=[
                Picture(name, PNG, "Dots", Caption("Widths", "Look.") if name == "widths" else caption, "", None)
                for name in ("first", "second", "widths")
            ]
        ),
    )

    assert links == ["Peaks (first)", "Peaks (second)", "Widths"]


def test_findings_come_before_figures_tables_and_what_ran():
    text = page(tables=[Table("table", "text", Caption("Table", "Look."))])

    places = [text.index(f'<section id="{name}">') for name in ("findings", "figures", "tables", "origin", "citing")]
    assert places == sorted(places)


def test_every_figure_is_embedded_with_its_size_and_its_alternative_text():
    images = Read(page()).all("img")

    assert [image["alt"] for image in images] == ["Dots and lines", ODD, "A surface"]
    assert all(image["src"].startswith("data:image/png;base64,iVBOR") for image in images)
    assert all((image["width"], image["height"]) == ("1", "1") for image in images)


def test_every_claim_is_shown_with_its_verdict_in_words_and_as_a_symbol():
    text = page()
    rows = re.findall(r'<tr id="claim-\d+">(.*?)</tr>', text, flags=re.DOTALL)

    assert len(rows) == 3
    for row, (symbol, verdict, effect) in zip(
        rows,
        [("✓", "holds", "0.360 (0.300 to 0.420)"), ("✗", "does not hold", "0.36"), ("?", "undecided", "")],
        strict=True,
    ):
        shown = " ".join(Read(row).text.split())
        assert shown.startswith(f"{symbol}{verdict}")
        assert effect in shown
    assert "3 confirming seeds; 1 diverged run" in rows[1]
    assert "nan" not in Read(rows[2]).text


def test_networks_and_data_have_the_names_that_people_know():
    text = Read(page()).text

    assert "SimpleCNN, digits; 3 confirming seeds" in text
    assert "training runs: SimpleCNN, digits, 1,300 images." in " ".join(text.split())
    assert "simple_cnn" not in text


@pytest.mark.parametrize("told", ["", f"within 20 % in 3 of 7 checkpoints {ODD}"])
def test_says_how_far_the_eigenvalues_of_the_whole_set_may_lie(told):
    read = Read(page(brackets=told))

    assert ("of 7 checkpoints" in read.text) == bool(told)
    assert told in read.text


def test_every_claim_of_the_poster_has_its_place():
    every = pd.DataFrame(
        [{**claims_table().iloc[0], "claim": letter, "finding": claim.finding} for letter, claim in CLAIMS.items()]
    )

    shown = Read(page(claims=every)).text

    assert all(claim.finding in shown for claim in CLAIMS.values())


def test_claims_without_a_measurement_come_last_and_folded():
    text = page(claims=claims_table().iloc[[2, 0, 1]])

    before, folded = text.split("<summary>1 claim of which this study has no measurement</summary>")
    assert [finding in before for finding in ("Peaks are lower", "Bowls are wide")] == [True, False]
    assert "Bowls are wide" in folded
    (tally,) = re.findall(r'<ul class="tally">(.*?)</ul>', text, flags=re.DOTALL)
    assert re.findall(r"([a-z ]+): (\d)</li>", tally) == [
        ("holds", "1"),
        ("does not hold", "1"),
        ("undecided", "0"),
        ("not measured", "1"),
    ]


@pytest.mark.parametrize("found", [{"seeds": 1}, {"diverged": 2}, {"measured": "20 ± 1"}])
def test_what_was_measured_is_never_folded(found):
    text = page(claims=claims_table().iloc[[2]].assign(**found))

    assert "no measurement" not in text
    assert "not measured" not in text


def test_an_unknown_verdict_is_refused_by_name():
    with pytest.raises(ValueError, match="maybe"):
        page(claims=claims_table().assign(verdict="maybe"))


def test_what_looks_like_a_tag_is_shown_as_text_wherever_it_stands():
    table = Table("table", f"{ODD}\n\n| a |\n| --- |\n| {ODD} |\n\n<script>alert(1)</script>", Caption("T", ODD))

    text = page(tables=[table])

    assert "<script>alert" not in text
    assert Read(text).text.count("<script>alert(1)</script>") >= 8
    assert "Measured: " + ODD in Read(text).text
    assert "A & B" in Read(text).text


def test_the_library_of_the_interactive_figures_stands_once_and_only_where_it_is_needed():
    library, still = get_plotlyjs(), Picture("peaks", PNG, "Dots", Caption("Peaks", "Look."), "", None)

    assert page().count(library) == 1
    assert "</script" not in library.lower()
    assert page(pictures=[still]).count(library) == 0
    assert [name for name in ("interactive-spectrum", "interactive-slices") if f'id="{name}"' in page()] != []


def test_asks_for_nothing_outside_itself():
    read = Read(page())

    assert read.all("link") == read.all("iframe") == []
    sources = [attributes["src"] for tag, attributes in read.elements if tag != "a" and "src" in attributes]
    assert all(source.startswith("data:") for source in sources)
    styles = re.findall(r"<style>(.*?)</style>", page(), flags=re.DOTALL)
    assert not re.search(r"url\(|@import", "".join(styles))


def test_a_table_scrolls_in_its_own_frame():
    text = page(tables=[Table("table", "**Rows**\n\n| a | b |\n| --- | ---: |\n| 1 | 2 |", Caption("T", "Look."))])

    assert re.search(
        r'<div class="scroll" tabindex="0"><table>.*<td style="text-align: right;">2</td>', text, re.DOTALL
    )
    assert "<strong>Rows</strong>" in text


def test_says_what_ran_what_it_cost_and_how_to_cite_it():
    text = Read(page()).text

    for words in (
        "4 runs",
        "torch 2.0, device cpu, threads 1",
        "python 3.11.2",
        "1,234",
        "1,200",
        "2018-07-13",
        "node7",
    ):
        assert words in text
    assert "The & authors: sharpness. version 1.0." in text


@pytest.mark.parametrize(
    "name",
    [
        "claims",
        *dict.fromkeys(name for kind in KINDS.values() for name in (*kind.figures, kind.result_table) if name),
    ],
)
def test_every_product_has_a_caption_with_a_title(name):
    caption = caption_of((ROOT / "workflow" / "report" / f"{name}.md").read_text())

    assert 5 < len(caption.title) < 70
    assert len(caption.body) > 50


def test_a_caption_without_a_title_is_refused():
    with pytest.raises(ValueError, match="Look here"):
        caption_of("Look here\n")
