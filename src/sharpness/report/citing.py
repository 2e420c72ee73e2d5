"""How to cite the project and what it rests on, from its CITATION.cff."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any


def reference(entry: Mapping[str, Any]) -> str:
    """One entry of a CITATION.cff in a line: authors, title, where and when."""
    authors = ", ".join(_name(author) for author in entry["authors"])
    place = entry.get("conference", {}).get("name", "")
    version = f"version {entry['version']}" if "version" in entry else ""
    identifiers = [identifier["value"] for identifier in entry.get("identifiers", ())]
    details = ", ".join(str(part) for part in (place, version, entry.get("year", ""), *identifiers) if part)
    return f"{authors}: {entry['title']}. {details}."


def bibtex(entry: Mapping[str, Any]) -> str:
    """The same as an entry for BibTeX."""
    is_paper = "conference" in entry
    first = entry["authors"][0]
    name = first.get("family-names", entry["title"]).lower().replace("ł", "l")
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    key = (re.findall(r"[a-z]+", plain) or ["entry"])[0] + str(entry.get("year", ""))
    identifiers = ", ".join(identifier["value"] for identifier in entry.get("identifiers", ()))
    fields = {
        "author": " and ".join(_last_first(author) for author in entry["authors"]),
        "title": f"{{{entry['title']}}}",
        "booktitle": entry.get("conference", {}).get("name", ""),
        "year": entry.get("year", ""),
        "version": entry.get("version", ""),
        "note": identifiers,
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value != ""]
    return "\n".join([f"@{'inproceedings' if is_paper else 'software'}{{{key},", *lines, "}"])


def _name(author: Mapping[str, str]) -> str:
    return author["name"] if "name" in author else f"{author['given-names']} {author['family-names']}"


def _last_first(author: Mapping[str, str]) -> str:
    return f"{{{author['name']}}}" if "name" in author else f"{author['family-names']}, {author['given-names']}"
