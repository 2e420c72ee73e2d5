"""Markdown as HTML for the report."""

from __future__ import annotations

import re

import markdown

from sharpness.analysis.claims.deciding import RULES
from sharpness.analysis.claims.poster import CLAIMS


def html_of(text: str) -> str:
    """Markdown as HTML; what looks like a tag is text, and a wide table scrolls in a frame of its own."""
    converter = markdown.Markdown(extensions=["tables"], output_format="html")
    converter.preprocessors.deregister("html_block")
    converter.inlinePatterns.deregister("html")
    html = str(converter.convert(text))
    # With a finger or with the keyboard.
    return html.replace("<table>", '<div class="scroll" tabindex="0"><table>').replace("</table>", "</table></div>")


def in_short() -> str:
    """The rules by which claims are decided, in Markdown: what all share, and what is compared for each."""
    rows = [f"| {letter} | {claim.quantity} |" for letter, claim in CLAIMS.items()]
    return "\n".join([RULES, "| Claim | What is compared |", "|---|---|", *rows]) + "\n"


def rules_of(text: str) -> str:
    """The rules by which claims are decided, their headings two levels down, the first row of each claim a target."""
    html = re.sub(r"(</?h)([1-4])>", lambda match: f"{match[1]}{int(match[2]) + 2}>", html_of(text))
    seen: set[str] = set()

    def named(match: re.Match[str]) -> str:
        letters = [letter for letter in re.split(r"[^a-z]+", match[1]) if len(letter) == 1 and letter not in seen]
        seen.update(letters)
        targets = "".join(f'<span id="rule-{letter}"></span>' for letter in letters)
        return f"<tr>\n<td>{targets}{match[1]}</td>"

    return re.sub(r"<tr>\n<td>([a-z](?:, [a-z]+)*)</td>", named, html)
