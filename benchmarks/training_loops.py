"""Loops of training: each makes a function that does one update on fresh images.

Images are random: the time of a step does not depend on what they show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from sharpness.data.datasets import augment
from sharpness.hessian.loss import Loss, flatten
from sharpness.training import models
from sharpness.training.descent import Descent

_NUM_IMAGES = 8192
_RATE = 0.001

Step = Callable[[], None]
# Of a network, a batch size and a device.
Loop = Callable[[str, int, torch.device], Step]


def _images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (_NUM_IMAGES, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return images, torch.randint(0, 10, (_NUM_IMAGES,), generator=generator)


def _normalised(images: Tensor) -> Tensor:
    return (images.float() / 255 - 0.5) / 0.25


class _Images(TorchDataset[tuple[Tensor, Tensor]]):
    """As torchvision's CIFAR-10 hands them out, one by one, here without the detour over PIL."""

    def __init__(self) -> None:
        self._images, self._targets = _images()
        self._transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4, padding_mode="edge"),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.25] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._transform(self._images[index]), self._targets[index]


def _endless(loader: DataLoader[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


def _as_published(model: nn.Module) -> nn.Module:
    """The network with each ReLU before the pool, as it is usually written; its outputs are the same."""
    if isinstance(model, nn.Sequential):
        for index in range(1, len(model)):
            if isinstance(model[index], nn.ReLU) and isinstance(model[index - 1], nn.MaxPool2d):
                model[index - 1], model[index] = model[index], model[index - 1]
    return model


def _torchs(network: str, device: torch.device) -> Callable[[Tensor, Tensor], None]:
    model = _as_published(models.build(network)).train().to(device)
    optimiser = torch.optim.SGD(model.parameters(), lr=_RATE)

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimiser.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def plain(network: str, batch: int, device: torch.device) -> Step:
    """torchvision's transforms, a DataLoader with two workers, torch's SGD."""
    gpu = device.type == "cuda"
    loader = DataLoader(
        _Images(), batch, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True, pin_memory=gpu
    )
    batches, step = _endless(loader), _torchs(network, device)
    return lambda: step(*(part.to(device, non_blocking=True) for part in next(batches)))


def tensors(network: str, batch: int, device: torch.device) -> Step:
    """All images in one tensor, batches of it, torch's SGD; no augmentation."""
    images, targets = (part.to(device) for part in _images())
    inputs, step, orders = _normalised(images), _torchs(network, device), _orders(batch, device)

    def one() -> None:
        order = next(orders)
        step(inputs[order], targets[order])

    return one


def _orders(batch: int, device: torch.device) -> Iterator[Tensor]:
    while True:
        yield from torch.split(torch.randperm(_NUM_IMAGES).to(device), batch)


def _ours(*, augmented: bool = False, low_precision: bool = False, nudged: bool = False) -> Loop:
    def of(network: str, batch: int, device: torch.device) -> Step:
        images, targets = (part.to(device) for part in _images())
        inputs, model, orders = _normalised(images), models.build(network).to(device), _orders(batch, device)
        weights, buffers = flatten(model)
        descent = Descent(
            *(Loss(model, l2=0.0), weights, buffers), learning_rate=_RATE, momentum=0.0, low_precision=low_precision
        )
        generator = torch.Generator().manual_seed(0)
        rows = torch.linalg.qr(torch.randn(len(weights), 5)).Q.T.contiguous().to(device) if nudged else None

        def step() -> None:
            order = next(orders)
            batch_inputs = inputs[order]
            if augmented:
                batch_inputs = augment(batch_inputs, generator=generator)
            descent.step(batch_inputs, targets[order], rows, gamma=0.1 if nudged else 1.0, gamma_outside=1.0)

        return step

    return of


# By name in the table.
LOOPS: dict[str, Loop] = {
    "DataLoader": plain,
    "tensors": tensors,
    "ours": _ours(),
    "ours, augmented": _ours(augmented=True),
    "ours, bfloat16": _ours(low_precision=True),
    "ours, nudged": _ours(nudged=True),
}
# Bounds beside them, and the rows and columns of a matrix whose product has the highest rate of operations.
FLOOR, PEAK, PEAK_SIZE = "floor", "peak", 2048
IN_WORDS = {
    "DataLoader": "torchvision's transforms (crop with padding 4, flip, normalise) in a DataLoader with two workers,"
    " `torch.optim.SGD`",
    "tensors": "one tensor of images, indexed; `torch.optim.SGD`; no augmentation",
    "ours": "this project in float32, no augmentation",
    "ours, augmented": "this project in float32, shift and flip",
    "ours, bfloat16": "this project, bfloat16 passes, no augmentation; left out where the processor emulates them",
    "ours, nudged": "this project in float32 with five directions, without the search for them",
    FLOOR: "no loop: the multiplications of the layers alone, forward and backward, in float32",
    PEAK: "no loop: as many operations as the floor, at the rate of a product of two matrices in float32 of"
    f" {PEAK_SIZE}x{PEAK_SIZE}",
}
