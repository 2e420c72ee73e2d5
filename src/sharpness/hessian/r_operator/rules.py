"""The operation with a rule of its own that a layer or a function is, if there is one."""

from __future__ import annotations

import inspect
import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from sharpness.hessian.double_backward.attention import attention
from sharpness.hessian.r_operator.bilinear import Convolution, Dense
from sharpness.hessian.r_operator.layers import BatchNorm, Embedding, LinearMap, MaxPool2d, Relu
from sharpness.hessian.r_operator.operation import Operation
from sharpness.hessian.r_operator.smooth import Gelu, LayerNorm

_LINEAR_FUNCTIONS = {torch.flatten, torch.mean, torch.sum, torch.permute, functional.avg_pool2d}
_RESHAPES = {"flatten", "view", "reshape", "permute", "transpose", "contiguous", "squeeze", "unsqueeze"}
_LINEAR_METHODS = {"mean", "sum", *_RESHAPES}
_LINEAR_LAYERS = (nn.Flatten, nn.Unflatten, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool2d)


def operation_of(layer: nn.Module) -> Operation | None:
    """Return the operation with a rule of its own that computes ``layer``; None if there is none."""
    names = [name for name, _ in layer.named_parameters()]
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) and names not in (
        ["weight"],
        ["weight", "bias"],
    ):
        return None  # the kernel is computed from other weights (torch.nn.utils.parametrize)
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and layer.padding_mode == "zeros":
        padding = _symmetric_padding(layer)
        return None if padding is None else Convolution(layer.stride, padding, layer.dilation, layer.groups)
    if isinstance(layer, nn.Linear):
        return Dense()
    if isinstance(layer, nn.Embedding) and layer.max_norm is None and not layer.scale_grad_by_freq:
        return Embedding(layer.padding_idx) if names == ["weight"] else None
    if isinstance(layer, nn.ReLU):
        return Relu()
    if isinstance(layer, nn.GELU):
        return Gelu(layer.approximate)
    if isinstance(layer, nn.LayerNorm):
        return LayerNorm(len(layer.normalized_shape), layer.eps) if names == ["weight", "bias"][: len(names)] else None
    if isinstance(layer, nn.MaxPool2d) and not layer.return_indices:
        window, stride = _pair(layer.kernel_size), _pair(layer.stride)
        return MaxPool2d(window, stride, _pair(layer.padding), _pair(layer.dilation), layer.ceil_mode)
    if isinstance(layer, _BatchNorm) and layer.track_running_stats and not layer.training:
        return BatchNorm(layer.eps) if names == ["weight", "bias"] else None
    if isinstance(layer, _LINEAR_LAYERS):
        return LinearMap(layer)
    return None


def _symmetric_padding(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> tuple[int, ...] | None:
    if layer.padding == "valid":
        return (0,) * len(layer.kernel_size)
    if layer.padding == "same":
        total = [step * (size - 1) for step, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        return None if any(padding % 2 for padding in total) else tuple(padding // 2 for padding in total)
    assert not isinstance(layer.padding, str)
    return tuple(layer.padding)


def _pair(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)


def is_linear(node: fx.Node) -> bool:
    """Whether a call of a function or method is linear in its single input."""
    if node.op == "call_method":
        return node.target in _LINEAR_METHODS
    return node.target in _LINEAR_FUNCTIONS or (node.target is operator.getitem and isinstance(node.args[0], fx.Node))


def attention_arguments(node: fx.Node) -> tuple[dict[str, Any], list[fx.Node]] | None:
    """Return the settings and input nodes of a call of attention; None if ``Attention`` does not support them."""
    given = inspect.signature(attention).bind(*node.args, **node.kwargs)
    given.apply_defaults()
    arguments = given.arguments
    inputs = [arguments[name] for name in ("query", "key", "value", "attn_mask")]
    if inputs[-1] is None:
        inputs.pop()
    constant = not any(isinstance(arguments[name], fx.Node) for name in ("is_causal", "scale"))
    if arguments["enable_gqa"] or not constant or not all(isinstance(value, fx.Node) for value in inputs):
        return None
    return {name: arguments[name] for name in ("is_causal", "scale")}, inputs
