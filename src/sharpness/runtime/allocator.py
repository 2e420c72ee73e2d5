"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

_log = logging.getLogger(__name__)

# Parameters of mallopt, each with its value; in the environment: MALLOC_MMAP_MAX_ and MALLOC_TRIM_THRESHOLD_.
_MMAP_MAX = -4, 0
_TRIM_THRESHOLD = -1, 2**31 - 1
_LONG_VECTOR = 2**25  # bytes


def suit(weights: Tensor) -> None:
    """Let the process keep the memory that it frees, as far as computing with ``weights`` gains by it."""
    # Holes between vectors that are this long would take gigabytes.
    if weights.nbytes < _LONG_VECTOR:
        keep_freed_memory()
    else:
        map_large_tensors()


def settle(weights: Tensor) -> None:
    """Return freed memory to the system once, after checks that took more than products will; if weights are long.

    Else what a check of the network freed, which may be more than what products take, stays beside a basis of vectors.
    """
    if weights.nbytes >= _LONG_VECTOR and _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


@cache
def keep_freed_memory() -> None:
    """Let the process keep freed memory instead of returning it to the system and getting it again page by page.

    A Hessian-vector product frees and allocates tensors of tens of megabytes all the time; zeroing their pages took a
    third of its time. In return, up to 2 GB that are free at the end of the heap stay resident. Set once per process,
    in glibc only, and not if the user has tuned glibc's malloc by environment variables or preloads another one.
    """
    if not _is_glibc() or is_tuned(os.environ):
        return
    if not all(_mallopt(*setting) for setting in (_MMAP_MAX, _TRIM_THRESHOLD)):
        _log.debug("mallopt refused a setting: freed memory goes back to the system")


def map_large_tensors() -> None:
    """Let the process keep freed memory of up to 32 MB per tensor; larger tensors return theirs at once.

    glibc raises its threshold when a block of this size is freed for the first time.
    """
    torch.empty(2**25 - 2**14, dtype=torch.uint8, device="cpu")


def is_tuned(variables: Mapping[str, str]) -> bool:
    """Whether environment ``variables`` say how memory is to be allocated."""
    tunables = variables.get("GLIBC_TUNABLES", "")
    return (
        any(name.startswith("MALLOC_") for name in variables)
        or "glibc.malloc" in tunables
        or bool(variables.get("LD_PRELOAD"))
    )


def _mallopt(parameter: int, value: int) -> bool:
    return bool(ctypes.CDLL(None).mallopt(parameter, value))


def _is_glibc() -> bool:
    try:
        return str(os.confstr("CS_GNU_LIBC_VERSION")).startswith("glibc")
    except (AttributeError, ValueError, OSError):  # another system or C library
        return False
