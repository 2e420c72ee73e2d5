"""Cross-entropy of logits and its first two derivatives, without cancellation.

There are two forms: for classes, and for a share of every class (``..._of_shares``), which covers class weights, label
smoothing and probabilities as targets. If a network is certain of an example, the likeliest class has a probability p
close to 1, and rounding destroys 1 - p, on which both derivatives depend. So 1 - p is computed as the sum of the other
probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100
"""Label that is ignored in the loss and in its average, as in torch."""

# Probability above which derivatives use the other classes; below, cancellation costs at most six bits.
_SURE = 1 - 2**-6


def num_terms(targets: Tensor) -> int:
    """Count the labels over which the loss is averaged."""
    return targets.numel() - int((targets == IGNORED).sum())


def summed(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum the cross-entropy over labels, with derivatives that are more accurate than torch's.

    Args:
        logits: [n, classes, ...].
        targets: [n, ...], classes or ``IGNORED``.
    """
    is_likeliest, is_target = is_class(logits.argmax(dim=1), logits), is_class(targets, logits)
    largest = torch.where(is_likeliest, logits, 0).sum(dim=1, keepdim=True)
    behind = torch.where(is_likeliest, 0, logits - largest)
    others = torch.where(is_likeliest, 0, behind.exp()).sum(dim=1)
    terms = others.log1p() - torch.where(is_target, behind, 0).sum(dim=1)
    return torch.where(targets == IGNORED, 0, terms).sum()


@dataclass(frozen=True)
class Curvature:
    """Hessian of the summed cross-entropy with respect to the logits: diag(p) - p pᵀ for each label."""

    probabilities: Tensor  # [n, classes, ...], zero for ignored labels
    likeliest: Tensor  # [n, 1, ...], index of the likeliest class
    shift: Tensor  # [n, 1, ...], -1 where that class is almost certain, else 0

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors held."""
        return [self.probabilities, self.likeliest, self.shift]

    def times(self, tangent: Tensor) -> Tensor:
        """Multiply a tangent t of the logits, of their shape: p (t - Σ p t)."""
        # Shifting t does not change the product; a zero tangent for the certain class avoids cancellation.
        tangent = tangent.to(self.probabilities.dtype)
        tangent = torch.addcmul(tangent, tangent.gather(1, self.likeliest), self.shift)
        product = self.probabilities * tangent
        product -= self.probabilities * product.sum(dim=1, keepdim=True)
        return product


def gradient_and_curvature(logits: Tensor, targets: Tensor) -> tuple[Tensor, Curvature]:
    """Compute the gradient of the summed cross-entropy with respect to the logits, of their shape, and its curvature.

    The results are at least float32.

    Args:
        logits: [n, classes, ...].
        targets: [n, ...], classes or ``IGNORED``.
    """
    probabilities = torch.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1)
    highest, likeliest = probabilities.max(dim=1, keepdim=True)
    sure, is_target = highest > _SURE, is_class(targets, logits)
    others = probabilities.masked_fill(is_target, 0).sum(dim=1, keepdim=True)
    gradient = torch.where(is_target, torch.where(sure, -others, probabilities - 1), probabilities)
    unlabelled = (targets == IGNORED).unsqueeze(1)
    shift = -sure.to(probabilities.dtype)
    return gradient.masked_fill(unlabelled, 0), Curvature(probabilities.masked_fill(unlabelled, 0), likeliest, shift)


@dataclass(frozen=True)
class ScaledCurvature:
    """``Curvature`` of terms that do not all weigh the same."""

    curvature: Curvature
    scale: Tensor  # [n, 1, ...]

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors held."""
        return [*self.curvature.tensors, self.scale]

    def times(self, tangent: Tensor) -> Tensor:
        """Multiply a tangent of the logits, of their shape."""
        return self.curvature.times(tangent) * self.scale


def summed_of_shares(logits: Tensor, shares: Tensor) -> Tensor:
    """Sum -q log p over classes and terms, with accurate derivatives.

    Args:
        logits: [n, classes, ...].
        shares: q, [n, classes, ...], of any sum.
    """
    is_likeliest = is_class(logits.argmax(dim=1), logits)
    largest = torch.where(is_likeliest, logits, 0).sum(dim=1, keepdim=True)
    behind = torch.where(is_likeliest, 0, logits - largest)
    others = torch.where(is_likeliest, 0, behind.exp()).sum(dim=1)
    # A class without a share may be impossible, with a logit of minus infinity.
    along = (torch.where(shares == 0, 0, behind) * shares).sum(dim=1)
    return (shares.sum(dim=1) * others.log1p() - along).sum()


def gradient_and_curvature_of_shares(logits: Tensor, shares: Tensor) -> tuple[Tensor, ScaledCurvature]:
    """Compute the gradient of ``summed_of_shares`` with respect to the logits, of their shape, and its curvature.

    The results are at least float32.

    Args:
        logits: [n, classes, ...].
        shares: as for ``summed_of_shares``.
    """
    probabilities = torch.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1)
    shares = shares.to(probabilities.dtype)
    highest, likeliest = probabilities.max(dim=1, keepdim=True)
    sure, is_likeliest = highest > _SURE, is_class(likeliest.squeeze(1), logits)
    total = shares.sum(dim=1, keepdim=True)
    others, shares_of_others = (
        x.masked_fill(is_likeliest, 0).sum(dim=1, keepdim=True) for x in (probabilities, shares)
    )
    # For the likeliest class s p - q is the same as (s - q) - s (1 - p), without cancellation.
    gradient = torch.where(sure & is_likeliest, shares_of_others - total * others, total * probabilities - shares)
    return gradient, ScaledCurvature(Curvature(probabilities, likeliest, -sure.to(probabilities.dtype)), total)


def is_class(classes: Tensor, logits: Tensor) -> Tensor:
    """Mask of the logits' entries that belong to ``classes`` [n, ...]."""
    numbers = torch.arange(logits.shape[1], device=logits.device)
    return numbers.view(-1, *[1] * (logits.dim() - 2)) == classes.unsqueeze(1)
