"""The poster's claims: its own sentences, what decides each, and what a study needs for that."""

from __future__ import annotations

from dataclasses import dataclass

from sharpness.analysis.tables import RISE
from sharpness.study.kinds import FROM_EPOCH


@dataclass(frozen=True)
class Claim:
    """One claim of the poster."""

    finding: str  # the poster's words
    quantity: str  # what decides it, with its unit
    needs: str  # without which it cannot be decided


_RATES = "an experiment of kind eigenvalues with several rates in a grid learning_rate"
_BATCHES = "an experiment of kind eigenvalues with several sizes in a grid batch_size"
_SLICES = "an experiment of kind slices"
_STEPS = "an experiment of kind steps with alpha 0.5, 1 and 2"
_VARIANTS = "an experiment of kind variants with sgd and"
_NUDGED = "an experiment of kind nudged or table with gamma 1 and a gamma"
_PEAK = "Larger learning rate or a smaller batch-size correlates with a smaller and earlier peak of the spectral norm"
_ORDER_OF_MAGNITUDE = "NSGD can steer towards an order of magnitude sharper or wider minima"

CLAIMS = {
    "a": Claim(
        "The evolution of the largest eigenvalues always follow a similar pattern, with a fast increase in the "
        "first epochs and a steady decrease thereafter",
        "fraction of runs whose largest eigenvalue rises to at least twice that at initialisation, peaks in the "
        "first half of what was measured and ends below the peak; more than half",
        "an experiment of kind eigenvalues",
    ),
    "b": Claim(
        f"{_PEAK}: smaller with a larger learning rate",
        "highest largest eigenvalue of a run; ratio of the largest learning rate to the smallest, below 1",
        _RATES,
    ),
    "c": Claim(
        f"{_PEAK}: earlier with a larger learning rate",
        "epoch of the highest largest eigenvalue; ratio of the largest learning rate to the smallest, below 1",
        _RATES,
    ),
    "d": Claim(
        f"{_PEAK}: smaller with a smaller batch-size",
        "highest largest eigenvalue of a run; ratio of the smallest batch to the largest, below 1",
        _BATCHES,
    ),
    "e": Claim(
        f"{_PEAK}: earlier with a smaller batch-size",
        "epoch of the highest largest eigenvalue; ratio of the smallest batch to the largest, below 1",
        _BATCHES,
    ),
    "f": Claim(
        "After a couple of epochs the loss in the subspace starts to have a bowl-like shape",
        f"fraction of a run's slices along the top eigenvector from epoch {FROM_EPOCH} on that have their minimum "
        "within 2 expected steps and rise monotonically on both sides out to 8; more than half",
        _SLICES,
    ),
    "g": Claim(
        "Halving the step size can further minimize the loss in this direction",
        "relative change of the loss in per cent after a step along the top eigenvector: half SGD's step less the "
        "whole step, in percentage points, below 0",
        _STEPS,
    ),
    "h": Claim(
        "Increasing the step-size by a factor of two consistently increases the loss, on average",
        "relative change of the loss in per cent after twice SGD's step along the top eigenvector, above 0",
        _STEPS,
    ),
    "i": Claim(
        "SGD variant following only the projection of the gradient on the top eigenvector finds a flatter region",
        "largest eigenvalue, mean over the last quarter of the measured steps; ratio to SGD, below 1",
        f"{_VARIANTS} top_only",
    ),
    "j": Claim(
        "SGD variant subtracting this projection from the gradient, finds a sharper region while achieving a "
        "similar loss level as vanilla SGD",
        "largest eigenvalue and loss, means over the last quarter of the measured steps; ratios to SGD, that of "
        "the eigenvalue above 1, that of the loss between 0.8 and 1.25",
        f"{_VARIANTS} top_removed",
    ),
    "k": Claim(
        f"{_ORDER_OF_MAGNITUDE}: sharper with gamma below 1",
        "Frobenius norm from the tracked eigenvalues at the last checkpoint; ratio of the smallest gamma to "
        "gamma 1, above 3.16 (nearer to 10 than to 1 on a logarithmic scale)",
        f"{_NUDGED} below 1",
    ),
    "l": Claim(
        f"{_ORDER_OF_MAGNITUDE}: wider with gamma above 1",
        "Frobenius norm from the tracked eigenvalues at the last checkpoint; ratio of the largest gamma to "
        "gamma 1, below 0.316 (nearer to 0.1 than to 1 on a logarithmic scale)",
        f"{_NUDGED} above 1",
    ),
    "m": Claim(
        "We find sharper minima with similar generalization performance",
        "test accuracy in per cent at the best validation accuracy: smallest gamma less gamma 1, in percentage "
        "points, between -1 and 1",
        f"{_NUDGED} below 1",
    ),
    "n": Claim(
        "SGD can be easily nudged towards much sharper regions, while slightly improving training speed",
        "validation accuracy in per cent at the study's validation_epoch: smallest gamma less gamma 1, in "
        "percentage points, above 0",
        f"{_NUDGED} below 1",
    ),
    "o": Claim(
        "A high learning rate influences SGD to visit flatter loss regions",
        "at the last checkpoint, the largest eigenvalue (of a table of results: the Frobenius norm); ratio of the "
        "largest learning rate to the flattest of the others, below 1",
        f"{_RATES}, or one of kind table with a grid sgd",
    ),
    "p": Claim(
        "Larger learning rate or a smaller batch-size correlates with a smaller and earlier peak of the "
        "subsequent largest eigenvalue",
        "height and epoch of the peak of the second eigenvalue, along learning rates and along batch sizes; "
        "ratios, all four below 1",
        f"{_RATES} and in a grid batch_size, and two eigenvalues",
    ),
    "q": Claim(
        "Loss surface along the sharpest direction assumes a bowl-like shape with width adapted to the learning "
        "rate and batch size",
        f"distance in weight space along the top eigenvector, downhill, at which the loss is {RISE} times as high, "
        f"mean over checkpoints from epoch {FROM_EPOCH} on; ratios of the largest learning rate to the smallest, and "
        "of the smallest batch to the largest, both above 1",
        "an experiment of kind widths or slices with several learning rates and several batch sizes",
    ),
    "r": Claim(
        "“Escaping sharp minima” happens in the beginning of training",
        "mean absolute difference of log10 of the largest eigenvalue between a run whose rate changes and one "
        "whose rate does not, averaged over time in windows of equal length after the change: earliest change less "
        "latest, in decades, above 0",
        "an experiment of kind schedules with an early and a late change",
    ),
    "s": Claim(
        "Flatness has been shown to correlate with good generalization performance",
        "Spearman's correlation of log10 of the largest eigenvalue at the last checkpoint with the test accuracy "
        "at the last epoch, over all runs, below 0",
        "experiments of kind eigenvalues, nudged, schedules or table",
    ),
    "t": Claim(
        "The SGD step-size in the direction of the sharpest direction does not minimize the loss",
        "relative change of the loss in per cent after SGD's step along the top eigenvector less that after half or "
        "after twice the step, in percentage points, either above 0",
        _STEPS,
    ),
}
