"""The poster's claims: its own sentences, and what decides each."""

from __future__ import annotations

from dataclasses import dataclass

from sharpness.analysis.claims.rules import ABOUT_TEN, ALPHAS, BOTTOM, DOUBLED, POINT, SAME, WALL, WALLS
from sharpness.analysis.peak import FALL
from sharpness.analysis.rise import RISE
from sharpness.study.kinds import FROM_EPOCH


@dataclass(frozen=True)
class Claim:
    """One claim of the poster."""

    finding: str  # the poster's words
    quantity: str  # what decides it, with its unit


_PEAK = "Larger learning rate or a smaller batch-size correlates with a smaller and earlier peak of the spectral norm"
_TIME = f"log10 of the epoch of the first peak of the largest eigenvalue, which then falls to {FALL:.0%} of it"
_MINIMISER = (
    "log10 of the factor on SGD's step along the top eigenvector at which the parabola through the mean relative "
    f"changes of the loss after 0, {', '.join(f'{alpha:g}' for alpha in ALPHAS)} times the step is lowest"
)
_NORM = "log10 of the Frobenius norm from the tracked eigenvalues, at the last checkpoint and at equal training loss"
_ORDER_OF_MAGNITUDE = "NSGD can steer towards an order of magnitude sharper or wider minima"

CLAIMS = {
    "a": Claim(
        "The evolution of the largest eigenvalues always follow a similar pattern, with a fast increase in the "
        "first epochs and a steady decrease thereafter",
        f"log10 of the largest eigenvalue, mean over configurations: its highest value less that at initialisation, "
        f"above {DOUBLED:.2f} decades (rises); and its slope over the epochs after the peak, below 0 (declines)",
    ),
    "b": Claim(
        f"{_PEAK}: smaller with a larger learning rate",
        "log10 of the largest eigenvalue at its highest; slope in decades per decade of the learning rate, falls",
    ),
    "c": Claim(
        f"{_PEAK}: earlier with a larger learning rate",
        f"{_TIME}; slope in decades per decade of the learning rate, falls",
    ),
    "d": Claim(
        f"{_PEAK}: smaller with a smaller batch-size",
        "log10 of the largest eigenvalue at its highest; slope in decades per decade of the batch size, rises",
    ),
    "e": Claim(
        f"{_PEAK}: earlier with a smaller batch-size",
        f"{_TIME}; slope in decades per decade of the batch size, rises",
    ),
    "f": Claim(
        "After a couple of epochs the loss in the subspace starts to have a bowl-like shape",
        f"loss along the top eigenvector from epoch {FROM_EPOCH} on, mean over slices: distance of the minimum from "
        f"the weights, below {BOTTOM:g} expected steps; and the lower of the two rises out to {WALLS:g} steps, above "
        f"{WALL:g} % of the loss",
    ),
    "g": Claim(
        "Halving the step size can further minimize the loss in this direction",
        f"{_MINIMISER}, below 0",
    ),
    "h": Claim(
        "Increasing the step-size by a factor of two consistently increases the loss, on average",
        "relative change of the loss in per cent after twice SGD's step along the top eigenvector, above 0",
    ),
    "i": Claim(
        "SGD variant following only the projection of the gradient on the top eigenvector finds a flatter region",
        "log10 of the largest eigenvalue, mean over the last quarter of the measured steps: less that of SGD, below 0",
    ),
    "j": Claim(
        "SGD variant subtracting this projection from the gradient, finds a sharper region while achieving a "
        "similar loss level as vanilla SGD",
        "log10 of largest eigenvalue and loss, means over the last quarter of the measured steps, less those of SGD: "
        f"that of the eigenvalue above 0, that of the loss within {SAME:g} decades",
    ),
    "k": Claim(
        f"{_ORDER_OF_MAGNITUDE}: sharper with gamma below 1",
        f"{_NORM}: smallest gamma less gamma 1, above {ABOUT_TEN:g} decades in both",
    ),
    "l": Claim(
        f"{_ORDER_OF_MAGNITUDE}: wider with gamma above 1",
        f"{_NORM}: largest gamma less gamma 1, below -{ABOUT_TEN:g} decades in both",
    ),
    "m": Claim(
        "We find sharper minima with similar generalization performance",
        "test accuracy in per cent at the best epoch by validation and at the last: smallest gamma less gamma 1, "
        f"within {POINT:g} percentage point in both",
    ),
    "n": Claim(
        "SGD can be easily nudged towards much sharper regions, while slightly improving training speed",
        "validation accuracy in per cent, mean over the epochs of the first fifth of training: smallest gamma less "
        "gamma 1, in percentage points, above 0",
    ),
    "o": Claim(
        "A high learning rate influences SGD to visit flatter loss regions",
        "log10 of the largest eigenvalue (of a table of results: of the Frobenius norm) at the last checkpoint of "
        "plain SGD; slope in decades per decade of the learning rate, falls",
    ),
    "p": Claim(
        "Larger learning rate or a smaller batch-size correlates with a smaller and earlier peak of the "
        "subsequent largest eigenvalue",
        "height and epoch of the peak of the second eigenvalue: falls with the learning rate and rises with the batch "
        "size, all four",
    ),
    "q": Claim(
        "Loss surface along the sharpest direction assumes a bowl-like shape with width adapted to the learning "
        "rate and batch size",
        f"distance along the top eigenvector, downhill, at which the loss has risen by {RISE:g} nats, from epoch "
        f"{FROM_EPOCH} on: rises with the learning rate and falls with the batch size, both",
    ),
    "r": Claim(
        "“Escaping sharp minima” happens in the beginning of training",
        "mean absolute difference of log10 of the largest eigenvalue between a run whose rate changes and one "
        "whose rate does not, averaged over time in windows of equal length after the change: earliest change less "
        f"latest, above 0; within {SAME:g} decades it does not hold",
    ),
    "s": Claim(
        "Flatness has been shown to correlate with good generalization performance",
        "rank correlation of the largest eigenvalue and the test accuracy at the end, over all runs of a seed, given "
        "their training loss: Fisher's z, below 0",
    ),
    "t": Claim(
        "The SGD step-size in the direction of the sharpest direction does not minimize the loss",
        f"{_MINIMISER}, on either side of 0",
    ),
}

