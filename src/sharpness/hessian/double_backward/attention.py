"""Attention as a formula that can be differentiated any number of times, and as an operation with a rule of its own.

Torch's kernels for it have no second derivative.
"""

# ruff: noqa: ARG001 (what stands for a function of torch takes its arguments)
# ruff: noqa: ARG002 (as in ``operations``)

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor

from sharpness.hessian.r_operator.operations import Local, Operation, Parts, Tensors


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


def _added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, -inf)


class Attention(Operation):
    """``attention`` of a query [..., L, E], a key [..., S, E], a value [..., S, Ev] and, as the case may be, a mask."""

    def __init__(self, *, is_causal: bool, scale: float | None) -> None:
        self._is_causal, self._scale = is_causal, scale

    def needs_adjoint(self, *, moving: bool) -> bool:
        """See ``Operation``."""
        return moving

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """See ``Operation``; the inputs and the weights of the values are kept."""
        query, key, value, *mask = inputs
        shares = attention_weights(query, key, mask[0] if mask else None, is_causal=self._is_causal, scale=self._scale)
        return shares @ value, (query, key, value, shares, [m.shape for m in mask])

    def backward(self, at: Local, adjoint: Tensor) -> Parts:
        """See ``Operation``."""
        query, key, value, shares, _ = at.saved
        of_scores = _of_softmax(shares, adjoint @ value.mT)
        scale = self._scale_of(query)
        return _wanted(at, (of_scores @ key * scale, of_scores.mT @ query * scale, shares.mT @ adjoint, of_scores))

    def r_forward(self, at: Local, *, owned: bool) -> Tensor | None:
        """See ``Operation``; the tangent of the weights of the values is left for ``r_backward``."""
        query, key, value, shares, _ = at.saved
        of_query, of_key, of_value, of_mask = _four(at.tangents)
        scale = self._scale_of(query)
        moved = _total(
            None if of_query is None else of_query @ key.mT * scale,
            None if of_key is None else query @ of_key.mT * scale,
            of_mask,
        )
        at.between = None if moved is None else _of_softmax(shares, moved.expand_as(shares))
        return _total(
            None if at.between is None else at.between @ value, None if of_value is None else shares @ of_value
        )

    def r_backward(self, at: Local, moved: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        """See ``Operation``."""
        query, key, value, shares, _ = at.saved
        of_query, of_key, of_value, _ = _four(at.tangents)
        adjoint = torch.zeros_like(moved) if at.adjoint is None else at.adjoint
        scale = self._scale_of(query)
        of_shares, moved_of_shares = adjoint @ value.mT, moved @ value.mT
        if of_value is not None:
            moved_of_shares = moved_of_shares + adjoint @ of_value.mT
        mean = (shares * of_shares).sum(-1, keepdim=True)
        of_scores = shares * (of_shares - mean)
        moved_of_scores = _of_softmax(shares, moved_of_shares)
        of_values = shares.mT @ moved
        if at.between is not None:
            moved_of_scores = moved_of_scores + at.between * (of_shares - mean)
            moved_of_scores = moved_of_scores - shares * (at.between * of_shares).sum(-1, keepdim=True)
            of_values = of_values + at.between.mT @ adjoint
        of_queries, of_keys = moved_of_scores @ key, moved_of_scores.mT @ query
        if of_key is not None:
            of_queries = of_queries + of_scores @ of_key
        if of_query is not None:
            of_keys = of_keys + of_scores.mT @ of_query
        return _wanted(at, (of_queries * scale, of_keys * scale, of_values, moved_of_scores)), ()

    def _scale_of(self, query: Tensor) -> float:
        scale: float = query.size(-1) ** -0.5 if self._scale is None else self._scale
        return scale


def _of_softmax(shares: Tensor, tangent: Tensor) -> Tensor:
    """The derivative of a softmax along a tangent of its input, or of an adjoint of its output, which are the same."""
    return shares * (tangent - (shares * tangent).sum(-1, keepdim=True))


def _four(tangents: Parts) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    query, key, value, *mask = tangents
    return query, key, value, mask[0] if mask else None


def _wanted(at: Local, parts: Tensors) -> Parts:
    """Those of the inputs that depend on a weight, in the shapes of these: examples and heads may be shared."""
    *inputs, _, masks = at.saved
    shapes = [*(x.shape for x in inputs), *masks]
    return [
        part.sum_to_size(shape) if wanted else None
        for part, shape, wanted in zip(parts, shapes, at.needed, strict=False)
    ]


def _total(*parts: Tensor | None) -> Tensor | None:
    given = [part for part in parts if part is not None]
    return sum(given[1:], start=given[0]) if given else None
