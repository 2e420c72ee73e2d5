"""Torch's attention layers as formulas that can be traced and differentiated twice.

Depending on device, mode and whether gradients are recorded, torch's own forward chooses kernels without a second
derivative.
"""

# ruff: noqa: ARG001 (replacements of forward methods take all their arguments)

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional

from sharpness.hessian.double_backward.attention import added_masks

# Traced as a single operation, since it depends on the kind of mask.
fx.wrap("added_masks")


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
    """Replace the forward of ``nn.MultiheadAttention``."""
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
    # Counted from the end or the start, so that it works with and without a batch axis.
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
    """Replace the forward of ``nn.TransformerEncoderLayer``."""
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
    """Replace the forward of ``nn.TransformerEncoder``."""
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
    """Replace the forward of ``nn.TransformerDecoderLayer``."""
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
    """Replace the forward of ``nn.TransformerDecoder``."""
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
    """Replace the forward of ``nn.Transformer``."""
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
    """Return the replacement of a layer's forward, which takes the layer first; None if torch's own can be used."""
    if isinstance(layer, nn.MultiheadAttention) and (layer.bias_k is not None or layer.add_zero_attn):
        return None
    return _FORMULAS.get(type(layer))
