"""Losses of torch in all their settings, each with targets drawn for it."""

import torch
from torch import nn


def drawn(shape, generator):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def classes_of(shape, generator, *, ignored=None):
    labels = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    if ignored is not None:
        labels[torch.rand(labels.shape, generator=generator) < 0.4] = ignored
        labels.view(-1)[0] = (ignored + 1) % shape[1]
    return labels


def cross_entropy(**settings):
    def make(shape, generator):
        given = dict(settings)
        if given.pop("weighted", False):
            given["weight"] = torch.rand(shape[1], generator=generator, dtype=torch.float64) + 0.1
        ignored = given.get("ignore_index", -100)
        return nn.CrossEntropyLoss(**given), classes_of(shape, generator, ignored=ignored)

    return make


def soft(**settings):
    def make(shape, generator):
        loss, _ = cross_entropy(**settings)(shape, generator)
        return loss, drawn(shape, generator).softmax(1)

    return make


def binary(**settings):
    def make(shape, generator):
        of = shape[1:]
        weights = {name: torch.rand(of, generator=generator, dtype=torch.float64) + 0.1 for name in settings}
        return nn.BCEWithLogitsLoss(**weights), torch.rand(shape, generator=generator, dtype=torch.float64)

    return make


LOSSES = {
    "classes": cross_entropy(),
    "weights": cross_entropy(weighted=True),
    "smoothing": cross_entropy(label_smoothing=0.2),
    "smoothing and weights": cross_entropy(label_smoothing=0.3, weighted=True),
    "ignored class": cross_entropy(ignore_index=0, weighted=True, label_smoothing=0.1),
    "ignored number": cross_entropy(ignore_index=255),
    "probabilities": soft(),
    "smoothed probabilities and weights": soft(label_smoothing=0.3, weighted=True),
    "squares": lambda shape, generator: (nn.MSELoss(), drawn(shape, generator)),
    "binary": binary(),
    "binary with weights": binary(weight=True, pos_weight=True),
}
