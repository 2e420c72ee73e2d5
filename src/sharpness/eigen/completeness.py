"""Bound the eigenvalues that a search can have missed, with a stated probability.

A search has an orthonormal basis Q [m, P] with A Q' = Q' T + F' C. Let B be the operator A restricted to the
complement of Q. A few Lanczos steps with B, from a random unit vector in that complement, give an upper bound μ on the
eigenvalues of B (``largest_eigenvalue``). T and C then bound the number of eigenvalues of A above any X > μ
(``Spectrum``): since (X - B)^-1 is at most 1 / (X - μ), there are at most as many as T + C' C / (X - μ) has above X, by
Haynsworth's additivity of inertia.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Probability that the statement about missed eigenvalues is wrong, over all random vectors of a search.
FAILURE = 0.001
_BISECTIONS = 60


@dataclass(frozen=True)
class LanczosSequence:
    """Lanczos steps in the complement of a basis, from a random vector."""

    first: int  # index of its first vector in the basis
    dimension: int  # of the complement from which the random vector was drawn
    failure: float  # probability that its bounds are wrong
    norms: list[float] = field(default_factory=list)  # norm of the residual after each step
    _bounds: dict[tuple[int, int], tuple[float, float]] = field(
        default_factory=dict
    )  # cache, by sign and number of steps

    def largest_eigenvalue(self, projected: Tensor, sign: int) -> tuple[float, float]:
        """Largest Ritz value of ``sign`` B, and an upper bound on its eigenvalues.

        Args:
            projected: [m, m], the operator projected onto the basis.
            sign: 1 or -1.
        """
        num_steps = len(self.norms)
        if (sign, num_steps) not in self._bounds:
            steps = slice(self.first, self.first + num_steps)
            values = torch.linalg.eigvalsh(sign * projected[steps, steps])
            bound = largest_eigenvalue(values, self.norms, dimension=self.dimension, failure=self.failure)
            self._bounds[sign, num_steps] = float(values.max()), bound
        return self._bounds[sign, num_steps]


def largest_eigenvalue(ritz_values: Tensor, norms: list[float], *, dimension: int, failure: float) -> float:
    """Bound the largest eigenvalue of a symmetric operator B after n Lanczos steps from a random vector x.

    Let p be the monic polynomial whose zeros are the Ritz values. Then |p(B) x| is the product of the norms, and at
    least p(λ) |u'x| for the largest eigenvalue λ and its eigenvector u. With a lower bound on |u'x| that holds with
    high probability, this bounds λ (van Dorsselaer, Hochstenbach and van der Vorst, "Computing probabilistic bounds for
    extreme eigenvalues of symmetric matrices with the Lanczos method", 2000). It holds for any stopping rule.

    Args:
        ritz_values: [n], float64.
        norms: [n], norm of the residual after each step.
        dimension: dimension of the space from which x was drawn.
        failure: probability, over the draw of x, that the bound is wrong.
    """
    largest = float(ritz_values.max())
    if min(norms) <= 0:
        return largest  # an invariant subspace
    # The density of u'x is largest at zero, where it is at most sqrt(dimension / 2 pi).
    smallest_part = min(failure * math.sqrt(math.pi / (2 * dimension)), 1.0)
    wanted = sum(map(math.log, norms)) - math.log(smallest_part)
    distances = largest - ritz_values.numpy()
    low, high = 0.0, math.exp(wanted / len(norms))  # p(largest + d) is at least d^n
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if np.log(middle + distances).sum() < wanted:
            low = middle
        else:
            high = middle
    return largest + high


class Spectrum:
    """Count the eigenvalues of A that can lie beyond a number, given bounds on those of its complement B.

    Args:
        ritz_values: [m], eigenvalues of T.
        ritz_vectors: [m, m], eigenvectors of T as columns.
        coupling: C, [p, m].
        bounds: upper bounds by sign: of the eigenvalues of B for 1, which counts eigenvalues of A above the number; of
            those of -B for -1, which counts eigenvalues below its negative.
    """

    def __init__(
        self, ritz_values: Tensor, ritz_vectors: Tensor, coupling: Tensor, bounds: Mapping[int, float]
    ) -> None:
        self._values = ritz_values.numpy()
        self._coupling = (coupling @ ritz_vectors).numpy()
        self._bounds = bounds

    def most_beyond(self, number: float) -> float:
        """Upper bound on the number of eigenvalues of A beyond ``number``; infinite within the bounds of B."""
        if number <= max(self._bounds.values()):
            return math.inf
        return sum(self._most_above(number, sign * self._values, bound) for sign, bound in self._bounds.items())

    def _most_above(self, number: float, values: NDArray[np.float64], bound: float) -> int:
        distances = number - values
        distances[distances == 0] = -np.finfo(float).tiny
        schur = (number - bound) * np.eye(len(self._coupling)) - (self._coupling / distances) @ self._coupling.T
        return int((distances < 0).sum()) + int((np.linalg.eigvalsh(schur) < 0).sum())

    def upper_bound(self, rank: int) -> float:
        """Smallest number beyond which at most ``rank`` eigenvalues of A lie."""
        low = max(self._bounds.values())
        ends = [low, *(float((sign * self._values).max()) for sign in self._bounds)]
        high = max(ends) + 2 * float(np.linalg.norm(self._coupling))
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if self.most_beyond(middle) <= rank:
                high = middle
            else:
                low = middle
        return high
