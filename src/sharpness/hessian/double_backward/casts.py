"""Casts inside a network: where it is worked on in float64 or float32, what it computes stays in that precision.

A cast to float32 inside a network that was made in float32, as of a norm or of the logits, is there for lower
precisions. In double precision it would round values that are to be compared with differences.
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
    precision: torch.dtype | None = None  # that is worked in; None where casts are what they are


_thread = _Thread()


@contextmanager
def working_in(precision: torch.dtype) -> Iterator[None]:
    """Within it a network of this thread stays in float64 or float32, and does not enter autocast.

    In any other precision casts are honoured.
    """
    _let_autocast_be_skipped()
    before, _thread.precision = _thread.precision, precision if precision in (torch.float64, torch.float32) else None
    try:
        yield
    finally:
        _thread.precision = before


def _kept(dtype: Any) -> Any:
    """What a cast of a real or complex tensor to ``dtype`` gives; whatever else it is stays what it is."""
    if _thread.precision is None or not isinstance(dtype, torch.dtype):
        return dtype
    if dtype.is_complex:
        return _thread.precision.to_complex()
    # To eight bits nobody casts but to quantise, which changes what is computed.
    return _thread.precision if dtype.is_floating_point and dtype.itemsize > 1 else dtype


def _is_inexact(value: object) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _cast(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that does nothing but cast or move a tensor."""

    def call(values: Any, *args: Any, **kwargs: Any) -> Any:
        if _thread.precision is None or not _is_inexact(values):
            return method(values, *args, **kwargs)
        like = method(values.new_empty([0] * values.dim()), *args, **kwargs)
        if not _is_inexact(like) or values.dtype == like.dtype == _kept(like.dtype):
            return method(values, *args, **kwargs)
        kept = values.to(device=like.device, dtype=_kept(like.dtype))
        # A network in float32, and none but such, finds what it casts to float32 in the same memory.
        return kept.clone() if kept is values and like.dtype != torch.float32 else kept

    return call


def _told_type(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a tensor that may be told the type of its result."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if _is_inexact(args[0] if args else kwargs.get("input")):
            args = tuple(map(_kept, args))
            kwargs = {name: _kept(value) for name, value in kwargs.items()}
        return function(*args, **kwargs)

    return call


_REDUCTIONS = ("softmax", "log_softmax", "sum", "mean", "nansum", "nanmean", "prod", "cumsum", "cumprod", "norm")
_TOLD = (
    *(getattr(place, name) for place in (torch, Tensor) for name in _REDUCTIONS),
    *(getattr(torch, f"{name}_like") for name in ("zeros", "ones", "full", "empty")),
    *(getattr(Tensor, f"new_{name}") for name in ("zeros", "ones", "full", "empty", "tensor")),
    *(functional.softmax, functional.log_softmax, functional.softmin, torch.as_tensor, torch.asarray),
    *(torch.special.softmax, torch.special.log_softmax),
    *(torch.linalg.norm, torch.linalg.vector_norm, torch.linalg.matrix_norm),
)
_CASTS = ("to", "type", "type_as", "float", "double", "half", "bfloat16", "cfloat", "cdouble")

CASTS: Mapping[Callable[..., Any], Callable[..., Any]] = MappingProxyType(
    {function: _told_type(function) for function in _TOLD}
    | {method: _cast(method) for method in (getattr(Tensor, name) for name in _CASTS)}
)
"""What stands for a function of torch that casts, wherever ``working_in`` is entered."""


@functools.cache
def _let_autocast_be_skipped() -> None:
    """Casts by autocast are made below the functions of torch that could be replaced."""
    enter = torch.autocast.__enter__

    def enter_or_not(self: torch.autocast) -> Any:
        given = self._enabled
        self._enabled = given and _thread.precision is None
        try:
            return enter(self)  # type: ignore[no-untyped-call]
        finally:
            self._enabled = given

    torch.autocast.__enter__ = enter_or_not  # type: ignore[method-assign]
