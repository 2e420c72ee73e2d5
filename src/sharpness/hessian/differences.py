"""Whether products are those with a Hessian: symmetric, and the central difference of gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Largest difference from a difference of gradients that is theirs: rounding, and the third derivative.
TOLERANCE = 1e-5
# Largest asymmetry, which is by rounding alone.
ASYMMETRY = 1e-10
# Of the length of the weights: so short that hardly a ReLU of a deep network comes to its kink, and above rounding.
_STEPS = (1e-8, 1e-7, 1e-6, 1e-9)


def relative_difference(ours: Tensor, theirs: Tensor, *, least: float) -> float:
    """|ours - theirs| / |theirs|, or over the ``least`` length that counts."""
    return float((ours - theirs).norm() / theirs.norm().clamp_min(least))


def asymmetry(vectors: Tensor, images: Tensor) -> float:
    """|y'Ax - x'Ay| / |y||Ax| of two vectors [2, p] and their images: a wrong derivative is hardly ever symmetric."""
    (one, other), (image, image_of_other) = vectors, images
    difference = (other @ image - one @ image_of_other).abs()
    return float(difference / (other.norm() * image.norm()).clamp_min(torch.finfo(images.dtype).tiny))


def off_difference(gradient: Callable[[float], Tensor], image: Tensor, length: float) -> float:
    """How far ``image`` is off a central difference, relative to its length: the least of several steps.

    Args:
        gradient: [p], at a number of times the vector from the weights, in double precision.
        image: [p], the Hessian times the vector.
        length: of the weights over that of the vector.
    """
    off = float("inf")
    for step in _STEPS:
        forth, back = gradient(step * length), gradient(-step * length)
        difference = (forth - back) / (2 * step * length)
        # What the rounding of the gradients comes to, when nothing is curved.
        rounding = 1e-15 * float(forth.norm() + back.norm()) / (step * length)
        distance = max(0.0, float((difference - image).norm()) - rounding)
        off = min(off, distance / max(float(difference.norm()), torch.finfo(image.dtype).tiny))
        if off <= TOLERANCE:
            break
    return off


def fault_of(vectors: Tensor, images: Tensor, off: Callable[[], float]) -> str | None:
    """What is wrong with ``images`` [2, p] of ``vectors`` as a sentence about them, if anything is.

    Args:
        vectors: [2, p].
        images: of the vectors.
        off: how far the first is off a difference of gradients.
    """
    if not (difference := asymmetry(vectors, images)) <= ASYMMETRY:
        return f"is not symmetric, by {difference:.1e}"
    if not (difference := off()) <= TOLERANCE:
        return f"is off a central difference of gradients by {difference:.1e} of its length"
    return None
