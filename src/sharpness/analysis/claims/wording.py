"""Numbers as a person reads them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

import numpy as np
import pandas as pd


def rounded(value: float) -> float:
    """To twelve digits: in the last of double precision, processors differ, which add up in another order."""
    return float(f"{value:.12g}")


def number(value: float) -> str:
    """Three significant digits, without an exponent where that can be read."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else f"{value:g}"
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:,.{_decimals(value)}f}"


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation of the finite values, to as many decimals as the mean has."""
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if not len(known):
        return "–"
    mean = float(known.mean())
    if len(known) == 1:
        return number(mean)
    deviation = float(known.std(ddof=1))
    readable = not mean or 1e-3 <= abs(mean) < 1e6
    return f"{number(mean)} ± " + (f"{deviation:,.{_decimals(mean)}f}" if readable else f"{deviation:.1e}")


def per_setting(table: pd.DataFrame, setting: str, *, lost: pd.DataFrame | None = None, beyond: str = "beyond") -> str:
    """The spread over seeds at each setting: ``learning rate 0.1: 20.0 ± 1.5, 0.01: 55.1 ± 2.0 (1 diverged)``.

    Args:
        table: [seeds, settings]; infinite where the value lies beyond what was looked at.
        setting: what the columns are.
        lost: of the same shape, which runs diverged; None: none.
        beyond: what an infinite value is called.
    """
    cells = []
    for column in table:
        values = table[column] if lost is None else table[column].where(~lost[column])
        counts = {beyond: int(np.isposinf(values).sum()), "diverged": 0 if lost is None else int(lost[column].sum())}
        told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        cells.append(f"{setting_text(column)}: {spread(values)}{f' ({told})' if told else ''}")
    return f"{setting.replace('_', ' ')} {', '.join(cells)}".strip() if cells else "no values"


def setting_text(value: object) -> str:
    """A setting's value as it is written in the config; the full batch is the infinite one."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if not isinstance(value, numbers.Real):
        return str(value)
    if not math.isfinite(value):
        return "null" if math.isnan(value) else "full"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:g}"


def _decimals(value: float) -> int:
    return max(0, 2 - math.floor(math.log10(abs(value)))) if value else 2
