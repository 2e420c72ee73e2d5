"""Lanczos by its recurrence of three terms, which holds two vectors however many steps it takes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from sharpness.eigen.operators import VectorProduct, not_symmetric
from sharpness.eigen.vectors import inner_product, largest_magnitude, length


def tridiagonal(product: VectorProduct, generator: torch.Generator, num_steps: int) -> Tensor:
    """Project the operator onto the Krylov space of a random vector: [n, n], float64, n <= ``num_steps``.

    Without reorthogonalisation, rounding lets the vectors lose orthogonality, and copies of converged Ritz values
    appear. A quadrature stays accurate all the same: the weights of the copies add up to that of the one (Greenbaum,
    "Behavior of slightly perturbed Lanczos and conjugate-gradient recurrences", 1989).

    Args:
        product: matvec with the operator.
        generator: draws the vector, on the CPU.
        num_steps: most matvecs; fewer if the space is invariant.

    Raises:
        ValueError: the operator is not symmetric.
    """
    vector = product.random_direction(generator)
    before = torch.zeros_like(vector)
    projected, norm = torch.zeros(0, 0, dtype=torch.float64), 0.0
    while True:
        image = product(vector)
        expected = inner_product(before, image)
        image.sub_(before, alpha=norm)
        along = inner_product(vector, image)
        image.sub_(vector, alpha=along)
        projected = pad(projected, (0, 1, 0, 1))
        projected[-1, -1] = along
        if len(projected) > 1:
            projected[-1, -2] = projected[-2, -1] = norm
            difference = abs(expected - norm) / (largest_magnitude(projected) or 1.0)
            if difference > product.allowed_asymmetry:
                raise not_symmetric(difference)
        norm = length(image)
        negligible = torch.finfo(product.dtype).eps ** 0.7 * largest_magnitude(projected)
        if norm <= negligible or len(projected) >= min(num_steps, product.size):
            return projected
        before, vector = vector, image.div_(norm)
