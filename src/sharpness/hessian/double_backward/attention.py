"""Attention as a formula of differentiable operations: torch's kernels for it have no second derivative."""

# ruff: noqa: ARG001 (replacements of torch functions take all their arguments)

from __future__ import annotations

from math import inf

import torch
from torch import Tensor


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
    """Compute ``scaled_dot_product_attention`` without dropout: softmax(scale Q Kᵀ + mask) V.

    Args:
        query: [..., L, E].
        key: [..., S, E].
        value: [..., S, Ev].
        attn_mask: [..., L, S], added to the scores, or boolean: whether a query attends to a key.
        dropout_p: ignored.
        is_causal: mask out later keys.
        scale: None means 1 / sqrt(E).
        enable_gqa: grouped-query attention: groups of query heads share a key and value head.

    Returns:
        [..., L, Ev].
    """
    if enable_gqa:
        key, value = (x.repeat_interleave(query.size(-3) // x.size(-3), dim=-3) for x in (key, value))
    return attention_weights(query, key, attn_mask, is_causal=is_causal, scale=scale) @ value


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None, *, is_causal: bool, scale: float | None
) -> Tensor:
    """Attention weights [..., L, S], zero for a query without any key; arguments as for ``attention``."""
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
    """Combine a layer's masks into one to be added to the scores; in a boolean mask of a layer, True masks out.

    Args:
        mask: [L, S] or [N * heads, L, S].
        padding: [N, S].
        like: [N, heads, L, E], the queries, for dtype and device.
    """
    total = None
    if mask is not None:
        total = _added(mask, like)
        total = total.view(*like.shape[:-2], *total.shape[1:]) if total.dim() == 3 else total
    if padding is not None:
        of_keys = _added(padding, like).unsqueeze(-2).unsqueeze(-2)
        total = of_keys if total is None else total + of_keys
    return total


def _added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, -inf)
