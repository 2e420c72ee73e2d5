"""Check products with a Hessian: they are symmetric, and agree with central differences of gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Largest relative deviation from central differences that rounding and third derivatives explain.
TOLERANCE = 1e-5
# Largest asymmetry that rounding explains.
ASYMMETRY = 1e-10
# Step sizes relative to the norm of the weights: short enough to cross few kinks of ReLUs, long enough for rounding.
_STEPS = (1e-8, 1e-7, 1e-6, 1e-9)


def relative_difference(ours: Tensor, theirs: Tensor, *, least: float) -> float:
    """|ours - theirs| / max(|theirs|, least)."""
    return float((ours - theirs).norm() / theirs.norm().clamp_min(least))


def asymmetry(vectors: Tensor, images: Tensor) -> float:
    """|y'Ax - x'Ay| / |y||Ax| for two vectors [2, p] and their images; wrong derivatives are rarely symmetric."""
    (one, other), (image, image_of_other) = vectors, images
    difference = (other @ image - one @ image_of_other).abs()
    return float(difference / (other.norm() * image.norm()).clamp_min(torch.finfo(images.dtype).tiny))


def off_difference(gradient: Callable[[float], Tensor], image: Tensor, length: float) -> float:
    """Relative deviation of ``image`` from a central difference of gradients; the smallest over several steps.

    Args:
        gradient: returns the gradient [p], float64, at the weights plus the given multiple of the vector.
        image: [p], the Hessian times the vector.
        length: norm of the weights over that of the vector.
    """
    off = float("inf")
    for step in _STEPS:
        forth, back = gradient(step * length), gradient(-step * length)
        difference = (forth - back) / (2 * step * length)
        # Rounding of the gradients, which dominates if nothing is curved.
        rounding = 1e-15 * float(forth.norm() + back.norm()) / (step * length)
        distance = max(0.0, float((difference - image).norm()) - rounding)
        off = min(off, distance / max(float(difference.norm()), torch.finfo(image.dtype).tiny))
        if off <= TOLERANCE:
            break
    return off


def fault_of(vectors: Tensor, images: Tensor, off: Callable[[], float]) -> str | None:
    """Describe what is wrong with ``images``, as the end of a sentence; None if nothing is.

    Args:
        vectors: [2, p].
        images: [2, p], the Hessian times the vectors.
        off: returns the first image's relative deviation from a central difference of gradients.
    """
    if not (difference := asymmetry(vectors, images)) <= ASYMMETRY:
        return f"is not symmetric, by {difference:.1e}"
    if not (difference := off()) <= TOLERANCE:
        return f"is off a central difference of gradients by {difference:.1e} of its length"
    return None
