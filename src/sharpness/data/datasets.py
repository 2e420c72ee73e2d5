"""Data sets as tensors on the device: no workers, no Python per image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sharpness.data import arrays
from sharpness.runtime.device import to_device_async
from sharpness.runtime.sealed import DamagedError, open_sealed
from sharpness.runtime.streams import stream

# The purpose of the examples on which curvature is measured at every checkpoint.
EXAMPLES = "examples of the Hessian"
MAX_SHIFT = 4  # pixels; the authors' 12.5 % of 32


@dataclass(frozen=True)
class Split:
    """Examples with their classes, or with what else is to be predicted."""

    inputs: Tensor  # [N, channels, H, W], float32; of one's own data [N, ...], float32 or int64
    targets: Tensor  # [N], int64; of one's own data [N, ...], float32 or int64

    def __repr__(self) -> str:
        """One line, without its data."""
        return f"<{type(self).__name__}: inputs {list(self.inputs.shape)}, targets {list(self.targets.shape)}>"


def drawn(
    split: Split, num_examples: int, *, seed: int, purpose: str = EXAMPLES, after: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw examples: of one random order of all, by seed and purpose, the first ones behind the first ``after``."""
    order = torch.randperm(len(split.targets), generator=stream(seed, purpose))
    chosen = order[after : after + num_examples].to(split.targets.device)
    return split.inputs[chosen], split.targets[chosen]


@dataclass(frozen=True)
class Dataset:
    """The three splits of a data set; images are normalised by the statistics of the training split."""

    training: Split
    validation: Split
    test: Split
    num_classes: int  # 0 where the targets are no classes
    digest: str = ""  # of all images and labels of its file; empty without a file

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an example: channels, height and width of an image."""
        return tuple(self.training.inputs.shape[1:])


def load(path: Path, *, num_training: int, device: torch.device | str, seed: int = 0) -> Dataset:
    """Load a prepared data set onto the device, and normalise its images.

    Args:
        path: written by ``originals.save``, with ``num_classes`` in the metadata.
        num_training: number of images to use, from the start of the training split. All images are normalised by the
            mean image and the single standard deviation of these.
        device: of the tensors.
        seed: by which the validation and test splits of one's own data are drawn.

    Raises:
        ValueError: the training split is smaller, or its images are constant.
        DamagedError: the file is damaged or cut short, or an image or a label is invalid.
    """
    with open_sealed(path) as file:
        tensors = {name: file.tensor(name) for name in file.digests}
        num_classes = int(file.header.get("num_classes", 0))
        digest = hashlib.sha256(json.dumps(sorted(file.digests.items())).encode()).hexdigest()
    if "inputs" in tensors:
        return _own(tensors, path, num_training=num_training, device=device, seed=seed, digest=digest[:12])
    _check(tensors, num_classes, path)
    available = len(tensors["training_labels"])
    if not 1 <= num_training <= available:
        raise ValueError(
            f"num_training must be from 1 to {available}, the training split in {path}, got {num_training}"
        )
    for kind in ("images", "labels"):
        tensors[f"training_{kind}"] = tensors[f"training_{kind}"][:num_training]
    try:
        mean, std = _statistics(tensors["training_images"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None

    def split(name: str) -> Split:
        images = tensors[f"{name}_images"].to(device)
        if len(images) != len(tensors[f"{name}_labels"]):
            raise DamagedError(f"{path} has not as many labels as images in its {name} split: remove it")
        # Multiply by the reciprocal, since some devices round a division differently.
        inputs = (images.float() - mean.to(device)) * (1 / std)
        return Split(inputs.contiguous(), tensors[f"{name}_labels"].to(device))

    return Dataset(split("training"), split("validation"), split("test"), num_classes, digest[:12])


def _own(
    tensors: Mapping[str, Tensor], path: Path, *, num_training: int, device: torch.device | str, seed: int, digest: str
) -> Dataset:
    """Split a user's own data by the seed; the test set too, unless there is one."""
    inputs, targets = tensors["inputs"], tensors["targets"]
    num_test = len(tensors.get("test_inputs", ()))
    sizes = arrays.split_sizes(len(inputs), num_test)
    order = torch.randperm(len(inputs), generator=stream(seed, "split of the data"))
    if not 1 <= num_training <= sizes[0]:
        raise ValueError(
            f"num_training must be from 1 to {sizes[0]}, the training split of {len(inputs)} examples in {path}, "
            f"got {num_training}"
        )
    training, rest = order[:num_training], order[sizes[0] :]
    chosen = {"training": training, "validation": rest[: sizes[1]], "test": rest[sizes[1] :]}
    mean, std = _statistics(inputs[training]) if inputs.dtype == torch.uint8 else (torch.zeros(()), 1.0)
    is_classes = not targets.is_floating_point()

    def split(name: str) -> Split:
        is_given = name == "test" and num_test
        some = tensors["test_inputs"] if is_given else inputs[chosen[name]]
        labels = tensors["test_targets"] if is_given else targets[chosen[name]]
        if some.dtype == torch.uint8:
            some = (some.to(device).float() - mean.to(device)) * (1 / std)
        return Split(some.to(device).contiguous(), labels.to(device))

    all_targets = [targets, *([tensors["test_targets"]] if num_test else [])]
    num_classes = max(int(some.max()) for some in all_targets) + 1 if is_classes else 0
    return Dataset(split("training"), split("validation"), split("test"), num_classes, digest)


