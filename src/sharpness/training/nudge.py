"""Scale an update inside and outside a subspace: one rule for SGD, Nudged SGD and the variants."""

from __future__ import annotations

import torch
from torch import Tensor

from sharpness.eigen.vectors import along_rows


def nudge(update: Tensor, directions: Tensor, *, gamma: float, gamma_outside: float) -> Tensor:
    """Scale ``update`` inside and outside the span of ``directions``.

    Args:
        update: [P], the gradient, or the velocity with momentum.
        directions: [K, P], orthonormal rows.
        gamma: factor inside the span; the paper's γ.
        gamma_outside: factor on the rest; 1 except in the ablations.

    Returns:
        [P]: ``gamma * inside + gamma_outside * (update - inside)``.
    """
    # In this form (1, 1) returns the update bit for bit: nudged SGD contains SGD.
    outside = update if gamma_outside == 1 else gamma_outside * update
    return torch.addmv(outside, directions.T, along_rows(directions, update), alpha=gamma - gamma_outside)


def project(vector: Tensor, directions: Tensor) -> Tensor:
    """Project ``vector`` [P] onto the span of the orthonormal rows ``directions`` [K, P]."""
    return directions.T @ along_rows(directions, vector)
