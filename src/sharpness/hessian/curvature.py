"""The kinds of curvature: the Hessian, the Gauss-Newton matrix and the covariance of gradients.

The last two are Jᵀ C J, with the Jacobian J of the outputs and an operator C on them: the Hessian of the loss at the
outputs for one, and the square of its gradient, example by example, for the other.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from sharpness.hessian.losses.criterion import Criterion, OutputCurvature, SquaredGradients

CurvatureKind = Literal["hessian", "ggn", "gradient_covariance"]


def at_outputs(
    kind: CurvatureKind, criterion: Criterion, outputs: Tensor, targets: Tensor
) -> tuple[Tensor, OutputCurvature]:
    """Compute the gradient of the summed loss at the outputs, of their shape, and the curvature there."""
    gradient, curvature = criterion.gradient_and_curvature(outputs, targets)
    return gradient, SquaredGradients(gradient) if kind == "gradient_covariance" else curvature
