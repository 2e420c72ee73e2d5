"""The page of the report, made from invented tables."""

import base64
import gzip
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from figures.invented import (
    density_frame,
    history_frame,
    run_fields,
    slices_frame,
    slices_table,
    spectrum_frame,
    spectrum_table,
    sweep,
)
from PIL import Image
from plotly.offline import get_plotlyjs

from sharpness.analysis.claims.poster import CLAIMS, IN_SHORT
from sharpness.analysis.figures import interactive
from sharpness.report.citing import bibtex
from sharpness.report.costs import Cost
from sharpness.report.embedding import data_uri
from sharpness.report.explorer import Measured
from sharpness.report.making import Source, Workshop
from sharpness.report.overview import panels
from sharpness.report.page import MOST_BYTES, Caption, Chapter, File, Origin, Picture, Table, caption_of, render
from sharpness.report.prose import in_short, rules_of
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
        "unit": "decades",
        "side": "above",
        "threshold": 0.1,
        "part": "",
        "test": "Student's t over seeds against 0.100; at both ends of the bracket",
        "p": 0.012,
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
            **dict.fromkeys(("model", "data", "measured", "test", "unit", "side"), ""),
            **dict.fromkeys(("effect", "low", "high", "threshold", "p"), np.nan),
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


RULES = f"""# How a claim is decided

Rules, {ODD}

| | quantity |
|---|---|
| a, rises | λ₁ |
| a, declines | λ₁ |
| b | {ODD} |
| c | λ₁ |
"""


RUNS = sweep(seeds=(0, 1))
MEASURED = {
    "history": [history_frame(RUNS)],
    "spectrum": [spectrum_frame(RUNS)],
    "density": [density_frame([run_fields()])],
    "slices": [slices_frame([run_fields()])],
}


def workshop(study):
    kinds = {"a": "eigenvalues", "b": "eigenvalues", "c": "slices"}
    sources = [
        Source(
            experiment=kind,
            kind=kind,
            figures=["peaks"],
            tables=[f"{kind}_history"],
            runs=[f"{kind}-run"],
            claimed={f"{kind}-run": ("simple_cnn", "digits")},
            made_by=f"code {ODD}",
        )
        for kind in dict.fromkeys(kinds.values())
    ]
    return Workshop(study, f"workflow/studies/{study}.yaml", sources)


def chapter(study="made_up", *, pictures=None, tables=(), claims=None, brackets="", folder=""):
    caption = Caption("Peaks", f"Look *here*: {ODD}")
    if pictures is None:
        pictures = [
            Picture("peaks", PNG, "Dots and lines", caption, ODD, None),
            Picture(
                "spectrum", PNG, ODD, caption, "Hessian on 65 training images", interactive.spectrum(spectrum_table())
            ),
            Picture("slices", PNG, "A surface", caption, "", interactive.slices(slices_table())),
        ]
    return Chapter(
        study=study,
        claims=claims_table() if claims is None else claims,
        panels=panels(MEASURED["spectrum"]),
        pictures=pictures,
        tables=tables,
        brackets=brackets,
        origin=origin(),
        measured=Measured(workshop(study), folder, MEASURED),
        plan=f"study: {study} # {ODD}",
        files=[File("tables/claims.csv", 1234), File("figures/peaks.pdf", 2_345_678)],
    )


def page(**changes):
    return page_of(chapter(**changes))


