"""Attention and torch's layers around it as formulas that can be differentiated any number of times, and listed.

Those of torch choose kernels without a second derivative, by the device, the mode and who asks.
"""

# ruff: noqa: ARG001 (what stands for a function or a layer of torch takes its arguments)

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What ``scaled_dot_product_attention`` gives without dropout: softmax(scale Q K^T + mask) V, [..., L, Ev].

    Args:
        query: [..., L, E].
        key: [..., S, E].
        value: [..., S, Ev].
        attn_mask: [..., L, S], added to the scores; or whether a key takes part.
        dropout_p: without effect, since dropout is off.
        is_causal: a query sees no later key.
        scale: None is 1 / sqrt(E).
        enable_gqa: groups of queries share a head of keys and values.
    """
    if enable_gqa:
        key, value = (x.repeat_interleave(query.size(-3) // x.size(-3), dim=-3) for x in (key, value))
    return attention_weights(query, key, attn_mask, is_causal=is_causal, scale=scale) @ value


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None, *, is_causal: bool, scale: float | None
) -> Tensor:
    """The weights of the values, [..., L, S]: zeros where a query sees no key at all; arguments of ``attention``."""
    scores = query @ key.mT * (query.size(-1) ** -0.5 if scale is None else scale)
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -inf) if mask.dtype == torch.bool else scores + mask
    if mask is None:
        return scores.softmax(dim=-1)
    sees_none = (scores == -inf).all(dim=-1, keepdim=True)
    return scores.masked_fill(sees_none, 0).softmax(dim=-1).masked_fill(sees_none, 0)


def added_masks(mask: Tensor | None, padding: Tensor | None, like: Tensor) -> Tensor | None:
    """A layer's masks as one to be added to the scores: in a layer's of truth values True means to leave out.

    Args:
        mask: [L, S] or [N * heads, L, S].
        padding: [N, S].
        like: queries [N, heads, L, E].
    """
    total = None
    if mask is not None:
        total = _added(mask, like)
        total = total.view(*like.shape[:-2], *total.shape[1:]) if total.dim() == 3 else total
    if padding is not None:
        of_keys = _added(padding, like).unsqueeze(-2).unsqueeze(-2)
        total = of_keys if total is None else total + of_keys
    return total


# In a list of operations it is one: what it does depends on the kind of mask.
fx.wrap("added_masks")


def _added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, -inf)


def multi_head(
    layer: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What the layer gives, by ``attention``; arguments as the layer's own."""
    heads, separate = layer.num_heads, layer.in_proj_weight is None
    width = layer.embed_dim
    thirds = [slice(start, start + width) for start in range(0, 3 * width, width)]
    if query is key is value and not separate:
        whole = functional.linear(query, layer.in_proj_weight, layer.in_proj_bias)
        parts = [whole[..., third] for third in thirds]
    else:
        kernels: list[Tensor] = [layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight]
        if not separate:
            kernels = [layer.in_proj_weight[third] for third in thirds]
        biases = [None if layer.in_proj_bias is None else layer.in_proj_bias[third] for third in thirds]
        inputs = query, key, value
        parts = [functional.linear(x, w, b) for x, w, b in zip(inputs, kernels, biases, strict=True)]
    by_head = [part.unflatten(-1, (heads, -1)) for part in parts]  # type: ignore[no-untyped-call]
    # Their place among the axes is the same with examples and without, from the end or from the start.
    q, k, v = (x.transpose(-2, -3) if layer.batch_first else x.movedim(0, -2) for x in by_head)
    mask = None if attn_mask is None and key_padding_mask is None else added_masks(attn_mask, key_padding_mask, q)
    out = functional.scaled_dot_product_attention(q, k, v, mask)
    out = out.transpose(-2, -3) if layer.batch_first else out.movedim(-2, 0)
    out = layer.out_proj(out.flatten(-2))
    if not need_weights:
        return out, None
    weights = q @ k.transpose(-2, -1) * (layer.head_dim**-0.5)
    weights = (weights if mask is None else weights + mask).softmax(-1)
    return out, weights.mean(-3) if average_attn_weights else weights


