"""The loss around a network's weights: along an eigenvector, and in the plane of two."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sharpness.eigen.vectors import inner_product, length
from sharpness.hessian.operator import HessianOperator
from sharpness.plots.axes import COLOURS, GREY, axes_or_new
from sharpness.runtime import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LETTERS = {"hessian": "H", "ggn": "G", "gradient_covariance": "C"}
# Deviation from length 1, or from a right angle, that rounding explains.
_ROUNDING = 1e-3


def plot_slice(
    operator: HessianOperator,
    vector: Tensor,
    *,
    distance: float | None = None,
    num_points: int = 41,
    axes: Axes | None = None,
) -> Axes:
    """Draw the loss along a unit vector such as an eigenvector, with the parabola that its curvature predicts.

    The vector is not rescaled: the axis is the Euclidean distance of the weights. Of a preconditioned operator it is
    the factor of D^-1/2 v, the direction of the weights, along which its eigenvalue is the curvature.

    Args:
        operator: of whose loss and examples the picture is.
        vector: [P], of length 1.
        distance: how far to go to both sides; None goes as far as the curvature alone doubles the loss.
        num_points: at which the loss is computed.
        axes: to draw on; None makes a figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        TypeError: the operator is none of the loss, or the vector no tensor.
        ValueError: the vector is not [P] or has not length 1, or an argument is out of range.
    """
    vector = _unit(operator, vector, "vector")
    checks.whole_number("num_points", num_points, least=3)
    axes = axes_or_new(axes)
    direction = operator.direction(vector)
    here, slope = operator.value(), inner_product(operator.gradient(), direction)
    curvature = inner_product(vector, operator @ vector)
    far = _distance(distance, here, curvature)
    places = torch.linspace(-far, far, num_points, dtype=torch.float64)
    losses = [operator.value(float(place) * direction) for place in places]
    parabola = here + slope * places + curvature * places.square() / 2
    words, along = _in_words(operator)
    axes.plot(
        places.tolist(), parabola.tolist(), color=GREY, linestyle="--", label=f"parabola of {words} = {curvature:.4g}"
    )
    axes.plot(places.tolist(), losses, color=COLOURS[0], label="loss")
    axes.plot([0], [here], "o", color=COLOURS[0])
    axes.set(xlabel=f"{along} the vector", ylabel="loss")
    axes.legend()
    return axes


def plot_plane(
    operator: HessianOperator,
    vectors: Tensor,
    *,
    distance: float | None = None,
    num_points: int = 21,
    axes: Axes | None = None,
) -> Axes:
    """Draw the loss as contours in the plane of two orthonormal vectors such as eigenvectors.

    The vectors are not rescaled, and both axes have one scale: the Euclidean distance of the weights, or of a
    preconditioned operator the factors of D^-1/2 v.

    Args:
        operator: of whose loss and examples the picture is.
        vectors: [2, P], orthonormal rows.
        distance: how far to go to all sides; None goes as far as the larger of the curvatures alone doubles the loss.
        num_points: at each axis, at which the loss is computed.
        axes: to draw on; None makes a figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        TypeError: the operator is none of the loss, or the vectors are no tensor.
        ValueError: the vectors are not two orthonormal rows [2, P], or an argument is out of range.
    """
    if not isinstance(vectors, Tensor):
        raise TypeError(
            f"vectors must be a tensor [2, P], such as pairs.eigenvectors[:2], got {type(vectors).__name__}"
        )
    if vectors.dim() != 2 or len(vectors) != 2:
        raise ValueError(f"vectors must be two rows [2, P], such as pairs.eigenvectors[:2], got {list(vectors.shape)}")
    vectors = torch.stack([_unit(operator, vector, f"vectors[{rank}]") for rank, vector in enumerate(vectors)])
    if not abs(cosine := float(vectors[0].double() @ vectors[1].double())) < _ROUNDING:
        raise ValueError(f"vectors must be orthogonal, as eigenvectors are: their cosine is {cosine:.2g}")
    checks.whole_number("num_points", num_points, least=3)
    axes = axes_or_new(axes, figsize=(5.5, 4.5))
    here = operator.value()
    curvatures = [inner_product(vector, operator @ vector) for vector in vectors]
    far = _distance(distance, here, max(curvatures, key=abs))
    places = torch.linspace(-far, far, num_points, dtype=torch.float64).tolist()
    first, second = map(operator.direction, vectors)
    losses = [[operator.value(x * first + y * second) for x in places] for y in places]
    drawn = axes.contourf(places, places, losses, levels=20, cmap="viridis")
    axes.contour(places, places, losses, levels=20, colors="white", linewidths=0.4)
    axes.plot([0], [0], "o", color=COLOURS[0], markeredgecolor="white")
    axes.figure.colorbar(drawn, ax=axes, label="loss")
    words, along = _in_words(operator)
    axes.set(
        xlabel=f"{along} the first vector, {words} = {curvatures[0]:.4g}",
        ylabel=f"along the second, {words} = {curvatures[1]:.4g}",
        aspect="equal",
    )
    return axes


def _unit(operator: HessianOperator, vector: Tensor, name: str) -> Tensor:
    """Check a unit vector [P], and convert it to the operator's type."""
    if not isinstance(operator, HessianOperator):
        raise TypeError(f"operator must be a HessianOperator, whose loss is drawn, got {type(operator).__name__}")
    if not isinstance(vector, Tensor):
        raise TypeError(f"{name} must be a tensor [P], such as pairs.eigenvectors[0], got {type(vector).__name__}")
    if vector.dim() != 1 or len(vector) != operator.shape[0]:
        raise ValueError(
            f"{name} must be one vector [{operator.shape[0]}], such as pairs.eigenvectors[0], got {list(vector.shape)}"
        )
    if not abs((size := length(vector)) - 1) < _ROUNDING:
        raise ValueError(f"{name} must have length 1, as eigenvectors have, got length {size:.6g}")
    return vector.to(operator.dtype)


def _in_words(operator: HessianOperator) -> tuple[str, str]:
    """What the curvature along a vector v is, and what is drawn along it."""
    letter, is_preconditioned = _LETTERS[operator.provenance["curvature"]], operator.provenance["is_preconditioned"]
    return (f"v'D^-½{letter}D^-½v", "factor of D^-½ times") if is_preconditioned else (f"v'{letter}v", "distance along")


def _distance(distance: float | None, loss: float, curvature: float) -> float:
    if distance is not None:
        if not 0 < distance < math.inf:
            raise ValueError(f"distance must be positive and finite, got {distance}")
        return distance
    return math.sqrt(2 * abs(loss) / abs(curvature)) if loss and curvature else 1.0
