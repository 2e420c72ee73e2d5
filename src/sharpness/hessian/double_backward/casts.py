"""Casts inside a network, overridden where it is evaluated in float64 or float32.

A float32 network may cast norms or logits to float32 for the sake of lower precisions. Evaluated in float64, such a
cast would round values that are compared with finite differences.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class _Thread(threading.local):
    precision: torch.dtype | None = None  # that overrides casts; None if casts are honoured


_thread = _Thread()


@contextmanager
def working_in(precision: torch.dtype) -> Iterator[None]:
    """Keep networks of this thread in ``precision`` and out of autocast, if it is float64 or float32.

    In any other precision, casts are honoured.
    """
    _patch_autocast()
    before, _thread.precision = _thread.precision, precision if precision in (torch.float64, torch.float32) else None
    try:
        yield
    finally:
        _thread.precision = before


def _target_dtype(dtype: Any) -> Any:
    """The dtype to which a cast of an inexact tensor to ``dtype`` leads; other arguments are returned unchanged."""
    if _thread.precision is None or not isinstance(dtype, torch.dtype):
        return dtype
    if dtype.is_complex:
        return _thread.precision.to_complex()
    # Casts to eight bits quantise, which is part of the function that the network computes.
    return _thread.precision if dtype.is_floating_point and dtype.itemsize > 1 else dtype


def _is_inexact(value: object) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _cast(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method that only casts or moves a tensor."""

    def call(values: Any, *args: Any, **kwargs: Any) -> Any:
        if _thread.precision is None or not _is_inexact(values):
            return method(values, *args, **kwargs)
        like = method(values.new_empty([0] * values.dim()), *args, **kwargs)
        if not _is_inexact(like) or values.dtype == like.dtype == _target_dtype(like.dtype):
            return method(values, *args, **kwargs)
        kept = values.to(device=like.device, dtype=_target_dtype(like.dtype))
        # A cast that does nothing returns the tensor itself, and only a cast to float32 does nothing in the network.
        return kept.clone() if kept is values and like.dtype != torch.float32 else kept

    return call


def _with_dtype(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function of a tensor that accepts a dtype for its result."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if _is_inexact(args[0] if args else kwargs.get("input")):
            args = tuple(map(_target_dtype, args))
            kwargs = {name: _target_dtype(value) for name, value in kwargs.items()}
        return function(*args, **kwargs)

    return call


_REDUCTIONS = ("softmax", "log_softmax", "sum", "mean", "nansum", "nanmean", "prod", "cumsum", "cumprod", "norm")
_WITH_DTYPE = (
    *(getattr(place, name) for place in (torch, Tensor) for name in _REDUCTIONS),
    *(getattr(torch, f"{name}_like") for name in ("zeros", "ones", "full", "empty")),
    *(getattr(Tensor, f"new_{name}") for name in ("zeros", "ones", "full", "empty", "tensor")),
    *(functional.softmax, functional.log_softmax, functional.softmin, torch.as_tensor, torch.asarray),
    *(torch.special.softmax, torch.special.log_softmax),
    *(torch.linalg.norm, torch.linalg.vector_norm, torch.linalg.matrix_norm),
)
_CASTS = ("to", "type", "type_as", "float", "double", "half", "bfloat16", "cfloat", "cdouble")

CASTS: Mapping[Callable[..., Any], Callable[..., Any]] = MappingProxyType(
    {function: _with_dtype(function) for function in _WITH_DTYPE}
    | {method: _cast(method) for method in (getattr(Tensor, name) for name in _CASTS)}
)
"""Replacements of torch functions that cast, in effect within ``working_in``."""


@functools.cache
def _patch_autocast() -> None:
    """Let autocast obey ``working_in``: it casts below the level at which functions can be replaced."""
    enter = torch.autocast.__enter__

    def enter_or_not(self: torch.autocast) -> Any:
        given = self._enabled
        self._enabled = given and _thread.precision is None
        try:
            return enter(self)  # type: ignore[no-untyped-call]
        finally:
            self._enabled = given

    torch.autocast.__enter__ = enter_or_not  # type: ignore[method-assign]
