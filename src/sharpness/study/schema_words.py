"""Words that name what would be right in the place of a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def known_words(word: str, known: Iterable[str]) -> str:
    """List the known words, and the nearest one."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"known are {', '.join(known)}" + (f" (did you mean {near[0]}?)" if near else "")
