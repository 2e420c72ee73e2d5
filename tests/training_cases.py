"""Small data sets and runs of every kind, for tests of training."""

from types import SimpleNamespace

import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from sharpness.data.datasets import Dataset, Split
from sharpness.training import models

NUDGED = {
    "gamma": 0.1,
    "direction_tolerance": 0.1,
    "num_directions": 2,
    "direction_examples": 5,
    "direction_products": 9,
}
KINDS = {
    "plain": {},
    "momentum": {"momentum": 0.9, "l2": 0.01},
    "augmented": {"augment": True, "momentum": 0.9},
    "full batch": {"batch_size": "full", "momentum": 0.9},
    "nudged": NUDGED,
    "nudged and augmented, with momentum": {**NUDGED, "augment": True, "momentum": 0.9},
    "nesterov, with a cosine": {"optimizer": {"name": "nesterov", "momentum": 0.8}, "schedule": "cosine"},
    "nudged adamw, with warm-up": {**NUDGED, "optimizer": "adamw", "schedule": {"name": "linear", "warmup": 1.5}},
    "rmsprop": {"optimizer": {"name": "rmsprop", "momentum": 0.5}, "schedule": {"name": "constant", "warmup": 0.5}},
    "with a schedule": {"learning_rate_epochs": (1, 2), "learning_rate_factor": 0.1},
}


def dataset_of(problem, dtype=torch.float32, *, num_training=22):
    """22 training examples, 9 to validate and 8 to test, with classes that can be learnt."""
    splits = []
    for seed, size in ((1, num_training), (2, 9), (3, 8)):
        inputs = problem("conv", num_examples=size, seed=seed, dtype=dtype).inputs
        targets = torch.bucketize(inputs.mean(dim=(1, 2, 3)), torch.tensor([-0.05, 0.05], dtype=dtype))
        splits.append(Split(inputs, targets))
    return Dataset(*splits, num_classes=3)


def digits():
    """100 handwritten digits to train on, framed so that every network takes them, 50 to validate and 50 to test."""
    images, targets = load_digits(return_X_y=True)
    inputs = functional.pad(torch.from_numpy(images).float().view(-1, 1, 8, 8), (1, 1, 1, 1))
    inputs = (inputs - inputs.mean()) / inputs.std()
    parts = slice(100), slice(100, 150), slice(150, 200)
    return Dataset(*(Split(inputs[part], torch.from_numpy(targets)[part]) for part in parts), num_classes=10)


def of_digits(name):
    """A network of the package with its first weights, in place of a plain one."""
    return SimpleNamespace(model=models.build(name, (1, 10, 10), generator=torch.Generator().manual_seed(0)))
