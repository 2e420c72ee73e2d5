"""The networks of the experiments: layers and their initialisation; no loss, no device."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sharpness.study.networks import (
    NAMES,
    RESNET_STAGES,
    RESNETS,
    SIMPLE_CNN_DENSE,
    SIMPLE_CNNS,
    VGG_DENSE,
    VGG_WIDTHS,
    VGGS,
    Padding,
    check,
    default_init_scale,
    smallest_size,
)

__all__ = ["NAMES", "GlobalAveragePool", "Padding", "ResidualBlock", "build", "default_init_scale", "smallest_size"]

# Standard deviation of a standard normal distribution truncated at two.
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
    """Build an initialised network on the CPU, in float32.

    Args:
        name: one of ``NAMES``.
        input_shape: channels, height and width of an image.
        num_classes: number of outputs.
        padding: of the convolutions of a SimpleCNN: "alternating" is same, valid, same, valid, as in the authors'
            code; "same" is same everywhere. The other networks have no choice of padding.
        init_scale: factor on the variance of a ResNet's convolutions at initialisation; None is 1 with batch norm, and
            one over the number of residual blocks without. The other networks have none.
        generator: source of all random numbers, on the CPU; None is a new one with a fixed seed.

    Raises:
        ValueError: the name is unknown, a setting does not apply, or the images are too small for the network.
    """
    check(name, input_shape, num_classes, padding, init_scale)
    # On the meta device, since torch's own initialisation would advance the global generator.
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
        # After the pool, which gives the same values with a quarter of the ReLU's work.
        layers.append(nn.ReLU())
    features = channels * math.prod(sizes)
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(features, SIMPLE_CNN_DENSE),
        nn.ReLU(),
        nn.Linear(SIMPLE_CNN_DENSE, num_classes),
    )


class ResidualBlock(nn.Module):
    """A full pre-activation block: the shortcut takes the block's input before batch norm and ReLU."""

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
    """The mean over all pixels: [n, C, H, W] to [n, C]."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean(dim=(2, 3))


def _resnet(name: str, in_channels: int, num_classes: int) -> nn.Sequential:
    blocks_per_stage, batch_norm = RESNETS[name]
    blocks: list[nn.Module] = []
    channels = RESNET_STAGES[0][0]
    for width, first_stride in RESNET_STAGES:
        for block in range(blocks_per_stage):
            stride = first_stride if block == 0 else 1
            blocks.append(ResidualBlock(channels, width, stride=stride, batch_norm=batch_norm))
            channels = width
    return nn.Sequential(
        nn.Conv2d(in_channels, RESNET_STAGES[0][0], 3, padding=1),
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
        normalisation = [nn.BatchNorm1d(VGG_DENSE, eps=1e-3, momentum=0.01)] if batch_norm else []
        layers += [nn.Linear(features, VGG_DENSE), *normalisation, nn.ReLU()]
        features = VGG_DENSE
    return nn.Sequential(*layers, nn.Linear(features, num_classes))


def _normalisation(channels: int, batch_norm: bool) -> list[nn.Module]:
    # Keras' values: its momentum 0.99 is the weight of the past, torch's that of the new batch.
    return [nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)] if batch_norm else []


def _initialise(model: nn.Module, *, conv_variance: float | None, generator: torch.Generator) -> None:
    """Initialise every layer: random kernels, zero biases, batch norm as the identity.

    Args:
        model: with uninitialised memory.
        conv_variance: a convolution's variance times its fan-in (2 in He et al. 2015, eq. 10), for a normal
            distribution truncated at two standard deviations; None: the uniform distribution of Glorot and Bengio
            (2010, eq. 16), as for every dense layer.
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