_DECADES, _SLOPE = "decades", "decades per decade"
# Of the effects, by claim; by claim and part where a part has another.
_UNITS = {
    **dict.fromkeys("agijklrt", _DECADES),
    **dict.fromkeys("bcdeopq", _SLOPE),
    "a, declines": "decades per epoch",
    "f": "steps",
    "f, higher": "%",
    "h": "%",
    **dict.fromkeys("mn", "points"),
    "s": "Fisher's z",
}


def unit_of(claim: str, part: str = "") -> str:
    """The unit of a claim's effect.

    Args:
        claim: its letter.
        part: of the claim, whose effect is shown; empty if it has one part.
    """
    return _UNITS.get(f"{claim}, {part}", _UNITS[claim])


# For a reader who has a minute.
IN_SHORT = {
    "a": "the largest eigenvalue rises fast, peaks, and then declines",
    "b": "the largest eigenvalue's peak is lower with a larger learning rate",
    "c": "the peak is earlier with a larger learning rate",
    "d": "the largest eigenvalue's peak is lower with a smaller batch",
    "e": "the peak is earlier with a smaller batch",
    "f": "slices along the top eigenvector become bowls within a couple of epochs",
    "g": "half of SGD's step along the top eigenvector lowers the loss further",
    "h": "twice the step raises the loss",
    "i": "SGD that follows only the top eigenvector ends flatter",
    "j": "SGD that leaves the top eigenvector out ends sharper, at the same loss",
    "k": "nudging with γ < 1 ends sharper by an order of magnitude",
    "l": "nudging with γ > 1 ends flatter by an order of magnitude",
    "m": "nudging with γ < 1 keeps the test accuracy within a point",
    "n": "nudging with a small γ trains faster at first",
    "o": "a larger learning rate ends flatter",
    "p": "the peak of the second eigenvalue is lower and earlier, too",
    "q": "the width of the bowl adapts to learning rate and batch size",
    "r": "sharp regions are left at the beginning of training",
    "s": "at equal training loss, flatter minima generalise better",
    "t": "SGD's step along the top eigenvector does not minimise the loss along it",
}
