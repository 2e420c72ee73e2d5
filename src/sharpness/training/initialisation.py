"""Build the loss of a run, and its weights at initialisation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from sharpness.data import datasets
from sharpness.data.datasets import Dataset, Split
from sharpness.hessian.loss import Loss, flatten
from sharpness.runtime import own
from sharpness.runtime.streams import stream
from sharpness.study import nested
from sharpness.study.run import Run
from sharpness.training import models, own_network
from sharpness.training.criteria import criterion_of


def dataset_of(run: Run, path: Path, device: torch.device) -> Dataset:
    """Open a run's prepared data; for a loss of numbers, classes become one for the class and zero elsewhere."""
    dataset = datasets.load(path, num_training=run.num_training, device=device, seed=run.seed)
    if run.loss not in ("mse", "bce_with_logits") or not dataset.num_classes:
        return dataset

    def with_numbers(split: Split) -> Split:
        numbers = functional.one_hot(split.targets, dataset.num_classes).float()
        # [n, ..., classes] to [n, classes, ...], as outputs have them.
        return Split(split.inputs, numbers.movedim(-1, 1).contiguous())

    return replace(
        dataset,
        training=with_numbers(dataset.training),
        validation=with_numbers(dataset.validation),
        test=with_numbers(dataset.test),
    )


def loss_of(run: Run, dataset: Dataset) -> tuple[Loss, Tensor, Tensor]:
    """Build the loss of a run, and its weights [P] and buffers [B] at initialisation, on the device of the data."""
    model = model_of(run, dataset)
    weights, buffers = flatten(model)
    device = dataset.training.inputs.device
    criterion = criterion_of(run.loss, dataset.num_classes)
    return Loss(model, l2=run.l2, criterion=criterion), weights.to(device), buffers.to(device)


def model_of(run: Run, dataset: Dataset) -> nn.Module:
    """Build the network of a run, with its weights at initialisation, on the CPU.

    Raises:
        ValueError: it does not fit the data.
    """
    if own.is_reference(run.model):
        return own_network.build(
            run.model,
            nested.as_mapping(run.model_args),
            input_shape=dataset.input_shape,
            num_classes=dataset.num_classes,
            seed=run.seed,
        )
    is_classes = dataset.num_classes and dataset.training.targets.dim() == (1 if run.loss == "cross_entropy" else 2)
    if len(dataset.input_shape) != 3 or not (is_classes or own.is_reference(run.loss)):
        raise ValueError(
            f"{run.model} needs images [channels, height, width] with one class each, {run.data} has examples of "
            f"{list(dataset.input_shape)} with targets of {list(dataset.training.targets.shape[1:])}"
        )
    channels, height, width = dataset.input_shape
    return models.build(
        run.model,
        (channels, height, width),
        dataset.num_classes,
        padding=run.padding,
        init_scale=run.init_scale,
        generator=stream(run.seed, "weights"),
    )
