"""The precisions of the passes over a network, by name. No torch: studies name them too."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float64", "float32", "tf32", "bfloat16"]
# Of the passes over the network, where it is less than that of the weights.
LowPrecision = Literal["tf32", "bfloat16"]


def low_precision(precision: Precision) -> LowPrecision | None:
    """What is less precise than the weights at this ``precision`` of an operator: the passes, or nothing."""
    return precision if precision in ("tf32", "bfloat16") else None
