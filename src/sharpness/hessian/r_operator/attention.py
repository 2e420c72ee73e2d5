"""Attention as an operation with a rule of its own."""

# ruff: noqa: ARG002 (every operation has the same signature)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
        """Save the inputs and the attention weights; ``backward`` adds the weights' adjoint, less its mean by them."""
        query, key, value, *mask = inputs
        shares = attention_weights(query, key, mask[0] if mask else None, is_causal=self._is_causal, scale=self._scale)
        return shares @ value, [query, key, value, shares, [m.shape for m in mask], None]

    def backward(self, ctx: Context, adjoint: Tensor) -> Parts:
        query, key, value, shares, *_ = ctx.saved
        of_shares = adjoint @ value.mT
        of_shares -= (shares * of_shares).sum(-1, keepdim=True)
        ctx.saved[-1] = of_shares
        of_scores = shares * of_shares
        scale = self._scale_of(query)
        return _wanted(ctx, (of_scores @ key * scale, of_scores.mT @ query * scale, shares.mT @ adjoint, of_scores))

    def r_forward(self, ctx: Context, *, owned: bool) -> Tensor | None:
        """Leave the tangent of the attention weights to ``r_backward``."""
        query, key, value, shares, *_ = ctx.saved
        of_query, of_key, of_value, of_mask = _split(ctx.input_tangents)
        scale = self._scale_of(query)
        scores_tangent = _total(
            None if of_query is None else (of_query * scale) @ key.mT,
            None if of_key is None else query @ (of_key * scale).mT,
            of_mask,
        )
        if scores_tangent is not None:
            ctx.intermediate = _softmax_jacobian(shares, scores_tangent.expand_as(shares))
        return _total(
            None if ctx.intermediate is None else ctx.intermediate @ value,
            None if of_value is None else shares @ of_value,
        )

    def r_backward(self, ctx: Context, r_adjoint: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        query, key, value, shares, _, of_shares = ctx.saved
        of_query, of_key, of_value, _ = _split(ctx.input_tangents)
        adjoint = ctx.adjoint if of_shares is not None else None
        scale = self._scale_of(query)
        r_of_shares = r_adjoint @ value.mT
        if of_value is not None and adjoint is not None:
            r_of_shares += adjoint @ of_value.mT
        r_of_scores = shares * r_of_shares
        of_values = shares.mT @ r_adjoint
        if ctx.intermediate is not None and adjoint is not None:
            # The rows of the intermediate sum to zero, so that a mean of the adjoint falls out.
            r_of_scores.addcmul_(ctx.intermediate, of_shares)
            of_values += ctx.intermediate.mT @ adjoint
        r_of_scores.addcmul_(shares, r_of_scores.sum(-1, keepdim=True), value=-1)
        of_queries, of_keys = r_of_scores @ key, r_of_scores.mT @ query
        if adjoint is not None and (of_key is not None or of_query is not None):
            of_scores = shares * of_shares
            of_queries = of_queries if of_key is None else of_queries.add_(of_scores @ of_key)
            of_keys = of_keys if of_query is None else of_keys.add_(of_scores.mT @ of_query)
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
    *inputs, _, masks, _ = ctx.saved
    shapes = [*(x.shape for x in inputs), *masks]
    return [
        part.sum_to_size(shape) if wanted else None
        for part, shape, wanted in zip(parts, shapes, ctx.needed, strict=False)
    ]


def _total(*parts: Tensor | None) -> Tensor | None:
    given = [part for part in parts if part is not None]
    return sum(given[1:], start=given[0]) if given else None
