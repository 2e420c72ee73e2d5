"""Regular expressions for Snakemake's wildcards."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby


def any_of(names: Iterable[str]) -> str:
    """Return an expression that matches exactly these names; "" for none.

    What names begin with in common stands there once: Snakemake compiles the expression for each output of each rule,
    and the names of a thousand runs written in full are a hundred thousand characters.
    """
    words = sorted(set(names))
    return _branch(words) if words else ""


def _branch(words: list[str]) -> str:
    """Match these different words, which are sorted."""
    pairs = enumerate(zip(words[0], words[-1], strict=False))
    length = next((index for index, (first, last) in pairs if first != last), len(words[0]))
    prefix, rests = words[0][:length], [word[length:] for word in words]
    if len(rests) == 1:
        return re.escape(prefix)
    branches = [_branch([*group]) for first, group in groupby(rests, key=lambda rest: rest[:1]) if first]
    return f"{re.escape(prefix)}(?:{'|'.join(branches)}){'' if rests[0] else '?'}"
