"""By what a table is known for what it is: digests of its settings and of its cells, and its size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

# In every row of a table: rows x columns as it was written, and a digest of all other cells. By it we know a table that
# was cut short or edited since.
SIZE = "table_size"
# Before the columns of a measurement: of which run, by which settings, at which checkpoint; and why there is no value.
PLACE = ("run", "settings", "checkpoint", "step", "epoch", "diverged", "stopped", "trained_by")
PLACE_IN_A_HISTORY = ("run", "step", "epoch", "diverged")
# Behind them: what computed them, and of what.
MADE_BY = ("settings_digest", "code", "torch", "device", "threads", "kernels", "data_digest")
NOTHING = "nothing_measured"  # the last column, in place of the size, of a table without rows


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
    """Add the size and the digest of the table to each row."""
    rows = list(rows)
    columns = [column for column in dict.fromkeys(column for row in rows for column in row) if column != SIZE]
    size = f"{len(rows)}x{len(columns) + 1} {cells_digest(rows, columns)}"
    return [{**row, SIZE: size} for row in rows]


def cells_digest(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> str:
    """Hash the cells of a table as CSV has them: a missing value is empty, the size itself is left out."""
    columns = [column for column in columns if column != SIZE]
    digest = hashlib.sha256("\x1f".join(columns).encode())
    for row in rows:
        cells = (row.get(column) for column in columns)
        digest.update("\x1f".join(["\n", *("" if cell is None else str(cell) for cell in cells)]).encode())
    return digest.hexdigest()[:8]
