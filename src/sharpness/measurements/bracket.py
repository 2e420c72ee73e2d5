"""How much the sample matters: eigenvalues on some examples bracket those of the whole training set.

The largest eigenvalue is a convex function of the Hessian. On randomly drawn examples it is therefore, on average, at
least that of the whole set (Jensen's inequality); so is the sum of the k largest (Ky Fan, 1949). Along the vectors
found, the curvature of the whole set is at most its own largest eigenvalue, and examples that had no part in finding
them estimate it. Such pairs of bounds by sample averages are those of stochastic programming (Mak, Morton and Wood,
"Monte Carlo bounding techniques for determining solution quality in stochastic programs", 1999).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import nan, sqrt

import torch
from torch import Tensor

from sharpness.eigen.operators import SymmetricOperator
from sharpness.eigen.vectors import inner_product

NUM_CHUNKS = 10


@dataclass(frozen=True)
class Elsewhere:
    """The curvature along vectors on other examples than those on which they were found."""

    chunks: Tensor  # [chunks, k], v'Hv on each chunk
    fraction: float  # of all other examples, how many the chunks hold together
    num_examples: int  # in all chunks

    @property
    def curvatures(self) -> Tensor:
        """Their mean, [k]."""
        return self.chunks.mean(dim=0)

    @property
    def standard_errors(self) -> Tensor:
        """Those of the mean, [k], for all other examples as the population; NaN with one chunk."""
        return self._standard_error(self.chunks)

    @property
    def trace(self) -> float:
        """The sum of the curvatures: at most that of the k largest eigenvalues of all examples, on average."""
        return float(self.curvatures.sum())

    @property
    def trace_error(self) -> float:
        """Its standard error."""
        return float(self._standard_error(self.chunks.sum(dim=1)))

    def _standard_error(self, values: Tensor) -> Tensor:
        count = len(values)
        spread = values.std(dim=0) if count > 1 else torch.full_like(values[0], nan)
        return spread * sqrt((1 - self.fraction) / count)


def in_columns(outside: Elsewhere | None, rank: int = 0) -> dict[str, float]:
    """The cells of one eigenpair, by rank; none where all examples were measured."""
    if outside is None:
        return {}
    values = outside.curvatures[rank], outside.standard_errors[rank]
    return dict(zip(("elsewhere", "elsewhere_error"), map(float, values), strict=True))


def elsewhere(chunks: Iterable[SymmetricOperator], vectors: Tensor, *, fraction: float, num_examples: int) -> Elsewhere:
    """Measure v'Hv on chunks of other examples.

    Args:
        chunks: the Hessian of the mean loss on each chunk, [P, P]; all chunks of equal size.
        vectors: [k, P], of length 1, found on none of these examples.
        fraction: of all other examples, how many the chunks hold together, above 0; 1 leaves no sampling error.
        num_examples: in all chunks.

    Raises:
        ValueError: there is no chunk, or the fraction is impossible.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction}")
    rows = [[inner_product(vector, operator @ vector) for vector in vectors] for operator in chunks]
    if not rows:
        raise ValueError("need at least one chunk of other examples, got none")
    return Elsewhere(torch.tensor(rows, dtype=torch.float64), fraction, num_examples)