def _check(tensors: Mapping[str, Tensor], num_classes: int, path: Path) -> None:
    """Check that all splits are complete, images are finite and labels are classes."""
    for split in ("training", "validation", "test"):
        images, labels = tensors.get(f"{split}_images"), tensors.get(f"{split}_labels")
        if images is None or labels is None or images.dim() != 4 or labels.dim() != 1:
            raise DamagedError(f"{path} holds no images with their labels as its {split} split: remove it")
        if labels.dtype != torch.int64 or not len(labels):
            raise DamagedError(f"{path}: labels of the {split} split must be whole numbers, at least one of them")
        if not bool(((labels >= 0) & (labels < num_classes)).all()):
            raise DamagedError(
                f"{path}: labels of the {split} split must be from 0 to {num_classes - 1}, "
                f"got {int(labels.min())} to {int(labels.max())}"
            )
        if images.is_floating_point() and not bool(torch.isfinite(images).all()):
            number = int((~torch.isfinite(images)).sum())
            raise DamagedError(f"{path}: {number:,} pixels of the {split} split are not finite numbers")


def _statistics(images: Tensor) -> tuple[Tensor, float]:
    """Mean image [channels, H, W], float32, and the standard deviation of all pixels."""
    total = torch.zeros(images.shape[1:], dtype=torch.float64)
    squares = 0.0
    # In parts, to save memory. Both sums are exact: integers (or 256ths) below 2^53.
    for part in torch.split(images, 1024):
        pixels = part.double()
        total += pixels.sum(dim=0)
        squares += pixels.square().sum().item()
    # ASSUME: the deviation is that of the raw pixels about their common mean, not about the mean image.
    variance = squares / images.numel() - (total.sum().item() / images.numel()) ** 2
    if not variance > 0:
        raise ValueError("the training images are all of one grey: there is nothing to normalise by")
    return (total / len(images)).float(), variance**0.5


def augment(inputs: Tensor, *, generator: torch.Generator) -> Tensor:
    """Shift each image at random by up to four pixels along both axes, then mirror it with probability one half.

    Pixels from outside the image repeat the nearest edge.

    Args:
        inputs: [n, channels, H, W], on any device.
        generator: on the CPU, so that all devices draw the same numbers.

    Returns:
        [n, channels, H, W].
    """
    num_images, channels, height, width = inputs.shape
    # ASSUME: whole pixels, each of the nine shifts equally likely; the authors' Keras shifts by fractions of a pixel.
    shifts = torch.randint(-MAX_SHIFT, MAX_SHIFT + 1, (2, num_images, 1), generator=generator)
    mirrored = torch.rand(num_images, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, torch.arange(width - 1, -1, -1), torch.arange(width))
    # Source row and column of each pixel: [n, H] and [n, W].
    rows = (torch.arange(height) - shifts[0]).clamp(0, height - 1)
    columns = (columns - shifts[1]).clamp(0, width - 1)
    rows, columns = (to_device_async(index, inputs.device) for index in (rows, columns))
    images = torch.arange(num_images, device=inputs.device)[:, None, None, None]
    planes = torch.arange(channels, device=inputs.device)[None, :, None, None]
    return inputs[images, planes, rows[:, None, :, None], columns[:, None, None, :]]


def epoch_order(num_examples: int, batch_size: int, *, generator: torch.Generator) -> Tensor:
    """Shuffle the examples of one epoch into batches; an incomplete last batch is dropped.

    Returns:
        [num_steps, batch_size], indices on the CPU, each at most once.
    """
    if not 1 <= batch_size <= num_examples:
        raise ValueError(f"batch_size must be from 1 to the {num_examples} training examples, got {batch_size}")
    num_steps = num_examples // batch_size
    return torch.randperm(num_examples, generator=generator)[: num_steps * batch_size].view(num_steps, batch_size)
