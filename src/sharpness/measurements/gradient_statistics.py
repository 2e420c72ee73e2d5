"""The gradient beside the curvature: its part in the sharpest subspace, its noise, and the curvature that it meets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import atan2, degrees, nan

import torch
from torch import Tensor

from sharpness.eigen.estimators import Estimate, mean_of
from sharpness.eigen.vectors import along_rows


def fraction_inside(gradient: Tensor, directions: Tensor) -> float:
    """The part of |gradient|² that lies in a subspace (Gur-Ari, Roberts and Dyer, 2018); NaN for a gradient of zero.

    Args:
        gradient: [P].
        directions: [k, P], orthonormal rows.
    """
    whole = float(gradient.double().square().sum())
    return float(along_rows(directions, gradient).double().square().sum()) / whole if whole else nan


def degrees_between(vector: Tensor, other: Tensor) -> float:
    """The angle between two vectors [P], from 0 to 180 degrees, exact for small angles too; NaN where one is zero."""
    first, second = (each.double() / each.double().norm() for each in (vector, other))
    return degrees(2 * atan2(float((first - second).norm()), float((first + second).norm())))


@dataclass(frozen=True)
class Noise:
    """The covariance K of mini-batch gradients."""

    largest: float  # its largest eigenvalue
    trace: float
    trace_error: float  # standard error of the trace


def gradient_noise(gradients: Tensor) -> Noise:
    """The covariance of mini-batch gradients g_i through their Gram matrix: (g_i - m) · (g_j - m) / (L - 1).

    Jastrzębski et al., "The break-even point on optimization trajectories of deep neural networks", 2020, appendix C.
    The eigenvalues of this [L, L] matrix are those of K that are not zero.

    Args:
        gradients: [L, P], of independent mini-batches, at least 2.

    Raises:
        ValueError: there are fewer than 2.
    """
    if len(gradients) < 2:
        raise ValueError(f"a covariance needs at least 2 gradients, got {len(gradients)}")
    centred = gradients.double() - gradients.double().mean(dim=0)
    gram = (centred @ centred.T).cpu() / (len(gradients) - 1)
    # The trace is the mean of L contributions, of which the last follows from the others.
    trace = mean_of(len(gradients) * gram.diagonal(), 0)
    return Noise(float(torch.linalg.eigvalsh(gram)[-1]), trace.value, trace.standard_error)


def batch_sharpness(samples: Iterable[tuple[Tensor, Tensor]]) -> Estimate:
    """E[gᵀ H g / |g|²]: the curvature of each mini-batch's own loss along its own gradient.

    Andreyev and Beneventano, "Edge of stochastic stability", 2024: SGD holds it at 2 / learning rate.

    Args:
        samples: for each of at least 2 independent mini-batches its gradient g [P] and H g [P], H being the Hessian of
            the loss on this mini-batch.

    Raises:
        ValueError: there are fewer than 2.
    """
    quotients = torch.tensor([_rayleigh_quotient(gradient, image) for gradient, image in samples], dtype=torch.float64)
    if len(quotients) < 2:
        raise ValueError(f"a standard error needs at least 2 mini-batches, got {len(quotients)}")
    return mean_of(quotients, len(quotients))


def _rayleigh_quotient(vector: Tensor, image: Tensor) -> float:
    vector = vector.double()
    return float((vector @ image.double()) / (vector @ vector))
