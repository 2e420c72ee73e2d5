"""Cross-entropy as a function of logits: what it is of them, and its two derivatives, without cancellation.

Where a network is sure of an example, its likeliest class has a probability p of almost 1, and 1 - p, of which both
derivatives consist there, is lost to rounding. It is the sum of the other probabilities, which are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100
"""The label of what has none: as in torch, it counts neither in the loss nor in its average."""

# From this probability on, derivatives are taken from the other classes: below it, cancelling costs at most six bits.
_SURE = 1 - 2**-6


def num_terms(targets: Tensor) -> int:
    """How many labels there are: what the loss is averaged over."""
    return targets.numel() - int((targets == IGNORED).sum())


def summed(logits: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy summed over labels, as torch's own but for its derivatives' rounding.

    Args:
        logits: [n, classes, ...].
        targets: [n, ...], classes or ``IGNORED``.
    """
    is_likeliest, is_target = _is(logits.argmax(dim=1), logits), _is(targets, logits)
    largest = torch.where(is_likeliest, logits, 0).sum(dim=1, keepdim=True)
    behind = torch.where(is_likeliest, 0, logits - largest)
    others = torch.where(is_likeliest, 0, behind.exp()).sum(dim=1)
    terms = others.log1p() - torch.where(is_target, behind, 0).sum(dim=1)
    return torch.where(targets == IGNORED, 0, terms).sum()


@dataclass(frozen=True)
class Curvature:
    """The Hessian of the summed cross-entropy at given logits, diag(p) - p pᵀ for each label."""

    probabilities: Tensor  # [n, classes, ...], zero where there is no label
    likeliest: Tensor  # [n, 1, ...], the class
    shift: Tensor  # [n, 1, ...], -1 where that class is next to certain, else 0

    @property
    def tensors(self) -> list[Tensor]:
        """All that it holds."""
        return [self.probabilities, self.likeliest, self.shift]

    def times(self, tangent: Tensor) -> Tensor:
        """Its product with the tangent of the logits, of the same shape: p (t - Σ p t)."""
        # The same for any shift of t, and without cancellation where that of a certain class is zero.
        tangent = tangent.to(self.probabilities.dtype)
        tangent = torch.addcmul(tangent, tangent.gather(1, self.likeliest), self.shift)
        product = self.probabilities * tangent
        product -= self.probabilities * product.sum(dim=1, keepdim=True)
        return product


def gradient_and_curvature(logits: Tensor, targets: Tensor) -> tuple[Tensor, Curvature]:
    """The gradient of the summed cross-entropy by the logits, of their shape, and its curvature.

    In single precision at least, whatever that of the logits.

    Args:
        logits: [n, classes, ...].
        targets: [n, ...], classes or ``IGNORED``.
    """
    probabilities = torch.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1)
    highest, likeliest = probabilities.max(dim=1, keepdim=True)
    sure, is_target = highest > _SURE, _is(targets, logits)
    others = probabilities.masked_fill(is_target, 0).sum(dim=1, keepdim=True)
    gradient = torch.where(is_target, torch.where(sure, -others, probabilities - 1), probabilities)
    unlabelled = (targets == IGNORED).unsqueeze(1)
    shift = -sure.to(probabilities.dtype)
    return gradient.masked_fill(unlabelled, 0), Curvature(probabilities.masked_fill(unlabelled, 0), likeliest, shift)


def _is(classes: Tensor, logits: Tensor) -> Tensor:
    """Whether each entry of the logits is of one of these classes, [n, ...]."""
    numbers = torch.arange(logits.shape[1], device=logits.device)
    return numbers.view(-1, *[1] * (logits.dim() - 2)) == classes.unsqueeze(1)
