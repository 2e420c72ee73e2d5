"""A study's report: findings, figures, tables and provenance as one page of HTML that needs no other file."""

from __future__ import annotations

import base64
import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import markdown
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from sharpness.analysis.claims.deciding import RULES
from sharpness.analysis.claims.wording import number
from sharpness.analysis.figures import palette
from sharpness.report.costs import Cost
from sharpness.report.provenance import Host, Training
from sharpness.study.naming import subject

TEMPLATE = Path(__file__).with_name("report.html.jinja")
# Verdicts as a reader finds them at a glance: a symbol and a colour beside the word, and in this order.
SYMBOLS = {"holds": "✓", "does not hold": "✗", "undecided": "?"}
COLOURS = {"holds": palette.BLUE, "does not hold": palette.RED, "undecided": palette.GREY}
CAPTION = re.compile(r"# (?P<title>[^\n]+)\n\n(?P<body>.+)", re.DOTALL)


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


def caption_of(text: str) -> Caption:
    """Read a caption: a line with its title, an empty one, and its text."""
    found = CAPTION.fullmatch(text)
    if found is None:
        raise ValueError(f"a caption must begin with a line '# title' and an empty one, got {text[:60]!r}")
    return Caption(**found.groupdict())


def render(
    study: str,
    *,
    claims: pd.DataFrame,
    claims_caption: Caption,
    pictures: Sequence[Picture],
    tables: Sequence[Table],
    brackets: str,
    origin: Origin,
    citation: Mapping[str, Any],
    digest: str = "",
) -> str:
    """The page.

    Args:
        study: its name.
        claims: columns claim, finding, model, data, configuration, quantity, measured, effect, low, high, test, seeds,
            seeds_are, exploring, diverged, verdict, would_decide.
        claims_caption: what to look at in them.
        pictures: all figures, in order.
        tables: all tables of results, in order.
        brackets: how far the eigenvalues of the whole training set may lie from those that were measured; may be empty.
        origin: what ran.
        citation: the content of CITATION.cff.
        digest: of the study, kept in the head of the page.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "markdown": _html,
        "plotly": _interactive,
        "data_uri": _data_uri,
        "size": _size,
    }
    rows = _claims(claims)
    measured = [row for row in rows if _is_measured(row)]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        study=study,
        digest=digest,
        measured=measured,
        not_measured=[row for row in rows if not _is_measured(row)],
        claims_caption=claims_caption,
        rules=RULES,
        verdicts=Counter(row["verdict"] for row in measured),
        symbols=SYMBOLS,
        colours=COLOURS,
        pictures=pictures,
        tables=tables,
        brackets=brackets,
        origin=origin,
        references=[_reference(entry) for entry in (citation, *citation.get("references", ()))],
        # Once for all interactive figures.
        plotly_library=get_plotlyjs() if any(picture.interactive is not None for picture in pictures) else "",
    )


def _claims(claims: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows for the template: texts, the interval of the effect as one; what is not known is empty."""
    unknown = set(claims["verdict"]) - set(SYMBOLS)
    if unknown:
        raise ValueError(f"a verdict must be one of {', '.join(SYMBOLS)}, got {', '.join(map(str, unknown))}")
    rows = claims.astype(object).where(claims.notna(), "").to_dict("records")
    return [
        {
            **row,
            "number": index,
            "subject": _subject(row),
            "effect": _number(row["effect"]),
            "interval": _interval(row["low"], row["high"]),
        }
        for index, row in enumerate(rows, 1)
    ]


def _subject(row: Mapping[str, Any]) -> str:
    return subject(row["model"], row["data"]) if row["model"] else ""


def _is_measured(claim: Mapping[str, Any]) -> bool:
    """Whether the study has anything to say on a claim, be it that all runs diverged."""
    return bool(claim["seeds"] or claim["diverged"] or claim["measured"])


def _number(value: Any) -> str:
    return "" if value == "" else number(value)


def _interval(low: Any, high: Any) -> str:
    return "" if "" in (low, high) else f"{number(low)} to {number(high)}"


def _html(text: str) -> str:
    converter = markdown.Markdown(extensions=["tables"], output_format="html")
    # What looks like a tag is text.
    converter.preprocessors.deregister("html_block")
    converter.inlinePatterns.deregister("html")
    html = str(converter.convert(text))
    # A table wider than the screen scrolls in a frame of its own, with a finger or with the keyboard.
    return html.replace("<table>", '<div class="scroll" tabindex="0"><table>').replace("</table>", "</table></div>")


def _interactive(figure: go.Figure, name: str) -> str:
    # The only button worth its place: a surface that was turned too far goes back.
    is_surface = any(trace.type == "surface" for trace in figure.data)
    buttons = {"displayModeBar": is_surface, "modeBarButtons": [["resetCameraDefault3d"]]}
    settings = {"displaylogo": False, "responsive": True, "scrollZoom": False, **buttons}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=settings))


def _data_uri(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def _size(image: bytes) -> dict[str, int]:
    """Width and height of a PNG, which stand at the beginning of its header."""
    width, height = struct.unpack(">II", image[16:24])
    return {"width": width, "height": height}


def _reference(entry: Mapping[str, Any]) -> str:
    """One entry of a CITATION.cff in a line: authors, title, where and when."""
    authors = ", ".join(
        author["name"] if "name" in author else f"{author['given-names']} {author['family-names']}"
        for author in entry["authors"]
    )
    place = entry.get("conference", {}).get("name", "")
    version = f"version {entry['version']}" if "version" in entry else ""
    identifiers = [identifier["value"] for identifier in entry.get("identifiers", ())]
    details = ", ".join(str(part) for part in (place, version, entry.get("year", ""), *identifiers) if part)
    return f"{authors}: {entry['title']}. {details}."
