"""Cross-entropy of classes: ``torch.nn.CrossEntropyLoss`` with all its settings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sharpness.hessian import cross_entropy
from sharpness.hessian.cross_entropy import IGNORED
from sharpness.hessian.losses.criterion import Criterion, OutputCurvature, check_finite, first, precise


@dataclass(frozen=True)
class CrossEntropy(Criterion):
    """Cross-entropy of logits [n, classes, ...] and classes [n, ...] or, if ``soft``, probabilities [n, classes, ...].

    The mean is torch's: over labels that are not ignored, weighted by the weights of their classes; over all positions
    if targets are probabilities.
    """

    class_weights: Tensor | None = None  # [classes], float64
    ignored: int = IGNORED  # label that is ignored
    smoothing: float = 0.0
    soft: bool = False  # targets of floating point are probabilities; else they are refused

    @property
    def nothing(self) -> str:  # type: ignore[override]
        if self.class_weights is not None:
            return "the classes of all targets have a weight of zero: there is nothing to average over"
        return f"all targets are {self.ignored}, which is ignored: there is nothing to average over"

    def shape_like(self, targets: Tensor, example: torch.Size) -> torch.Size:
        is_soft = targets.is_floating_point()
        return targets.shape if is_soft else torch.Size([len(targets), example[0], *targets.shape[1:]])

    def converted(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        if targets.is_floating_point() and self.soft:
            return targets.to(dtype, copy=True)
        if targets.is_floating_point() or targets.is_complex():
            raise ValueError(
                f"targets must be classes, whole numbers, got {targets.dtype}: probabilities of classes are not "
                "supported unless loss=torch.nn.CrossEntropyLoss() is given, and classes in floating point are "
                "converted by targets.long()"
            )
        labels = targets.to(torch.int64, copy=True)
        if self.ignored == IGNORED:
            return labels
        if (confused := labels == IGNORED).any():
            raise ValueError(f"targets{list(first(confused))} is {IGNORED}, but the label to ignore is {self.ignored}")
        return labels.masked_fill_(labels == self.ignored, IGNORED)

    def check(self, targets: Tensor, outputs: torch.Size) -> None:
        if self.class_weights is not None and self.class_weights.shape != outputs[1:2]:
            raise ValueError(
                f"the loss has weights of {self.class_weights.numel()} classes, but the network has {outputs[1]}"
            )
        if targets.is_floating_point():
            _check_probabilities(targets, outputs)
        else:
            check_labels(targets, outputs, self.ignored)

    def check_outputs(self, outputs: Tensor, num_examples: int) -> str | None:
        is_right = outputs.dim() >= 2 and len(outputs) == num_examples and outputs.numel() > 0
        return None if is_right else f"a tensor of logits, [{num_examples}, classes]"

    def weight(self, targets: Tensor) -> float | Tensor:
        if targets.is_floating_point() or self.class_weights is None:
            return self.num_labels(targets)
        return self.class_weights.to(targets.device)[targets[targets != IGNORED]].sum()

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._by_torch(outputs, targets, "mean")

    def plain_sum(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._by_torch(outputs, targets, "sum")

    def summed(self, outputs: Tensor, targets: Tensor) -> Tensor:
        logits = precise(outputs)
        if self._is_plain(targets):
            return cross_entropy.summed(logits, targets)
        return cross_entropy.summed_of_shares(logits, self._shares(logits, targets))

    def gradient_and_curvature(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, OutputCurvature]:
        if self._is_plain(targets):
            return cross_entropy.gradient_and_curvature(outputs, targets)
        return cross_entropy.gradient_and_curvature_of_shares(outputs, self._shares(precise(outputs), targets))

    def trial(self, outputs: Tensor) -> tuple[Criterion, Tensor]:
        """The least likely classes: if a network fits its examples, almost no curvature is left, only rounding."""
        return CrossEntropy(), outputs.argmin(dim=1)

    def num_labels(self, targets: Tensor) -> int:
        if targets.is_floating_point():
            return targets.numel() // targets.shape[1]
        return cross_entropy.num_terms(targets)

    def num_correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        labels = targets.argmax(dim=1) if targets.is_floating_point() else targets
        return (outputs.argmax(dim=1) == labels).sum()

    def _is_plain(self, targets: Tensor) -> bool:
        return self.class_weights is None and not self.smoothing and not targets.is_floating_point()

    def _by_torch(self, outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
        weights = None if self.class_weights is None else self.class_weights.to(outputs)
        return functional.cross_entropy(
            outputs, targets, weight=weights, reduction=reduction, label_smoothing=self.smoothing
        )

    def _shares(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Factors of -log p, [n, classes, ...]: what torch's loss with these settings is a sum of."""
        num_classes = logits.shape[1]
        by_class = torch.ones(num_classes, dtype=logits.dtype, device=logits.device)
        if self.class_weights is not None:
            by_class = self.class_weights.to(logits)
        by_class = by_class.view(-1, *[1] * (logits.dim() - 2))
        if targets.is_floating_point():
            return (targets.to(logits.dtype) * (1 - self.smoothing) + self.smoothing / num_classes) * by_class
        ignored = (targets == IGNORED).unsqueeze(1)
        sharp = cross_entropy.is_class(targets, logits) * by_class
        if not self.smoothing:
            return sharp
        # A label's weight is that of its class; what is smoothed away goes to all classes, each with its own weight.
        return ((1 - self.smoothing) * sharp + self.smoothing / num_classes * by_class).masked_fill(ignored, 0)


def check_labels(targets: Tensor, logits: torch.Size, ignored: int = IGNORED) -> None:
    """Check that the targets match the logits in shape and are classes.

    Args:
        targets: [N, ...], int64, ``IGNORED`` at positions that are ignored.
        logits: shape of the logits, [N, classes, ...].
        ignored: the label as given that is ignored.

    Raises:
        ValueError: the shapes do not match; a target is not a class (the message names the first); or all are ignored.
    """
    num_classes, expected = logits[1], logits[:1] + logits[2:]
    if targets.shape != expected:
        cure = ""
        if targets.shape in ((*expected, 1), (expected[0], 1, *expected[1:])):
            cure = f": give targets.squeeze({targets.dim() - 1 if targets.shape[-1] == 1 else 1})"
        elif targets.shape == logits:
            cure = ": give targets.argmax(1) where they are one-hot"
        elif targets.shape == logits[:-1]:
            cure = ": the classes are the second axis, as in logits.movedim(-1, 1)"
        raise ValueError(
            f"targets have shape {list(targets.shape)}, one label for each position of logits {list(logits)} is "
            f"{list(expected)}{cure}"
        )
    wrong = ((targets < 0) | (targets >= num_classes)) & (targets != IGNORED)
    if wrong.any():
        position = first(wrong)
        raise ValueError(
            f"targets{list(position)} is {int(targets[position])}, but the network has {num_classes} "
            f"{'class' if num_classes == 1 else 'classes'}: labels are 0 to {num_classes - 1}, or {ignored} to "
            "ignore a position"
        )


def _check_probabilities(targets: Tensor, logits: torch.Size) -> None:
    if targets.shape != logits:
        raise ValueError(
            f"targets of floating point are probabilities, one for each of the logits {list(logits)}, got shape "
            f"{list(targets.shape)}: classes are given as whole numbers, targets.long()"
        )
    check_finite(targets)
