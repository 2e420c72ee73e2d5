"""The report of one study or of several: findings, figures, tables and provenance as one page that needs no other."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sharpness.analysis.claims.deciding import decided_by
from sharpness.analysis.claims.poster import IN_SHORT
from sharpness.analysis.claims.wording import number
from sharpness.analysis.figures import palette
from sharpness.report import embedding
from sharpness.report.cells import Cells, linked
from sharpness.report.citing import bibtex, reference
from sharpness.report.costs import Cost
from sharpness.report.explorer import Measured, explorer
from sharpness.report.forest import marks, threshold_in_words
from sharpness.report.overview import Panel
from sharpness.report.prose import html_of, rules_of
from sharpness.report.provenance import Host, Training
from sharpness.study.naming import subject

ASSETS = Path(__file__).parent
TEMPLATE = "report.html.jinja"
# Verdicts as a reader finds them at a glance: a symbol and a colour beside the word, and in this order.
SYMBOLS = {"holds": "✓", "does not hold": "✗", "undecided": "?"}
COLOURS = {"holds": palette.BLUE, "does not hold": palette.RED, "undecided": palette.GREY}
CAPTION = re.compile(r"# (?P<title>[^\n]+)\n\n(?P<body>.+)", re.DOTALL)
MOST_BYTES = 10_000_000  # of the page


@dataclass(frozen=True)
class Caption:
    """What a product shows and what to look at: Markdown."""

    title: str
    body: str


@dataclass(frozen=True)
class Picture:
    """A figure."""

    name: str
    image: bytes  # PNG
    alt: str  # what is drawn, for those who do not see it
    caption: Caption
    measured: str  # what was measured on what
    interactive: go.Figure | None


@dataclass(frozen=True)
class Table:
    """A table of results."""

    name: str
    text: str  # Markdown
    caption: Caption
    cells: Cells = field(default_factory=lambda: Cells((), ()))  # where they come from


@dataclass(frozen=True)
class Origin:
    """What ran, where and when, and what it cost."""

    training: Training
    hosts: Sequence[Host]
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    commit: str
    date: str
    costs: Sequence[Cost]


@dataclass(frozen=True)
class File:
    """A file beside the page."""

    name: str
    size: int  # bytes


@dataclass(frozen=True)
class Chapter:
    """All that one study found."""

    study: str
    claims: pd.DataFrame  # as ``decide`` returns it
    panels: Sequence[Panel]  # that it begins with
    pictures: Sequence[Picture]
    tables: Sequence[Table]
    brackets: str  # how far the eigenvalues of the whole training set may lie from those measured; may be empty
    origin: Origin
    measured: Measured  # what is explored, and how numbers were made
    plan: str  # the study's file, with every value
    files: Sequence[File]  # by their names in the study's folder


def caption_of(text: str) -> Caption:
    """Read a caption: a line with its title, an empty one, and its text."""
    found = CAPTION.fullmatch(text)
    if found is None:
        raise ValueError(f"a caption must begin with a line '# title' and an empty one, got {text[:60]!r}")
    return Caption(**found.groupdict())


def render(
    chapters: Sequence[Chapter],
    *,
    claims_caption: Caption,
    rules: str,
    citation: Mapping[str, Any],
    citation_file: str = "",
    digest: str = "",
) -> str:
    """The page, of ``MOST_BYTES`` at most.

    Args:
        chapters: one per study, at least one.
        claims_caption: what to look at in the verdicts.
        rules: by which claims are decided, Markdown.
        citation: the content of CITATION.cff.
        citation_file: its text.
        digest: of the study, kept in the head of the page.

    Raises:
        ValueError: two studies have one name, or the figures are too large for a page.
    """
    names = [chapter.study for chapter in chapters]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"a page has each study once, got {twice[0]} {names.count(twice[0])} times")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "markdown": lambda text: Markup(html_of(text)),
        "linked": lambda html, cells, target: Markup(linked(html, cells, target)),
        "json": lambda value: Markup(embedding.json_in_html(value)),
        "data_uri": embedding.data_uri,
        "size": embedding.size,
        "plotly": _interactive,
        "bytes": _bytes,
    }
    rows = _claims(chapters)
    template = environment.get_template(TEMPLATE)
    # What a page of this size cannot hold is left out in this order; the tables beside it have all of it.
    for num_ranks, is_interactive in ((30, True), (5, True), (5, False), (1, False), (0, False)):
        has_plots = is_interactive and any(
            picture.interactive is not None for chapter in chapters for picture in chapter.pictures
        )
        page = template.render(
            chapters=chapters,
            num_runs=sum(sum(chapter.origin.training.environments.values()) for chapter in chapters),
            subjects=list(dict.fromkeys(name for chapter in chapters for name in chapter.origin.training.subjects)),
            prefix={name: f"{name}-" if len(chapters) > 1 else "" for name in names},
            digest=digest,
            measured=rows,
            claims_caption=claims_caption,
            rules=Markup(rules_of(rules)),
            verdicts=Counter(row["verdict"] for row in rows),
            chips={chapter.study: _chips(chapter, rows) for chapter in chapters},
            symbols=SYMBOLS,
            colours=COLOURS,
            references=[reference(entry) for entry in (citation, *citation.get("references", ()))],
            bibtex="\n".join(bibtex(entry) for entry in (citation, *citation.get("references", ()))),
            citation_file=citation_file,
            explorer=_explored(chapters, num_ranks),
            plotly=embedding.packed(get_plotlyjs()) if has_plots else "",
            asset=lambda name: Markup((ASSETS / name).read_text(encoding="utf-8")),
        )
        if len(page.encode()) <= MOST_BYTES:
            return str(page)
    raise ValueError(
        f"the figures of {', '.join(names)} are too large for one page of {MOST_BYTES:,} bytes: make a page of fewer "
        "studies"
    )


def _explored(chapters: Sequence[Chapter], num_ranks: int) -> str:
    """What the explorer shows, packed; empty where there is nothing, or no room."""
    data = explorer([chapter.measured for chapter in chapters], num_ranks=num_ranks) if num_ranks else {"runs": []}
    return embedding.packed(json.dumps(data, separators=(",", ":"))) if data["runs"] else ""


def _claims(chapters: Sequence[Chapter]) -> list[dict[str, Any]]:
    """The rows of all studies for the template, by claim: texts, marks and links; what is not known is empty."""
    tables = [chapter.claims.assign(study=chapter.study) for chapter in chapters]
    together = pd.concat(tables).sort_values("claim", kind="stable", ignore_index=True)
    if unknown := set(together["verdict"]) - set(SYMBOLS):
        raise ValueError(f"a verdict must be one of {', '.join(SYMBOLS)}, got {', '.join(map(str, unknown))}")
    drawn = marks(together)
    workshops = {chapter.study: chapter.measured.workshop for chapter in chapters}
    pictures = {chapter.study: {picture.name for picture in chapter.pictures} for chapter in chapters}
    tables_shown = {chapter.study: {table.name for table in chapter.tables} for chapter in chapters}
    rows = together.astype(object).where(together.notna(), "").to_dict("records")
    found = []
    for index, (row, mark) in enumerate(zip(rows, drawn, strict=True), 1):
        workshop = workshops[row["study"]]
        sources = workshop.for_claim(row["claim"], row["model"], row["data"])
        figures = [name for source in sources for name in source.figures[:1] if name in pictures[row["study"]]]
        found.append(
            {
                **row,
                "number": index,
                "sentence": IN_SHORT.get(row["claim"], row["finding"]),
                "subject": subject(row["model"], row["data"]) if row["model"] else "",
                "effect": "" if row["effect"] == "" else number(row["effect"]),
                "interval": "" if "" in (row["low"], row["high"]) else f"{number(row['low'])} to {number(row['high'])}",
                "threshold": threshold_in_words(row),
                "decided_by": decided_by(row),
                "wanted": _wanted(row),
                "mark": mark,
                "figures": figures,
                "tables": [source.experiment for source in sources if source.experiment in tables_shown[row["study"]]],
                "making": workshop.of_claim(row["claim"], row["model"], row["data"]),
            }
        )
    return found


def _wanted(row: Mapping[str, Any]) -> str:
    """``more seeds``: the first thing that would decide a claim, without the numbers."""
    first = str(row["would_decide"]).partition("; ")[0]
    return first.removeprefix(f"{row['part']}: ").partition(":")[0]


def _chips(chapter: Chapter, rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """For each panel that a study begins with, the verdicts on the claims that it bears on."""
    own = [row for row in rows if row["study"] == chapter.study]
    return [
        [next(row for row in own if row["claim"] == claim) for claim in panel.claims if _has(own, claim)]
        for panel in chapter.panels
    ]


def _has(rows: Sequence[Mapping[str, Any]], claim: str) -> bool:
    return any(row["claim"] == claim for row in rows)


def _interactive(figure: go.Figure) -> dict[str, Any]:
    # The only button worth its place: a surface that was turned too far goes back.
    is_surface = any(trace.type == "surface" for trace in figure.data)
    buttons = {"displayModeBar": is_surface, "modeBarButtons": [["resetCameraDefault3d"]]}
    settings = {"displaylogo": False, "responsive": True, "scrollZoom": False, **buttons}
    return {**json.loads(figure.to_json()), "config": settings}


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"
