"""Build the loss of a run, and its weights at initialisation."""

from __future__ import annotations

from torch import Tensor

from sharpness.data.datasets import Dataset
from sharpness.hessian.loss import Loss, flatten
from sharpness.runtime.streams import stream
from sharpness.study.run import Run
from sharpness.training import models


def loss_of(run: Run, dataset: Dataset) -> tuple[Loss, Tensor, Tensor]:
    """Build the loss of a run, and its weights [P] and buffers [B] at initialisation, on the device of the data."""
    model = models.build(
        run.model,
        dataset.input_shape,
        dataset.num_classes,
        padding=run.padding,
        init_scale=run.init_scale,
        generator=stream(run.seed, "weights"),
    )
    weights, buffers = flatten(model)
    device = dataset.training.inputs.device
    return Loss(model, l2=run.l2), weights.to(device), buffers.to(device)
