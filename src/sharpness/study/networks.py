"""What is known of the networks before any is built: their settings, the images they need, and their parameters.

Standard library only: the workflow asks each time it plans. ``training.models`` builds the networks from these facts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

Padding = Literal["alternating", "same"]

# kernel size, widths of the four convolutions
SIMPLE_CNNS = {"simple_cnn": (3, (32, 32, 64, 64)), "simple_cnn_medium": (5, (100, 100, 200, 200))}
# residual blocks in each of the three stages, whether there is batch norm
RESNETS = {"resnet8": (1, False), "resnet32": (5, False), "resnet32_bn": (5, True)}
RESNET_STAGES = ((16, 1), (32, 2), (64, 2))  # width, and stride of the first block
# whether there is batch norm
VGGS = {"vgg11": False, "vgg11_bn": True}
NAMES = (*SIMPLE_CNNS, *RESNETS, *VGGS)
# In figures and reports.
TITLES = {
    "simple_cnn": "SimpleCNN",
    "simple_cnn_medium": "SimpleCNN of medium size",
    "resnet8": "ResNet-8",
    "resnet32": "ResNet-32",
    "resnet32_bn": "ResNet-32 with batch norm",
    "vgg11": "VGG-11",
    "vgg11_bn": "VGG-11 with batch norm",
}

VGG_WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # a pool after each group
VGG_DENSE = 512
SIMPLE_CNN_DENSE = 128


def check(
    name: str, input_shape: tuple[int, int, int], num_classes: int, padding: str, init_scale: float | None
) -> None:
    """Check that there is a network with these settings for such images.

    Raises:
        ValueError: the name is unknown, a setting does not apply, or the images are too small for the network.
    """
    if name not in NAMES:
        raise ValueError(f"unknown model {name!r}, known are {', '.join(NAMES)}")
    if padding not in ("alternating", "same"):
        raise ValueError(f"padding must be 'alternating' or 'same', got {padding!r}")
    if padding != "alternating" and name not in SIMPLE_CNNS:
        raise ValueError(f"padding is a setting of {', '.join(SIMPLE_CNNS)} only, got {padding!r} for {name}")
    if init_scale is not None and name not in RESNETS:
        raise ValueError(f"init_scale is a setting of {', '.join(RESNETS)} only, got {init_scale} for {name}")
    if init_scale is not None and not init_scale > 0:
        raise ValueError(f"init_scale must be positive, got {init_scale}")
    if num_classes < 1 or input_shape[0] < 1:
        raise ValueError(f"need at least one channel and one class, got {input_shape} and {num_classes}")
    smallest = smallest_size(name, padding)
    if min(input_shape[1:]) < smallest:
        shape = "x".join(map(str, input_shape))
        raise ValueError(f"{name} cannot work on images of {shape}: it needs at least {smallest}x{smallest} pixels")


def smallest_size(name: str, padding: str = "alternating") -> int:
    """Return the least height and width of an image that every layer of the network can take."""
    if name in SIMPLE_CNNS:
        # From the last layer to the first: a pool doubles, a valid convolution adds its kernel size less one.
        margin = SIMPLE_CNNS[name][0] - 1 if padding == "alternating" else 0
        return 2 * (2 + margin) + margin
    return 1 if name in RESNETS else 2 ** len(VGG_WIDTHS)


def smallest_batch(name: str) -> int:
    """Return the fewest images in a training step: batch norm of a vector needs two."""
    return 2 if VGGS.get(name, False) else 1


def default_init_scale(name: str) -> float:
    """Return the default factor on the variance of a ResNet's first weights.

    Without batch norm it is one over the number of residual blocks, 1/15 for the authors' ResNet-32 (configuration
    ``cifar10_resnet32_nobn_nodrop_3``), and so 1/3 for ``resnet8`` with its one block in each of three stages.
    """
    blocks_per_stage, batch_norm = RESNETS[name]
    return 1.0 if batch_norm else 1 / (3 * blocks_per_stage)


def parameter_sizes(
    name: str, input_shape: tuple[int, int, int], num_classes: int, *, padding: str = "alternating"
) -> dict[str, int]:
    """Return the number of entries of each parameter, by its name in the network, in order."""
    if name in SIMPLE_CNNS:
        return dict(_simple_cnn(name, input_shape, num_classes, padding))
    if name in RESNETS:
        return dict(_resnet(name, input_shape[0], num_classes))
    return dict(_vgg(input_shape, num_classes, batch_norm=VGGS[name]))


def _layer(place: str, fan_in: int, width: int) -> Iterator[tuple[str, int]]:
    """A convolution or a dense layer."""
    yield f"{place}.weight", fan_in * width
    yield f"{place}.bias", width


def _norm(place: str, width: int) -> Iterator[tuple[str, int]]:
    yield f"{place}.weight", width
    yield f"{place}.bias", width


def _simple_cnn(
    name: str, input_shape: tuple[int, int, int], num_classes: int, padding: str
) -> Iterator[tuple[str, int]]:
    kernel, widths = SIMPLE_CNNS[name]
    channels, *sizes = input_shape
    margin = kernel - 1 if padding == "alternating" else 0
    # Of each pair of convolutions the second is followed by a pool and a ReLU.
    for place, width in zip((0, 2, 5, 7), widths, strict=True):
        yield from _layer(str(place), channels * kernel**2, width)
        channels = width
        if place in (2, 7):
            sizes = [(size - margin) // 2 for size in sizes]
    yield from _layer("11", channels * math.prod(sizes), SIMPLE_CNN_DENSE)
    yield from _layer("13", SIMPLE_CNN_DENSE, num_classes)


def _resnet(name: str, in_channels: int, num_classes: int) -> Iterator[tuple[str, int]]:
    blocks_per_stage, batch_norm = RESNETS[name]
    channels, place = RESNET_STAGES[0][0], 0
    yield from _layer("0", in_channels * 9, channels)
    for width, first_stride in RESNET_STAGES:
        for block in range(blocks_per_stage):
            place += 1
            at = 0
            for fan_in in (channels, width):
                if batch_norm:
                    yield from _norm(f"{place}.residual.{at}", fan_in)
                    at += 1
                yield from _layer(f"{place}.residual.{at + 1}", fan_in * 9, width)  # behind a ReLU
                at += 2
            if channels != width or (block == 0 and first_stride != 1):
                yield from _layer(f"{place}.shortcut", channels, width)
            channels = width
    if batch_norm:
        yield from _norm(str(place + 1), channels)
    # Behind the norm, a ReLU and the mean over all pixels.
    yield from _layer(str(place + (4 if batch_norm else 3)), channels, num_classes)


def _vgg(input_shape: tuple[int, int, int], num_classes: int, *, batch_norm: bool) -> Iterator[tuple[str, int]]:
    channels, *sizes = input_shape
    place = 0
    if batch_norm:
        yield from _norm("0", channels)
        place += 1
    for widths in VGG_WIDTHS:
        for width in widths:
            yield from _layer(str(place), channels * 9, width)
            if batch_norm:
                yield from _norm(str(place + 1), width)
            place += 3 if batch_norm else 2
            channels = width
        place += 1
        sizes = [size // 2 for size in sizes]
    place += 1
    features = channels * math.prod(sizes)
    for _ in range(2):
        yield from _layer(str(place), features, VGG_DENSE)
        if batch_norm:
            yield from _norm(str(place + 1), VGG_DENSE)
        place += 3 if batch_norm else 2
        features = VGG_DENSE
    yield from _layer(str(place), features, num_classes)
