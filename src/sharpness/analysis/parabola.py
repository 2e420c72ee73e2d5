"""The parabola through what steps of several lengths change, and where it is lowest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

SHORTEST, LONGEST = 0.05, 2.0  # what a minimiser may be


@dataclass(frozen=True)
class Parabola:
    """``curvature α² + slope α``: without a step nothing changes."""

    curvature: float
    slope: float

    def at(self, factors: ArrayLike) -> np.ndarray:
        """Its values at some factors, of their shape."""
        alphas = np.asarray(factors, dtype=float)
        values: np.ndarray = (self.curvature * alphas + self.slope) * alphas
        return values

    @property
    def minimiser(self) -> float:
        """The factor at which it is lowest, from ``SHORTEST`` to ``LONGEST``: the latter if it opens downwards."""
        if not self.curvature > 0:
            return LONGEST
        return float(np.clip(-self.slope / (2 * self.curvature), SHORTEST, LONGEST))


def parabola_through(factors: ArrayLike, changes: ArrayLike) -> Parabola:
    """Fit the parabola through zero by least squares.

    Args:
        factors: [n], on the step, at least two different ones above 0.
        changes: [n], of the loss after each.
    """
    alphas = np.asarray(factors, dtype=float)
    powers = np.stack([alphas**2, alphas], axis=1)
    curvature, slope = np.linalg.lstsq(powers, np.asarray(changes, dtype=float), rcond=None)[0]
    return Parabola(float(curvature), float(slope))
