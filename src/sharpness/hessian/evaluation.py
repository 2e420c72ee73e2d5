"""The loss itself, and its gradient, on the examples of an operator."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from sharpness.hessian.examples import Batch
from sharpness.hessian.layout import Layout
from sharpness.hessian.loss import Loss


def total(loss: Loss, weights: Tensor, buffers: Tensor, chunks: Iterable[Batch]) -> Tensor:
    """Sum a loss over the terms of all chunks, without the L2 term: a single number, float64.

    Args:
        loss: of the network.
        weights: [P], in the loss's order.
        buffers: [B].
        chunks: of the examples.
    """
    summed = torch.zeros((), dtype=torch.float64, device=weights.device)
    for inputs, targets in chunks:
        summed += loss.summed(weights, buffers, inputs, targets)
    return summed


def gradient_of_total(loss: Loss, weights: Tensor, buffers: Tensor, chunks: Iterable[Batch]) -> Tensor:
    """Compute the gradient of ``total``, [P]; arguments as there."""
    gradient = torch.zeros_like(weights)
    with torch.enable_grad(), loss.differentiating():
        for inputs, targets in chunks:
            leaf = weights.detach().requires_grad_()
            summed = loss.criterion.summed(loss.logits(leaf, buffers, inputs), targets)
            if summed.requires_grad:
                gradient += torch.autograd.grad(summed, leaf)[0]
    return gradient


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
