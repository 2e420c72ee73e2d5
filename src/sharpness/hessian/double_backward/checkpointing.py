"""Activation checkpointing switched off: networks keep activations instead of recomputing them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils import checkpoint


class _Thread(threading.local):
    keeps_activations = False


_thread = _Thread()


@contextmanager
def without_checkpointing() -> Iterator[None]:
    """Switch activation checkpointing off in this thread."""
    _patch_checkpointing()
    before, _thread.keeps_activations = _thread.keeps_activations, True
    try:
        yield
    finally:
        _thread.keeps_activations = before


@functools.cache
def _patch_checkpointing() -> None:
    """Let torch's checkpointing obey ``_thread.keeps_activations``.

    Re-entrant checkpointing has no second derivative, and the other kind looks up weights that have been replaced by
    then. Networks may have imported torch's function under another name, so the functions that it calls are patched.
    """
    apply = checkpoint.CheckpointFunction.apply
    # Torch's function calls the second of these where there is one, the first in older versions.
    generator = "_checkpoint_without_reentrant_generator"
    generator = f"{generator}_impl" if hasattr(checkpoint, f"{generator}_impl") else generator
    recomputing = getattr(checkpoint, generator)

    def apply_or_call(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args) if _thread.keeps_activations else apply(function, preserve, *args)

    def recomputing_or_not(*args: Any, **kwargs: Any) -> Iterator[None]:
        if _thread.keeps_activations:
            yield
        else:
            yield from recomputing(*args, **kwargs)

    checkpoint.CheckpointFunction.apply = apply_or_call
    setattr(checkpoint, generator, recomputing_or_not)