def page_of(*chapters):
    return render(
        chapters,
        claims_caption=Caption("Findings", "Each row is one claim."),
        rules=RULES,
        citation={"title": "sharpness", "version": "1.0", "authors": [{"name": "The & authors"}]},
        citation_file=f"title: {ODD}",
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


def test_the_list_of_figures_tells_those_of_one_kind_apart():
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


def test_the_picture_comes_first_then_findings_explorer_figures_tables_data_and_what_ran():
    text = page(tables=[Table("table", "text", Caption("Table", "Look."))])

    sections = ("findings", "explore", "figures", "tables", "data", "origin", "citing")
    places = [text.index("data-overview"), *(text.index(f'<section id="{name}">') for name in sections)]
    assert places == sorted(places)


def test_without_a_setting_that_varies_the_first_figure_is_the_picture():
    text = render_with(panels=())

    assert "data-overview" not in text.partition("</style>")[2].partition("<script>")[0]
    assert text.index("<img") < text.index('<section id="findings">')


def render_with(**changes):
    return page_of(replace(chapter(), **changes))


def test_every_figure_is_embedded_with_its_size_and_its_alternative_text():
    images = Read(page()).all("img")

    assert [image["alt"] for image in images] == ["Dots and lines", ODD, "A surface"]
    assert all(image["src"].startswith("data:image/png;base64,iVBOR") for image in images)
    assert all((image["width"], image["height"]) == ("1", "1") for image in images)


def rows_of(text):
    return re.findall(r'<tr id="claim-\d+"[^>]*>(.*?)</tr>', text, flags=re.DOTALL)


def test_every_claim_is_shown_with_its_verdict_its_test_and_its_effect_against_the_threshold():
    rows = rows_of(page())

    assert len(rows) == 3
    for row, (symbol, verdict, effect) in zip(
        rows,
        [("✓", "holds", "0.360 decades (0.300 to 0.420)"), ("✗", "does not hold", "0.36"), ("?", "undecided", "")],
        strict=True,
    ):
        shown = " ".join(Read(row).text.split())
        assert shown.startswith(f"{symbol}{verdict}")
        assert effect in shown
    first, second, third = (" ".join(Read(row).text.split()) for row in rows)
    assert first.startswith("✓holds Student's t against 0.100, p = 0.0120 3 confirming seeds")
    assert "claimed: above 0.1" in first
    assert "3 confirming seeds; 1 diverged run" in second
    assert "nan" not in third
    assert [row.count("<circle") for row in rows] == [1, 1, 0]


def test_every_claim_has_links_to_its_figure_and_its_rule_and_says_how_its_number_was_made():
    text = page()
    first = rows_of(text)[0]

    assert 'href="#figure-peaks"' in first
    assert 'href="#rule-a"' in first
    assert text.count('id="rule-a"') == 1
    words = " ".join(Read(first).text.split())
    command = "snakemake -c all results/made_up/tables/claims.csv --configfile workflow/studies/made_up.yaml"
    for part in ("How was this number made?", command, "eigenvalues_history.csv", "eigenvalues-run", f"code {ODD}"):
        assert part in words


def test_where_the_rules_are_not_at_hand_each_claim_has_its_own_in_short():
    assert re.findall(r'id="rule-(\w)"', rules_of(in_short())) == list(CLAIMS)


def test_the_rules_of_the_documentation_have_a_target_for_every_claim():
    html = rules_of((ROOT / "docs/claims.md").read_text())
    assert sorted(re.findall(r'id="rule-(\w)"', html)) == list(CLAIMS)


def test_the_rules_have_a_target_for_each_claim_once():
    html = rules_of("| | quantity |\n|---|---|\n| a, rises | x |\n| a, declines | y |\n| g | z |\n\n| g | again |")

    assert re.findall(r'id="rule-(\w)"', html) == ["a", "g"]


def test_networks_and_data_have_the_names_that_people_know():
    text = Read(page()).text

    assert "SimpleCNN, digits" in text
    assert "training runs, SimpleCNN, digits, 1,300 images." in " ".join(text.split())


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
    assert all(f"{words[0].upper()}{words[1:]}" in shown for words in IN_SHORT.values())


def test_a_study_that_no_claim_is_about_says_so():
    text = page(claims=claims_table().iloc[:0])

    assert "None of the poster's claims is about what was trained and measured here." in text
    (tally,) = re.findall(r'<ul class="tally">(.*?)</ul>', text, flags=re.DOTALL)
    assert re.findall(r"([a-z ]+): (\d)</li>", tally) == [("holds", "0"), ("does not hold", "0"), ("undecided", "0")]
    assert '<table class="forest">' not in text


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


def unpacked(text, name):
    (found,) = re.findall(rf'<script type="text/plain" id="{name}">(.*?)</script>', text)
    return gzip.decompress(base64.b64decode(found)).decode()


@pytest.mark.slow
def test_the_library_of_the_interactive_figures_stands_once_packed_and_only_where_it_is_needed():
    still = Picture("peaks", PNG, "Dots", Caption("Peaks", "Look."), "", None)

    assert unpacked(page(), "plotly") == get_plotlyjs()
    assert 'id="plotly"' not in page(pictures=[still])
    assert re.findall(r'id="interactive-(\w+)"', page()) == ["spectrum", "slices"]


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
    assert "@software{" in text
    assert f"title: {ODD}" in text  # CITATION.cff


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


def test_a_paper_and_the_software_are_cited_by_plain_keys():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,) = citation["references"]

    assert bibtex(citation).startswith("@software{sharpness,\n  author = {{")
    lines = bibtex(paper).splitlines()
    assert lines[0] == "@inproceedings{jastrzebski2019,"
    assert lines[1] == (
        "  author = {Jastrzębski, Stanisław and Kenton, Zachary and Ballas, Nicolas and Fischer, Asja and "
        "Bengio, Yoshua and Storkey, Amos},"
    )


