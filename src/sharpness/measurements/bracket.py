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


@dataclass(frozen=True)
class Elsewhere:
    """The curvature along vectors on other examples than those on which they were found."""

    curvatures: Tensor  # [k], v'Hv
    standard_errors: Tensor  # [k], over chunks of examples; NaN with one chunk


def elsewhere(chunks: Iterable[SymmetricOperator], vectors: Tensor, *, fraction: float) -> Elsewhere:
    """Measure v'Hv on chunks of other examples.

    Args:
        chunks: the Hessian of the mean loss on each chunk, [P, P]; all chunks of equal size.
        vectors: [k, P], of length 1, found on none of these examples.
        fraction: of all other examples, how many the chunks hold together, above 0; 1 leaves no sampling error.

    Raises:
        ValueError: there is no chunk, or the fraction is impossible.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction}")
    rows = [torch.stack([torch.dot(vector, operator @ vector) for vector in vectors]) for operator in chunks]
    if not rows:
        raise ValueError("need at least one chunk of other examples, got none")
    curvatures = torch.stack(rows).double()  # [chunks, k]
    spread = curvatures.std(dim=0) if len(rows) > 1 else torch.full_like(curvatures[0], nan)
    return Elsewhere(curvatures.mean(dim=0), spread * sqrt((1 - fraction) / len(rows)))
