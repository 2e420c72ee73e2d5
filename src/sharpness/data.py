"""A data set is tensors on the device: no workers, no Python per image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from sharpness.device import without_waiting

MAX_SHIFT = 4  # pixels; the authors' 12.5 % of 32


@dataclass(frozen=True)
class Split:
    """Examples with their classes."""

    inputs: Tensor  # [N, channels, H, W], float32
    targets: Tensor  # [N], int64


@dataclass(frozen=True)
class Dataset:
    """The three splits of a data set, normalised by the statistics of the training split."""

    training: Split
    validation: Split
    test: Split
    num_classes: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.training.inputs.shape[1:]
        return channels, height, width


def load(path: Path, *, num_training: int, device: torch.device | str) -> Dataset:
    """The prepared data set, normalised, on the device.

    Args:
        path: what ``save`` wrote of ``prepare``, with ``num_classes`` in the metadata.
        num_training: use the first so many images of the training split. They alone give the mean image that is
            subtracted from all images and the one standard deviation by which these are divided.
        device: where the tensors go.

    Raises:
        ValueError: the training split is smaller.
    """
    with safe_open(path, framework="pt") as file:
        num_classes = int(file.metadata()["num_classes"])
    tensors = load_file(path)
    available = len(tensors["training_labels"])
    if not 1 <= num_training <= available:
        raise ValueError(
            f"num_training must be from 1 to {available}, the training split in {path}, got {num_training}"
        )
    for kind in ("images", "labels"):
        tensors[f"training_{kind}"] = tensors[f"training_{kind}"][:num_training]
    mean, std = _statistics(tensors["training_images"])

    def split(name: str) -> Split:
        images = tensors[f"{name}_images"].to(device)
        # One multiplication by the same number on every device: a division is rounded differently on some.
        inputs = (images.float() - mean.to(device)) * (1 / std)
        return Split(inputs.contiguous(), tensors[f"{name}_labels"].to(device))

    return Dataset(split("training"), split("validation"), split("test"), num_classes)


def _statistics(images: Tensor) -> tuple[Tensor, float]:
    """The mean image [channels, H, W] in single precision, and the standard deviation of all pixels together."""
    total = torch.zeros(images.shape[1:], dtype=torch.float64)
    squares = 0.0
    # In parts, for the memory; both sums are of integers (or 256ths) below 2^53, so nothing is rounded.
    for part in torch.split(images, 1024):
        pixels = part.double()
        total += pixels.sum(dim=0)
        squares += pixels.square().sum().item()
    # ASSUME: the deviation is that of the pixels as they are, about their one common mean, not about the mean image.
    variance = squares / images.numel() - (total.sum().item() / images.numel()) ** 2
    if not variance > 0:
        raise ValueError("the training images are all of one grey: there is nothing to normalise by")
    return (total / len(images)).float(), variance**0.5


def augment(inputs: Tensor, *, generator: torch.Generator) -> Tensor:
    """Shift each image at random by up to four pixels along both axes, then mirror it with probability one half.

    Pixels that come in from outside repeat the nearest edge.

    Args:
        inputs: [n, channels, H, W], on any device.
        generator: on the CPU, so that all devices see the same numbers.

    Returns:
        [n, channels, H, W].
    """
    num_images, channels, height, width = inputs.shape
    # ASSUME: whole pixels, each of the nine shifts equally likely; the authors' Keras shifts by fractions of a pixel.
    shifts = torch.randint(-MAX_SHIFT, MAX_SHIFT + 1, (2, num_images, 1), generator=generator)
    mirrored = torch.rand(num_images, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, torch.arange(width - 1, -1, -1), torch.arange(width))
    # Where each pixel of the result comes from: [n, H] and [n, W].
    rows = (torch.arange(height) - shifts[0]).clamp(0, height - 1)
    columns = (columns - shifts[1]).clamp(0, width - 1)
    rows, columns = (without_waiting(places, inputs.device) for places in (rows, columns))
    images = torch.arange(num_images, device=inputs.device)[:, None, None, None]
    planes = torch.arange(channels, device=inputs.device)[None, :, None, None]
    return inputs[images, planes, rows[:, None, :, None], columns[:, None, None, :]]


def epoch_order(num_examples: int, batch_size: int, *, generator: torch.Generator) -> Tensor:
    """The examples of each step of one epoch, in random order, without the incomplete last batch.

    Returns:
        [num_steps, batch_size], indices on the CPU, each at most once.
    """
    if not 1 <= batch_size <= num_examples:
        raise ValueError(f"batch_size must be from 1 to the {num_examples} training examples, got {batch_size}")
    num_steps = num_examples // batch_size
    return torch.randperm(num_examples, generator=generator)[: num_steps * batch_size].view(num_steps, batch_size)
