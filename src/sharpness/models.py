"""The networks of the experiments: layers and their first weights, no loss, no device."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Padding = Literal["alternating", "same"]

# kernel size, widths of the four convolutions
SIMPLE_CNNS = {"simple_cnn": (3, (32, 32, 64, 64)), "simple_cnn_medium": (5, (100, 100, 200, 200))}
# residual blocks in each of the three stages, whether there is batch norm
RESNETS = {"resnet8": (1, False), "resnet32": (5, False), "resnet32_bn": (5, True)}
# whether there is batch norm
VGGS = {"vgg11": False, "vgg11_bn": True}
NAMES = (*SIMPLE_CNNS, *RESNETS, *VGGS)

VGG_WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # a pool after each group
# Standard deviation of a standard normal distribution cut at two.
CUT_NORMAL_STD = 0.87962566103423978


def build(
    name: str,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    num_classes: int = 10,
    *,
    padding: Padding = "alternating",
    init_scale: float | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """A network with its first weights, on the CPU, in single precision.

    Args:
        name: one of ``NAMES``.
        input_shape: channels, height and width of an image.
        num_classes: number of outputs.
        padding: of the convolutions of a SimpleCNN: "alternating" is same, valid, same, valid as in the authors'
            code, "same" is all same. The other networks have one padding only.
        init_scale: factor on the variance of the first weights of a ResNet's convolutions; None is 1 with batch norm
            and one over the number of residual blocks without. The other networks have none.
        generator: source of all random numbers, on the CPU; None is a new one with a fixed seed.

    Raises:
        ValueError: the name is unknown, a setting does not apply, or the images are too small for the network.
    """
    _check(name, input_shape, num_classes, padding, init_scale)
    # On the meta device nothing is drawn: torch's own initialisation would move the global generator.
    with torch.device("meta"):
        if name in SIMPLE_CNNS:
            model: nn.Module = _simple_cnn(name, input_shape, num_classes, padding)
        elif name in RESNETS:
            model = _resnet(name, input_shape[0], num_classes)
        else:
            model = _vgg(input_shape, num_classes, batch_norm=VGGS[name])
    model.to_empty(device="cpu")
    variance = None if name not in RESNETS else 2 * (default_init_scale(name) if init_scale is None else init_scale)
    _initialise(model, conv_variance=variance, generator=generator or torch.Generator().manual_seed(0))
    return model


def default_init_scale(name: str) -> float:
    """The factor on the variance of a ResNet's first weights where none is given.

    Without batch norm it is one over the number of residual blocks, 1/15 for the authors' ResNet-32 (configuration
    ``cifar10_resnet32_nobn_nodrop_3``), and so 1/3 for ``resnet8`` with its one block in each of three stages.
    """
    blocks_per_stage, batch_norm = RESNETS[name]
    return 1.0 if batch_norm else 1 / (3 * blocks_per_stage)


def smallest_size(name: str, padding: Padding = "alternating") -> int:
    """The least height and width of an image that every layer of the network can work on."""
    if name in SIMPLE_CNNS:
        # From the last layer to the first: a pool doubles, a valid convolution adds its kernel size less one.
        margin = SIMPLE_CNNS[name][0] - 1 if padding == "alternating" else 0
        return 2 * (2 + margin) + margin
    return 1 if name in RESNETS else 2 ** len(VGG_WIDTHS)


def _check(
    name: str, input_shape: tuple[int, int, int], num_classes: int, padding: Padding, init_scale: float | None
) -> None:
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


def _simple_cnn(name: str, input_shape: tuple[int, int, int], num_classes: int, padding: Padding) -> nn.Sequential:
    kernel_size, widths = SIMPLE_CNNS[name]
    channels, *sizes = input_shape
    layers: list[nn.Module] = []
    for index, width in enumerate(widths):
        is_second = index % 2 == 1
        is_valid = is_second and padding == "alternating"
        layers.append(nn.Conv2d(channels, width, kernel_size, padding="valid" if is_valid else "same"))
        channels = width
        if is_valid:
            sizes = [size - (kernel_size - 1) for size in sizes]
        if is_second:
            layers.append(nn.MaxPool2d(2))
            sizes = [size // 2 for size in sizes]
        # After the pool, not before it: the largest is the same, and a quarter as many values are cut.
        layers.append(nn.ReLU())
    features = channels * math.prod(sizes)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, num_classes))


class ResidualBlock(nn.Module):
    """A full pre-activation block: the shortcut takes the block's input as it is, before batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, batch_norm: bool) -> None:
        super().__init__()
        # ASSUME: a convolution with stride 2 pads one pixel on every side, as torch does; Keras pads right and bottom
        # only, which moves the residual by one pixel against the shortcut.
        self.residual = nn.Sequential(
            *_normalisation(in_channels, batch_norm),
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1),
            *_normalisation(out_channels, batch_norm),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        is_same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if is_same else nn.Conv2d(in_channels, out_channels, 1, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.shortcut(inputs) + self.residual(inputs)
        return outputs


class GlobalAveragePool(nn.Module):
    """The mean over all pixels, whatever their number: [n, C, H, W] to [n, C]."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean(dim=(2, 3))


def _resnet(name: str, in_channels: int, num_classes: int) -> nn.Sequential:
    blocks_per_stage, batch_norm = RESNETS[name]
    blocks: list[nn.Module] = []
    channels = 16
    for width, first_stride in ((16, 1), (32, 2), (64, 2)):
        for block in range(blocks_per_stage):
            stride = first_stride if block == 0 else 1
            blocks.append(ResidualBlock(channels, width, stride=stride, batch_norm=batch_norm))
            channels = width
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, padding=1),
        *blocks,
        *_normalisation(channels, batch_norm),
        nn.ReLU(),
        GlobalAveragePool(),
        nn.Linear(channels, num_classes),
    )


def _vgg(input_shape: tuple[int, int, int], num_classes: int, *, batch_norm: bool) -> nn.Sequential:
    # ASSUME: no dropout. The authors' configuration drops half the units before each hidden dense layer; curvature
    # needs one fixed function.
    channels, *sizes = input_shape
    layers: list[nn.Module] = _normalisation(channels, batch_norm)
    for widths in VGG_WIDTHS:
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1), *_normalisation(width, batch_norm), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
        sizes = [size // 2 for size in sizes]
    layers.append(nn.Flatten())
    features = channels * math.prod(sizes)
    for _ in range(2):
        normalisation = [nn.BatchNorm1d(512, eps=1e-3, momentum=0.01)] if batch_norm else []
        layers += [nn.Linear(features, 512), *normalisation, nn.ReLU()]
        features = 512
    return nn.Sequential(*layers, nn.Linear(features, num_classes))


def _normalisation(channels: int, batch_norm: bool) -> list[nn.Module]:
    # Keras' values: its momentum 0.99 is the weight of the past, torch's that of the new batch.
    return [nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)] if batch_norm else []


def _initialise(model: nn.Module, *, conv_variance: float | None, generator: torch.Generator) -> None:
    """Fill every layer: kernels at random, biases with zero, batch norm as the identity.

    Args:
        model: its memory may hold anything.
        conv_variance: a convolution's variance times its fan-in (He et al. 2015, eq. 10: 2), from a normal distribution
            cut at two of its standard deviations; None: the uniform one of Glorot and Bengio (2010, eq. 16), as
            for every dense layer.
        generator: source of the random numbers.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if isinstance(layer, nn.Conv2d) and conv_variance is not None:
                std = math.sqrt(conv_variance / layer.weight[0].numel()) / CUT_NORMAL_STD
                nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
            else:
                nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            layer.reset_parameters()  # draws nothing
