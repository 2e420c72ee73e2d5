"""Eigenpairs of a symmetric operator, and what is known of their errors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sharpness.eigen.saving import save_pairs


@dataclass(frozen=True)
class Eigenpairs:
    """The wanted eigenpairs, and the smallest eigenvalue as the same Krylov space estimates it."""

    eigenvalues: Tensor  # [k], from the wanted end inwards, float64, on the CPU
    eigenvectors: Tensor  # [k, P], orthonormal rows; the sign of a row is arbitrary
    residuals: Tensor  # [k], |A v - λ v| / max|λ|, computed from products (with the reference if there is one)
    smallest: float  # the smallest Ritz value; the smallest eigenvalue if its residual is small
    smallest_residual: float  # with a reference: of the operator itself, by the recurrence
    num_products: int  # matvecs until these pairs converged, or all matvecs if they did not
    num_probing: int  # further matvecs of the last probe, which found nothing missing
    num_certifying: int  # matvecs with the reference, k and corrections; 0 without one
    converged: bool  # whether every residual of the k pairs is within the tolerance
    # True: no wanted pair is missing, with probability 99.9 % (or the basis spans the whole space). False: a probe
    # revealed a missed eigenvalue, and the budget ended before the pairs converged again. None: undecided.
    complete: bool | None
    # With the same probability, every eigenvalue beyond this bound (above, below or larger in magnitude, according to
    # ``which``) is among these pairs, to within the tolerance. Infinite without a probe. With a reference, this and
    # ``complete`` refer to the operator itself.
    complete_beyond: float
    # Of what these are: the operator's parameters, loss, number of examples and precision, and the versions that
    # computed them; empty for an operator that does not say.
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pairs and their provenance to a safetensors file, which ``load_pairs`` reads.

        Raises:
            ModuleNotFoundError: safetensors is not installed.
        """
        save_pairs(self, path)
