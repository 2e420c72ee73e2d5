"""By what a table is known for what it is: the digest of the settings that it was measured with, and its own size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

SIZE = "table_size"  # rows x columns of the table as it was written, in every row: what is cut short is known by it


def settings_digest(settings: Mapping[str, Any], later: Mapping[str, Any] | None = None) -> str:
    """Hash settings, the same for 1 and 1.0, and for any order of the keys.

    Args:
        settings: by key.
        later: keys that were added once there were results, each with the value that these have: at it, the hash is
            that of settings without the key.
    """
    told = {key: value for key, value in settings.items() if (later or {}).get(key) != value}
    text = "; ".join(f"{key} {_canonical(value)}" for key, value in sorted(told.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _canonical(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_canonical, value))
    return repr(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def sized(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add the size of the table to each row."""
    rows = list(rows)
    columns = {column for row in rows for column in row} | {SIZE}
    return [{**row, SIZE: f"{len(rows)}x{len(columns)}"} for row in rows]
