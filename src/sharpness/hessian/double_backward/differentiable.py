"""Within it every function of torch can be differentiated twice: what torch cannot, or gets wrong, is a formula here.

Dropout is off, activations are kept instead of computed anew (checkpointing), and nothing is compiled.
"""

# ruff: noqa: ARG001 (what stands for a function of torch takes its arguments)

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils import checkpoint

from sharpness.hessian.double_backward.attention import attention
from sharpness.hessian.double_backward.casts import CASTS
from sharpness.runtime.device import without_cudnn, without_onednn

Formulas = Mapping[Callable[..., Any], Callable[..., Any]]


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Within it a network runs in what can be differentiated twice; for a forward pass of this thread."""
    with _uncompiled(), _without_checkpointing(), _Formulas(_FORMULAS):
        yield


@contextmanager
def once_differentiable() -> Iterator[None]:
    """The same network in torch's own functions, but for those whose gradient is wrong."""
    with _uncompiled(), _without_checkpointing(), _Formulas(_RIGHT_ONCE):
        yield


def without_dropout() -> AbstractContextManager[object]:
    """Within it dropout is off where a network calls it as a function, too, and gradients are right."""
    return _Formulas(_WITHOUT_DROPOUT)


@contextmanager
def listable() -> Iterator[None]:
    """Within it a network can be traced: it calls its functions themselves."""
    with _uncompiled(), _without_checkpointing():
        yield


def _uncompiled() -> AbstractContextManager[object]:
    # Whoever has compiled something has loaded the compiler, which takes seconds.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def formula(function: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for a function of torch within ``twice_differentiable``; itself where torch is right."""
    return _FORMULAS.get(function, function)


class _Formulas(TorchFunctionMode):
    def __init__(self, formulas: Formulas) -> None:
        super().__init__()
        self._formulas = formulas

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        call = self._formulas.get(func, func)
        try:
            return call(*args, **(kwargs or {}))
        except RuntimeError as error:
            # A network's own constants are of the precision that it was made in.
            if "type" not in str(error) or (given := _of_one_precision(args, kwargs or {})) is None:
                raise
        return call(*given[0], **given[1])


def _of_one_precision(args: Any, kwargs: Any) -> tuple[Any, Any] | None:
    """The same arguments, real numbers in the highest precision among them; None if they are already."""
    given, tree = pytree.tree_flatten((args, dict(kwargs)))
    precisions = {value.dtype for value in given if isinstance(value, Tensor) and value.is_floating_point()}
    if len(precisions) < 2:
        return None
    highest = functools.reduce(torch.promote_types, precisions)
    converted = [
        value.to(highest) if isinstance(value, Tensor) and value.is_floating_point() else value for value in given
    ]
    new_args, new_kwargs = pytree.tree_unflatten(converted, tree)
    return new_args, new_kwargs


def _unchanged(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return input


def _with_weights(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """Attention whose weights are asked for is computed step by step."""
    given = inspect.signature(functional.multi_head_attention_forward).bind(*args, **kwargs)
    outputs, weights = functional.multi_head_attention_forward(
        **(given.arguments | {"need_weights": True, "training": False})
    )
    return outputs, weights if given.arguments.get("need_weights", True) else None


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """As in torch, whose second derivative of it is wrong."""
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
    """As in torch, whose gradient of it is wrong where what comes after it transposes axes."""
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
    """As in torch, whose gradient of it is wrong where values or adjoints lie in memory in another order of axes."""
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
    places = torch.arange(len(input), device=input.device)
    bags = torch.bucketize(places, offsets, right=True) - 1
    if padding_idx is not None:
        kept = input != padding_idx
        input, bags = input[kept], bags[kept]
        factors = None if factors is None else factors[kept]
    rows = functional.embedding(input, weight)
    if factors is not None:
        rows = rows * factors[:, None]
    empty = rows.new_zeros(len(offsets), rows.size(1))
    if mode == "max":
        # Each bag by itself, so that of equal largest values one alone has the gradient, as in torch.
        members = [rows[bags == bag] for bag in range(len(offsets))]
        return torch.stack([some.max(0)[0] if len(some) else none for some, none in zip(members, empty, strict=True)])
    sums = empty.index_add(0, bags, rows)
    return sums if mode == "sum" else sums / torch.bincount(bags, minlength=len(offsets)).clamp_min(1)[:, None]


def _by_torch_itself(function: Callable[..., Any]) -> Callable[..., Any]:
    """The recurrent networks of cuDNN and oneDNN have a first derivative alone."""

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
_WITHOUT_DROPOUT: Formulas = MappingProxyType(
    {
        **dict.fromkeys(DROPOUTS, _unchanged),
        functional.scaled_dot_product_attention: _attention_without_dropout,
        functional.multi_head_attention_forward: _heads_without_dropout,
        functional.instance_norm: _instance_norm,
    }
)
_RIGHT_ONCE: Formulas = MappingProxyType({**_WITHOUT_DROPOUT, **CASTS, functional.batch_norm: _batch_norm})
_FORMULAS: Formulas = MappingProxyType(
    dict(_RIGHT_ONCE)
    | {
        functional.scaled_dot_product_attention: attention,
        functional.multi_head_attention_forward: _with_weights,
        functional.hardsigmoid: _hardsigmoid,
        functional.embedding: _embedding,
        functional.embedding_bag: _embedding_bag,
        torch._weight_norm: _weight_norm,
    }
    | {function: _by_torch_itself(function) for function in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)}
)


class _Thread(threading.local):
    keeps_activations = False  # in place of what a network would compute anew


_thread = _Thread()


@contextmanager
def _without_checkpointing() -> Iterator[None]:
    _let_checkpointing_be_skipped()
    before, _thread.keeps_activations = _thread.keeps_activations, True
    try:
        yield
    finally:
        _thread.keeps_activations = before


@functools.cache
def _let_checkpointing_be_skipped() -> None:
    """Re-entrant checkpointing has no second derivative, the other looks for weights that are no longer there.

    Networks have torch's function under names of their own, so that what it calls is replaced, once and for threads
    alone that ask for it.
    """
    apply, recomputing = checkpoint.CheckpointFunction.apply, checkpoint._checkpoint_without_reentrant_generator_impl

    def apply_or_call(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args) if _thread.keeps_activations else apply(function, preserve, *args)

    def recomputing_or_not(*args: Any, **kwargs: Any) -> Iterator[None]:
        if _thread.keeps_activations:
            yield
        else:
            yield from recomputing(*args, **kwargs)

    checkpoint.CheckpointFunction.apply = apply_or_call
    checkpoint._checkpoint_without_reentrant_generator_impl = recomputing_or_not
