"""What a network and its data are called where people read."""

from __future__ import annotations

from sharpness.data.catalogue import FACTS
from sharpness.study.networks import TITLES


def subject(model: str, data: str, num_training: float | None = None) -> str:
    """``SimpleCNN, Fashion-MNIST, 5,000 images``.

    Args:
        model: a network's name in a study; one without a title keeps it.
        data: a data set's name, likewise.
        num_training: images of the training set; None says nothing of them.
    """
    title = FACTS[data].title if data in FACTS else data
    images = [] if num_training is None else [f"{num_training:,.0f} images"]
    return ", ".join([TITLES.get(model, model), title, *images])