def test_every_table_and_figure_is_linked_beside_the_page_and_so_is_the_studys_file():
    text = page(folder="../made_up/")
    links = [link["href"] for link in Read(text).all("a")]

    assert {"../made_up/tables/claims.csv", "../made_up/figures/peaks.pdf", "../made_up/study.yaml"} <= set(links)
    assert "1 kB" in text
    assert "2.3 MB" in text
    assert f"study: made_up # {ODD}" in Read(text).text


def test_several_studies_stand_in_one_page_under_their_own_names():
    text = page_of(chapter("first"), chapter("second", folder="../second/"))
    read = Read(text)

    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"first-figure-peaks", "second-figure-peaks", "first-data", "second-data"} <= set(ids)
    targets = [link["href"] for link in read.all("a") if link["href"].startswith("#")]
    assert {target.removeprefix("#") for target in targets} <= set(ids)
    rows = [" ".join(Read(row).text.split()) for row in rows_of(text)]
    # The same claim of both studies, one below the other.
    assert [("first:" in row, "second:" in row) for row in rows[:4]] == [(True, False), (False, True)] * 2
    assert text.count('id="plotly"') == 1
    assert {run["study"] for run in json.loads(unpacked(text, "explorer-data"))["runs"]} == {0, 1}


def test_a_study_stands_in_a_page_once():
    with pytest.raises(ValueError, match="each study once, got same 2 times"):
        page_of(chapter("same"), chapter("same"))


@pytest.mark.slow
def test_a_page_too_large_leaves_out_what_is_drawn_elsewhere_and_then_refuses(monkeypatch):
    whole = page()
    assert len(whole.encode()) < MOST_BYTES == 10_000_000
    assert 'id="plotly"' in whole
    assert 'id="explorer-data"' in whole

    monkeypatch.setattr("sharpness.report.page.MOST_BYTES", 500_000)
    large = page()
    assert len(large.encode()) <= 500_000
    assert 'id="plotly"' not in large
    assert 'class="interactive"' not in large
    assert 'id="explorer-data"' in large  # smaller, and nowhere else to be had

    monkeypatch.setattr("sharpness.report.page.MOST_BYTES", 20_000)
    with pytest.raises(ValueError, match="the figures of made_up are too large for one page of 20,000 bytes"):
        page()


def test_an_image_is_embedded_with_fewer_colours_where_that_is_smaller():
    whole = next(iter((ROOT / "results/digits/published/figures").glob("*.png"))).read_bytes()

    embedded = base64.b64decode(data_uri(whole).partition(",")[2])

    assert len(embedded) < len(whole) / 2
    before, after = (np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), float) for image in (whole, embedded))
    assert abs(before - after).mean() < 2
    assert data_uri(PNG).endswith(base64.b64encode(PNG).decode())
