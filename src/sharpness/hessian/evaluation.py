"""The loss itself, and its gradient, on the examples of an operator."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from sharpness.hessian.examples import Batch
from sharpness.hessian.layout import Layout
from sharpness.hessian.loss import Loss


def value(loss: Loss, weights: Tensor, buffers: Tensor, chunks: Iterable[Batch], divisor: float | Tensor) -> Tensor:
    """Compute the mean loss with the L2 term, a single number.

    Args:
        loss: of the network.
        weights: [P], in the loss's order.
        buffers: [B].
        chunks: of the examples.
        divisor: of the sum over terms.
    """
    total = torch.zeros((), dtype=torch.float64, device=weights.device)
    for inputs, targets in chunks:
        total += loss.summed(weights, buffers, inputs, targets)
    return total / divisor + loss.penalty(weights)


def gradient(loss: Loss, weights: Tensor, buffers: Tensor, chunks: Iterable[Batch], divisor: float | Tensor) -> Tensor:
    """Compute the gradient of the mean loss and the L2 term, [P]; arguments as for ``value``."""
    total = torch.zeros_like(weights)
    with torch.enable_grad(), loss.differentiating():
        for inputs, targets in chunks:
            leaf = weights.detach().requires_grad_()
            summed = loss.criterion.summed(loss.logits(leaf, buffers, inputs), targets)
            if summed.requires_grad:
                total += torch.autograd.grad(summed, leaf)[0]
    total /= divisor
    return total + loss.penalty_curvature(weights) if loss.l2 else total


def rows_in(whole: Layout, rows: Layout, flat: Tensor) -> Tensor:
    """Select from ``flat``, a vector of the layout ``whole``, the entries of the parameters in ``rows``."""
    views = whole.named(flat)
    return rows.flat([views[name] for name in rows.names])


def displaced(whole: Layout, rows: Layout, weights: Tensor, displacement: Tensor) -> Tensor:
    """Add ``displacement``, a vector of the layout ``rows``, to the ``weights`` of the layout ``whole``."""
    moved = weights.clone()
    views = whole.named(moved)
    for name, part in rows.named(displacement).items():
        views[name] += part
    return moved
