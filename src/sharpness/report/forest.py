"""The forest plot of all claims: each effect with its interval against the threshold that decides it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sharpness.analysis.claims.wording import number

_WORDS = {"above": "above", "below": "below", "either side": "other than", "within": "within ±"}


@dataclass(frozen=True)
class Mark:
    """Where one effect lies in its plot, in per cent of the width: the threshold in the middle, the claimed side right.

    Of a claim that two are alike, zero stands in the middle and the claimed side reaches from margin to margin.
    """

    effect: float
    low: float  # of the interval; NaN where one seed has none
    high: float
    is_cut_low: bool  # the interval reaches farther than the plot
    is_cut_high: bool
    claimed: tuple[float, float]  # where the claim sees the effect
    zero: float | None  # no effect, where that is not the middle and in sight

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval to draw."""
        return self.low == self.low


def marks(claims: pd.DataFrame) -> list[Mark | None]:
    """A mark for each row of the table of claims; None where nothing was compared.

    Effects of one unit have one scale: from the threshold to the farthest effect, and as far as half of the intervals.

    Args:
        claims: columns effect, low, high, unit, side, threshold.
    """
    reach = {unit: _reach(rows) for unit, rows in claims.groupby("unit")}
    return [
        _mark(row, reach[row["unit"]]) if row["side"] in _WORDS and np.isfinite(row["effect"]) else None
        for row in claims.to_dict("records")
    ]


def _centre(row: Mapping[str, Any]) -> float:
    return float(row["threshold"]) if row["side"] in ("above", "below") else 0.0


def _reach(rows: pd.DataFrame) -> float:
    """How far from the middle the plots of one unit reach."""
    centres = np.array([_centre(row) for row in rows.to_dict("records")])
    effects = (rows["effect"] - centres).abs()
    ends = np.maximum((rows["low"] - centres).abs(), (rows["high"] - centres).abs())
    margins = rows["threshold"].where(rows["side"] == "within")
    farthest = [1.3 * effects.max(), 1.3 * margins.max(), ends.replace(np.inf, np.nan).median()]
    known = [distance for distance in farthest if np.isfinite(distance) and distance > 0]
    return float(max(known, default=1.0))


def _mark(row: Mapping[str, Any], reach: float) -> Mark:
    centre, direction = _centre(row), -1.0 if row["side"] == "below" else 1.0

    def place(value: float) -> float:
        return 50 + 50 * direction * (value - centre) / reach

    low, high = sorted((place(row["low"]), place(row["high"])))
    zero = place(0.0)
    margin = 50 * row["threshold"] / reach
    claimed = {"within": (50 - margin, 50 + margin), "either side": (0.0, 100.0)}.get(row["side"], (50.0, 100.0))
    return Mark(
        effect=float(np.clip(place(row["effect"]), 0, 100)),
        low=float(np.clip(low, 0, 100)),
        high=float(np.clip(high, 0, 100)),
        is_cut_low=low < 0,
        is_cut_high=high > 100,
        claimed=claimed,
        zero=zero if zero != 50 and 0 <= zero <= 100 else None,
    )


def threshold_in_words(row: Mapping[str, Any]) -> str:
    """``claimed: above 0.301``; nothing where nothing was compared."""
    if row["side"] not in _WORDS:
        return ""
    word = _WORDS[row["side"]]
    return f"claimed: {word}{'' if word.endswith('±') else ' '}{_short(row['threshold'])}"


def _short(value: float) -> str:
    return f"{value:g}" if float(value).is_integer() else number(value)


def scales_in_words(rows: Iterable[Mapping[str, Any]]) -> str:
    """The units of some claims, each once: effects of one unit are drawn to one scale."""
    return ", ".join(dict.fromkeys(str(row["unit"]) for row in rows if row["unit"]))
