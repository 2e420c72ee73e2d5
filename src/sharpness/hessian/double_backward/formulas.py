"""Formulas that replace functions of torch without a correct second derivative."""

# ruff: noqa: ARG001 (replacements of torch functions take all their arguments)

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sharpness.hessian.double_backward.attention import attention
from sharpness.hessian.double_backward.casts import CASTS
from sharpness.runtime.device import without_cudnn, without_onednn

Formulas = Mapping[Callable[..., Any], Callable[..., Any]]


def formula(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the replacement of a torch function that is differentiable twice; the function itself if torch's is."""
    return TWICE_DIFFERENTIABLE.get(function, function)


def _unchanged(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return input


def _with_weights(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """Ask for the attention weights, which makes torch compute attention step by step."""
    given = inspect.signature(functional.multi_head_attention_forward).bind(*args, **kwargs)
    outputs, weights = functional.multi_head_attention_forward(
        **(given.arguments | {"need_weights": True, "training": False})
    )
    return outputs, weights if given.arguments.get("need_weights", True) else None


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """torch's second derivative is wrong."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """torch's gradient is wrong if a later operation transposes axes."""
    if not use_input_stats:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    axes = list(range(2, input.dim()))
    variance, mean = torch.var_mean(input, axes, correction=0, keepdim=True)
    outputs = (input - mean) * (variance + eps).rsqrt()
    outputs = outputs if weight is None else outputs * weight.view(-1, *[1] * len(axes))
    return outputs if bias is None else outputs + bias.view(-1, *[1] * len(axes))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """torch's gradient is wrong for values or adjoints in another memory format."""
    if training or running_mean is None or running_var is None:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)

    def of_channels(values: Tensor) -> Tensor:
        return values.view(-1, *[1] * (input.dim() - 2))

    outputs = (input - of_channels(running_mean)) * of_channels((running_var + eps).rsqrt())
    outputs = outputs if weight is None else outputs * of_channels(weight)
    return outputs if bias is None else outputs + of_channels(bias)


def _attention_without_dropout(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask, 0.0, *args, **kwargs)


def _heads_without_dropout(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    given = inspect.signature(functional.multi_head_attention_forward).bind(*args, **kwargs)
    return functional.multi_head_attention_forward(**(given.arguments | {"training": False}))


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    return functional.relu6(input + 3) / 6


def _embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None, *args: Any, **kw: Any
) -> Tensor:
    if max_norm is not None:
        raise ValueError("an embedding with max_norm overwrites its weights while it runs")
    return functional.embedding(input, weight, padding_idx, None, *args, **kw)


def _embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    if max_norm is not None:
        raise ValueError("an EmbeddingBag with max_norm overwrites its weights while it runs")
    if offsets is None:
        width = input.size(1)
        offsets = torch.arange(0, input.numel(), width, device=input.device)
        include_last_offset = False
    input, factors = input.reshape(-1), None if per_sample_weights is None else per_sample_weights.reshape(-1)
    if include_last_offset:
        offsets = offsets[:-1]
    positions = torch.arange(len(input), device=input.device)
    bags = torch.bucketize(positions, offsets, right=True) - 1
    if padding_idx is not None:
        kept = input != padding_idx
        input, bags = input[kept], bags[kept]
        factors = None if factors is None else factors[kept]
    rows = functional.embedding(input, weight)
    if factors is not None:
        rows = rows * factors[:, None]
    empty = rows.new_zeros(len(offsets), rows.size(1))
    if mode == "max":
        # Bag by bag, so that only one of several equal maxima has the gradient, as in torch.
        members = [rows[bags == bag] for bag in range(len(offsets))]
        return torch.stack([some.max(0)[0] if len(some) else none for some, none in zip(members, empty, strict=True)])
    sums = empty.index_add(0, bags, rows)
    return sums if mode == "sum" else sums / torch.bincount(bags, minlength=len(offsets)).clamp_min(1)[:, None]


def _without_fused_kernels(function: Callable[..., Any]) -> Callable[..., Any]:
    """Call a recurrent network without cuDNN and oneDNN, whose kernels have no second derivative."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with without_cudnn(), without_onednn():
            return function(*args, **kwargs)

    return call


DROPOUTS = (
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
    functional.alpha_dropout,
    functional.feature_alpha_dropout,
    torch.dropout,
    torch.alpha_dropout,
    torch.feature_dropout,
    torch.feature_alpha_dropout,
)
WITHOUT_DROPOUT: Formulas = MappingProxyType(
    {
        **dict.fromkeys(DROPOUTS, _unchanged),
        functional.scaled_dot_product_attention: _attention_without_dropout,
        functional.multi_head_attention_forward: _heads_without_dropout,
        functional.instance_norm: _instance_norm,
    }
)
CORRECT_GRADIENT: Formulas = MappingProxyType({**WITHOUT_DROPOUT, **CASTS, functional.batch_norm: _batch_norm})
TWICE_DIFFERENTIABLE: Formulas = MappingProxyType(
    dict(CORRECT_GRADIENT)
    | {
        functional.scaled_dot_product_attention: attention,
        functional.multi_head_attention_forward: _with_weights,
        functional.hardsigmoid: _hardsigmoid,
        functional.embedding: _embedding,
        functional.embedding_bag: _embedding_bag,
        torch._weight_norm: _weight_norm,
    }
    | {
        function: _without_fused_kernels(function)
        for function in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
    }
)
