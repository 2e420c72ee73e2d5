"""Which eigenvalues a search can have missed: bounds on the rest of the spectrum that hold with a stated probability.

A search has an orthonormal basis Q [m, P] of vectors that were multiplied: A Q' = Q' T + F' C. Let B be the operator A
restricted to the complement of Q. A few Lanczos steps with B, from a vector uniform on the sphere in that whole
complement, say that no eigenvalue of B is above some μ (``largest_eigenvalue``). T and C then bound how many
eigenvalues of A are above any X > μ (``Spectrum``): as (X - B)^-1 is at most 1 / (X - μ), they are at most those of
T + C' C / (X - μ), by Haynsworth's additivity of inertia.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# The probability that what is said of missed eigenvalues is wrong, over the draws of all random vectors of a search.
FAILURE = 0.001
_BISECTIONS = 60


@dataclass(frozen=True)
class Sequence:
    """Lanczos steps in the complement of a basis, from a random vector."""

    first: int  # number of its first vector in the basis that it extends
    dimension: int  # of the complement that the random vector is uniform in
    failure: float  # the probability with which its bounds may be wrong
    norms: list[float] = field(default_factory=list)  # the length of the residual after each step
    _known: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)  # by sign and number of steps

    def largest_eigenvalue(self, projected: Tensor, sign: int) -> tuple[float, float]:
        """The largest Ritz value of ``sign`` B, and an upper bound on its eigenvalues.

        Args:
            projected: [m, m], of the operator on the basis.
            sign: 1 or -1.
        """
        num_steps = len(self.norms)
        if (sign, num_steps) not in self._known:
            steps = slice(self.first, self.first + num_steps)
            values = torch.linalg.eigvalsh(sign * projected[steps, steps])
            bound = largest_eigenvalue(values, self.norms, dimension=self.dimension, failure=self.failure)
            self._known[sign, num_steps] = float(values.max()), bound
        return self._known[sign, num_steps]


def largest_eigenvalue(ritz_values: Tensor, norms: list[float], *, dimension: int, failure: float) -> float:
    """An upper bound on the largest eigenvalue of a symmetric operator B after n Lanczos steps from a random vector x.

    For p with the Ritz values as its zeros, |p(B) x| is the product of the norms, and at least p(λ) |u'x| for the
    largest eigenvalue λ and its vector u. So λ is at most where p is that product over the smallest likely |u'x| (van
    Dorsselaer, Hochstenbach and van der Vorst, "Computing probabilistic bounds for extreme eigenvalues of symmetric
    matrices with the Lanczos method", 2000). The bound holds after any number of steps, whatever decided to stop there.

    Args:
        ritz_values: [n], float64.
        norms: [n], the length of the residual after each step.
        dimension: of the sphere that x is uniform on.
        failure: probability, over the draw of x, that the bound is wrong.
    """
    largest = float(ritz_values.max())
    if min(norms) <= 0:
        return largest  # an invariant subspace
    # The density of u'x is nowhere above that at zero, which is at most sqrt(dimension / 2 pi).
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
    """How many eigenvalues of A can lie beyond a number, where those of its complement do not lie beyond given bounds.

    Args:
        ritz_values: [m], of T.
        ritz_vectors: [m, m], its eigenvectors as columns.
        coupling: C, [p, m].
        bounds: by sign: 1 for those above the number, with an upper bound on the eigenvalues of B; -1 for those below
            its negative, with an upper bound on the eigenvalues of -B.
    """

    def __init__(
        self, ritz_values: Tensor, ritz_vectors: Tensor, coupling: Tensor, bounds: Mapping[int, float]
    ) -> None:
        self._values = ritz_values.numpy()
        self._coupling = (coupling @ ritz_vectors).numpy()
        self._bounds = bounds

    def most_beyond(self, number: float) -> float:
        """The most eigenvalues of A beyond ``number``: infinite where the complement has its own there."""
        if number <= max(self._bounds.values()):
            return math.inf
        return sum(self._most_above(number, sign * self._values, bound) for sign, bound in self._bounds.items())

    def _most_above(self, number: float, values: NDArray[np.float64], bound: float) -> int:
        distances = number - values
        distances[distances == 0] = -np.finfo(float).tiny
        schur = (number - bound) * np.eye(len(self._coupling)) - (self._coupling / distances) @ self._coupling.T
        return int((distances < 0).sum()) + int((np.linalg.eigvalsh(schur) < 0).sum())

    def upper_bound(self, rank: int) -> float:
        """The smallest number that at most ``rank`` eigenvalues of A lie beyond."""
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
