"""Run a network in operations that can be differentiated twice: without dropout, checkpointing and compilation."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from sharpness.hessian.double_backward.checkpointing import without_checkpointing
from sharpness.hessian.double_backward.formulas import (
    CORRECT_GRADIENT,
    TWICE_DIFFERENTIABLE,
    WITHOUT_DROPOUT,
    Formulas,
)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Run forward passes of this thread in operations that can be differentiated twice."""
    with _uncompiled(), without_checkpointing(), _Formulas(TWICE_DIFFERENTIABLE):
        yield


@contextmanager
def once_differentiable() -> Iterator[None]:
    """Run forward passes of this thread in torch's own functions, except those whose gradient is wrong."""
    with _uncompiled(), without_checkpointing(), _Formulas(CORRECT_GRADIENT):
        yield


def without_dropout() -> AbstractContextManager[object]:
    """Switch off dropout, including functional calls, and replace ``instance_norm``, whose gradient is wrong."""
    return _Formulas(WITHOUT_DROPOUT)


@contextmanager
def traceable() -> Iterator[None]:
    """Let a network be traced: without compiled or checkpointed parts."""
    with _uncompiled(), without_checkpointing():
        yield


def _uncompiled() -> AbstractContextManager[object]:
    # Only if the compiler is loaded already: importing it takes seconds.
    # Before torch 2.6 nothing switches compiled functions off: those within a network have torch's own error.
    can_switch = "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance")
    return torch.compiler.set_stance("force_eager") if can_switch else nullcontext()


class _Formulas(TorchFunctionMode):
    """Call formulas in place of torch's functions."""

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
            # The network's own constants have the precision in which it was made.
            if "type" not in str(error) or (given := _of_one_precision(args, kwargs or {})) is None:
                raise
        return call(*given[0], **given[1])


def _of_one_precision(args: Any, kwargs: Any) -> tuple[Any, Any] | None:
    """Convert floating-point arguments to the highest precision among them; None if there is only one."""
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