def encoder_layer(
    layer: nn.TransformerEncoderLayer,
    src: Tensor,
    src_mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """What the layer gives; arguments as the layer's own."""
    if layer.norm_first:
        src = src + layer._sa_block(layer.norm1(src), src_mask, src_key_padding_mask)
        return src + layer._ff_block(layer.norm2(src))
    src = layer.norm1(src + layer._sa_block(src, src_mask, src_key_padding_mask))
    out: Tensor = layer.norm2(src + layer._ff_block(src))
    return out


def encoder(
    layers: nn.TransformerEncoder,
    src: Tensor,
    mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    is_causal: bool | None = None,
) -> Tensor:
    """What the layers give; arguments as their own."""
    for layer in layers.layers:
        src = layer(src, src_mask=mask, src_key_padding_mask=src_key_padding_mask)
    return src if layers.norm is None else layers.norm(src)


def decoder_layer(
    layer: nn.TransformerDecoderLayer,
    tgt: Tensor,
    memory: Tensor,
    tgt_mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
    tgt_key_padding_mask: Tensor | None = None,
    memory_key_padding_mask: Tensor | None = None,
    tgt_is_causal: bool = False,
    memory_is_causal: bool = False,
) -> Tensor:
    """What the layer gives; arguments as the layer's own."""
    of_itself = tgt_mask, tgt_key_padding_mask
    of_memory = memory, memory_mask, memory_key_padding_mask
    if layer.norm_first:
        tgt = tgt + layer._sa_block(layer.norm1(tgt), *of_itself)
        tgt = tgt + layer._mha_block(layer.norm2(tgt), *of_memory)
        return tgt + layer._ff_block(layer.norm3(tgt))
    tgt = layer.norm1(tgt + layer._sa_block(tgt, *of_itself))
    tgt = layer.norm2(tgt + layer._mha_block(tgt, *of_memory))
    out: Tensor = layer.norm3(tgt + layer._ff_block(tgt))
    return out


def decoder(
    layers: nn.TransformerDecoder,
    tgt: Tensor,
    memory: Tensor,
    tgt_mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
    tgt_key_padding_mask: Tensor | None = None,
    memory_key_padding_mask: Tensor | None = None,
    tgt_is_causal: bool | None = None,
    memory_is_causal: bool = False,
) -> Tensor:
    """What the layers give; arguments as their own."""
    for layer in layers.layers:
        tgt = layer(tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
    return tgt if layers.norm is None else layers.norm(tgt)


def transformer(
    layers: nn.Transformer,
    src: Tensor,
    tgt: Tensor,
    src_mask: Tensor | None = None,
    tgt_mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    tgt_key_padding_mask: Tensor | None = None,
    memory_key_padding_mask: Tensor | None = None,
    src_is_causal: bool | None = None,
    tgt_is_causal: bool | None = None,
    memory_is_causal: bool = False,
) -> Tensor:
    """What encoder and decoder give; arguments as their own."""
    memory = layers.encoder(src, src_mask, src_key_padding_mask)
    out: Tensor = layers.decoder(tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
    return out


_FORMULAS: Mapping[type[nn.Module], Callable[..., Any]] = MappingProxyType(
    {
        nn.MultiheadAttention: multi_head,
        nn.TransformerEncoderLayer: encoder_layer,
        nn.TransformerEncoder: encoder,
        nn.TransformerDecoderLayer: decoder_layer,
        nn.TransformerDecoder: decoder,
        nn.Transformer: transformer,
    }
)


def formula_of(layer: nn.Module) -> Callable[..., Any] | None:
    """The function of this layer and of its arguments that gives what the layer does, if it is one of attention."""
    if isinstance(layer, nn.MultiheadAttention) and (layer.bias_k is not None or layer.add_zero_attn):
        return None
    return _FORMULAS.get(type(layer))
