"""The form in which a network's Hessian-vector products are computed, and whether it is right."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from sharpness.double_backward import DoubleBackward
from sharpness.layout import Layout
from sharpness.loss import Loss
from sharpness.r_operator import ROperator

Form = ROperator | DoubleBackward

_log = logging.getLogger(__name__)

# Largest difference between a product and one by double backward, relative to its length, on one vector.
# Double precision decides whether the derivatives are right; in the others rounding can be large on few examples.
_AGREEMENT = {torch.float64: 1e-10, torch.float32: 0.05, torch.bfloat16: 0.5}
# Examples on which the two are compared: whether operations are differentiated rightly does not depend on their number.
_EXAMPLES = 8


def by_parameter(layout: Layout, chosen: Sequence[bool], vector: Tensor) -> list[Tensor | None]:
    """The views of ``vector`` in the order of a network's parameters, None for those without rows."""
    views = iter(layout.views(vector))
    return [next(views) if has_rows else None for has_rows in chosen]


def checked_form(
    loss: Loss,
    layout: Layout,
    chosen: Sequence[bool],
    weights: list[Tensor],
    buffers: list[Tensor],
    inputs: Tensor,
) -> Form:
    """What computes the products, compared with double backward in double precision and in that of the passes."""
    own, full = weights[0].dtype, torch.float64
    states = {dtype: ([w.to(dtype) for w in weights], [b.to(dtype) for b in buffers]) for dtype in (full, own)}
    drawn = torch.randn(2, layout.size, generator=torch.Generator().manual_seed(0))
    vector, another = drawn.to(weights[0].device, full)

    def product(form: Form, dtype: torch.dtype, vector: Tensor = vector) -> Tensor:
        total = torch.zeros_like(vector)
        parts = states[dtype]
        kept = form.linearise(parts[0], parts[1], inputs, targets)
        form.add_product(kept, by_parameter(layout, chosen, vector.to(dtype)), by_parameter(layout, chosen, total))  # type: ignore[arg-type]
        return total

    twice_backward = DoubleBackward(loss, chosen)
    # At the least likely classes: where a network fits its examples next to no curvature is left, and the two ways
    # of computing it differ by rounding alone.
    targets = twice_backward.logits(*states[full], inputs).argmin(dim=1)
    theirs = product(twice_backward, full)
    form: Form = twice_backward
    try:
        form = ROperator(loss.evaluating, chosen)
        ours = {dtype: product(form, dtype) for dtype in states}
    except Exception as error:  # whatever a user's network raises in forward mode; it has just run twice backwards
        _say_slow(type(loss.evaluating).__name__, (str(error).splitlines() or [type(error).__name__])[0])
        _check_symmetry(vector, theirs, another, product(twice_backward, full, another))
        form, ours = twice_backward, {own: product(twice_backward, own)}
    if not torch.isfinite(ours[own]).all():
        raise FloatingPointError("the curvature overflows at these weights")
    for dtype, vector_of_ours in ours.items():
        _compare(vector_of_ours, theirs, dtype)
    return form


@functools.cache
def _say_slow(network: str, reason: str) -> None:
    """Once for each kind of network, not for each of its checkpoints."""
    _log.warning("Hessian-vector products of %s by double backward, about twice as slow: %s", network, reason)


def _compare(ours: Tensor, theirs: Tensor, computed_in: torch.dtype) -> None:
    numbers, allowed = torch.finfo(computed_in), _AGREEMENT[computed_in]
    # What is smaller has hardly a digit: the curvature of a network that fits its examples many times over.
    least = numbers.tiny / numbers.eps
    difference = float((ours - theirs).norm() / theirs.norm().clamp_min(least))
    if not difference <= allowed:
        raise RuntimeError(
            f"the Hessian-vector product differs from double backward by {difference:.1e} of its length, "
            f"more than {allowed:.0e}"
        )


def _check_symmetry(one: Tensor, image: Tensor, other: Tensor, image_of_other: Tensor) -> None:
    """Where double backward has nothing to be compared with, a wrong derivative at least is hardly ever symmetric."""
    difference = float((other @ image - one @ image_of_other).abs() / (other.norm() * image.norm()))
    if difference > _AGREEMENT[image.dtype]:
        raise RuntimeError(
            f"double backward gives a Hessian that is not symmetric, by {difference:.1e}: "
            "torch differentiates one of the network's operations wrongly"
        )
