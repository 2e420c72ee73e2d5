"""Names of the precisions of passes over a network. Without torch, since planning imports it."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float64", "float32", "tf32", "bfloat16"]
# Precision of the passes that is lower than that of the weights.
LowPrecision = Literal["tf32", "bfloat16"]


def low_precision(precision: Precision) -> LowPrecision | None:
    """Precision of the passes if ``precision`` makes it lower than that of the weights, else None."""
    return precision if precision in ("tf32", "bfloat16") else None
