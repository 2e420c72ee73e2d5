"""Attention as an operation with a rule of its own."""

# ruff: noqa: ARG002 (every operation has the same signature)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sharpness.hessian.double_backward.attention import attention_weights
from sharpness.hessian.r_operator.operation import Context, Operation, Parts, Tensors


class Attention(Operation):
    """``attention`` of a query [..., L, E], a key [..., S, E], a value [..., S, Ev] and optionally a mask."""

    def __init__(self, *, is_causal: bool, scale: float | None) -> None:
        self._is_causal, self._scale = is_causal, scale

    def needs_adjoint(self, *, active: bool) -> bool:
        return active

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """Save the inputs and the attention weights."""
        query, key, value, *mask = inputs
        shares = attention_weights(query, key, mask[0] if mask else None, is_causal=self._is_causal, scale=self._scale)
        return shares @ value, (query, key, value, shares, [m.shape for m in mask])

    def backward(self, ctx: Context, adjoint: Tensor) -> Parts:
        query, key, value, shares, _ = ctx.saved
        of_scores = _softmax_jacobian(shares, adjoint @ value.mT)
        scale = self._scale_of(query)
        return _wanted(ctx, (of_scores @ key * scale, of_scores.mT @ query * scale, shares.mT @ adjoint, of_scores))

    def r_forward(self, ctx: Context, *, owned: bool) -> Tensor | None:
        """Leave the tangent of the attention weights to ``r_backward``."""
        query, key, value, shares, _ = ctx.saved
        of_query, of_key, of_value, of_mask = _split(ctx.input_tangents)
        scale = self._scale_of(query)
        scores_tangent = _total(
            None if of_query is None else of_query @ key.mT * scale,
            None if of_key is None else query @ of_key.mT * scale,
            of_mask,
        )
        if scores_tangent is not None:
            ctx.intermediate = _softmax_jacobian(shares, scores_tangent.expand_as(shares))
        return _total(
            None if ctx.intermediate is None else ctx.intermediate @ value,
            None if of_value is None else shares @ of_value,
        )

    def r_backward(self, ctx: Context, r_adjoint: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        query, key, value, shares, _ = ctx.saved
        of_query, of_key, of_value, _ = _split(ctx.input_tangents)
        adjoint = torch.zeros_like(r_adjoint) if ctx.adjoint is None else ctx.adjoint
        scale = self._scale_of(query)
        of_shares, r_of_shares = adjoint @ value.mT, r_adjoint @ value.mT
        if of_value is not None:
            r_of_shares = r_of_shares + adjoint @ of_value.mT
        mean = (shares * of_shares).sum(-1, keepdim=True)
        of_scores = shares * (of_shares - mean)
        r_of_scores = _softmax_jacobian(shares, r_of_shares)
        of_values = shares.mT @ r_adjoint
        if ctx.intermediate is not None:
            r_of_scores = r_of_scores + ctx.intermediate * (of_shares - mean)
            r_of_scores = r_of_scores - shares * (ctx.intermediate * of_shares).sum(-1, keepdim=True)
            of_values = of_values + ctx.intermediate.mT @ adjoint
        of_queries, of_keys = r_of_scores @ key, r_of_scores.mT @ query
        if of_key is not None:
            of_queries = of_queries + of_scores @ of_key
        if of_query is not None:
            of_keys = of_keys + of_scores.mT @ of_query
        return _wanted(ctx, (of_queries * scale, of_keys * scale, of_values, r_of_scores)), ()

    def _scale_of(self, query: Tensor) -> float:
        scale: float = query.size(-1) ** -0.5 if self._scale is None else self._scale
        return scale


def _softmax_jacobian(shares: Tensor, tangent: Tensor) -> Tensor:
    """Apply the (symmetric) Jacobian of the softmax to a tangent of its input or an adjoint of its output."""
    return shares * (tangent - (shares * tangent).sum(-1, keepdim=True))


def _split(tangents: Parts) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    query, key, value, *mask = tangents
    return query, key, value, mask[0] if mask else None


def _wanted(ctx: Context, parts: Tensors) -> Parts:
    """Select the inputs that depend on a weight, and reduce to their shapes: examples and heads may be broadcast."""
    *inputs, _, masks = ctx.saved
    shapes = [*(x.shape for x in inputs), *masks]
    return [
        part.sum_to_size(shape) if wanted else None
        for part, shape, wanted in zip(parts, shapes, ctx.needed, strict=False)
    ]


def _total(*parts: Tensor | None) -> Tensor | None:
    given = [part for part in parts if part is not None]
    return sum(given[1:], start=given[0]) if given else None
