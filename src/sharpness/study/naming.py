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
    images = [] if num_training is None else [f"{num_training:,.0f} {'images' if data in FACTS else 'examples'}"]
    return ", ".join([title_of_value("model", model), title_of_value("data", data), *images])


def title_of_value(field: str, value: str) -> str:
    """The name that people know of a run's network or data set; of other fields, the value itself."""
    if field == "data":
        return FACTS[value].title if value in FACTS else value
    return TITLES.get(value, value) if field == "model" else value
