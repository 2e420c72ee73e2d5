"""Where tensors live and how exactly: the only code that touches torch's backends."""

from __future__ import annotations

import functools
import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from sharpness.runtime.closure import version

_log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_WORKSPACE = ":4096:8"
# Variables by which libraries choose other kernels, and so other last bits.
_CHOOSING = re.compile(
    "(ATEN|BLIS|CUBLAS|CUBLASLT|CUDNN|DNNL|GOMP|KMP|MKL|NVIDIA_TF32|OMP|ONEDNN|OPENBLAS"
    "|TORCH_(ALLOW|BLAS|CUBLAS|CUDNN|LINALG|MKLDNN))_.+"
)
# Of these, what a column of its own tells, and what says only what is printed.
_CHOOSING_NOTHING = re.compile(r"\w+_(NUM_THREADS|VERBOSE\w*|DISPLAY_\w+|LOG\w*)")


def choose_device(*, threads: int) -> torch.device:
    """The GPU where there is one, else the CPU, set up so that the same job gives the same bits.

    Args:
        threads: of the CPU; a different number may give different bits.
    """
    torch.set_num_threads(threads)
    # Deterministic where torch can be, with a warning in the log where it cannot. use_deterministic_algorithms would do
    # the same and import the compiler on top: 1.5 seconds of every job.
    torch.set_deterministic_debug_mode("warn")
    # Otherwise every new tensor is filled with NaN first, which costs a pass over memory and finds nothing here.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (torch has no type for it)
    # Hessian-vector products need all of float32, unless asked for less: TF32 keeps only 10 bits of the mantissa.
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    # cuBLAS is deterministic only with a workspace of a fixed size; it reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", _WORKSPACE)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
    where = socket.gethostname()
    _log.info("on host %s, %s, threads %d, CUDA_VISIBLE_DEVICES %s", where, _name(device), threads, given)
    return device


def without_waiting(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor``, which lies in the CPU's memory, on ``device``: the CPU goes on before a GPU has it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def fast_precision(device: torch.device) -> Literal["bfloat16", "float32"]:
    """bfloat16 where the device has instructions for its products; others are many times slower than in float32."""
    if device.type == "cuda":
        has_instructions = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        has_instructions = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return "bfloat16" if has_instructions else "float32"


@contextmanager
def tensor_float_32() -> Iterator[None]:
    """Within it a GPU multiplies numbers of single precision in TensorFloat-32, where it can; a CPU does as ever."""
    places = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "tf32"
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


@contextmanager
def undisturbed(device: torch.device, *, default_device: torch.device | str = "cpu") -> Iterator[None]:
    """Within it, what the caller asked torch for does not matter.

    That is autocast, a default device, and less than single precision in products of single precision.

    Args:
        device: on which is computed.
        default_device: of new tensors.
    """
    with ExitStack() as settings:
        for kind in {"cpu", device.type}:
            if torch.is_autocast_enabled(kind):
                settings.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device() != torch.device("cpu"):
            settings.enter_context(torch.device(default_device))
        settings.enter_context(_EXACT[device.type] if device.type in _EXACT else nullcontext())
        yield


def on_its_device(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function of an operator be ``undisturbed``; an operator that does not say its device is on the CPU."""

    @functools.wraps(function)
    def undisturbed_function(*args: P.args, **kwargs: P.kwargs) -> R:
        operator = args[0] if args else kwargs.get("operator")
        with undisturbed(torch.device(getattr(operator, "device", "cpu"))):
            return function(*args, **kwargs)

    return undisturbed_function


@contextmanager
def alone(device: torch.device, *, default_dtype: torch.dtype | None = None) -> Iterator[None]:
    """Within it one thread at a time goes on, ``undisturbed``: what belongs to the process may be changed.

    That is forward mode, the weights put into a network for a call, and the default type.

    Args:
        device: on which everything happens, new tensors included.
        default_dtype: of new tensors; None leaves it to the caller.
    """
    with _ALONE, undisturbed(device, default_device=device), ExitStack() as settings:
        if default_dtype not in (None, torch.get_default_dtype()):
            settings.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(default_dtype)
        yield


_ALONE = threading.RLock()


class _FullPrecision:
    """Within it numbers of single precision are multiplied as such, until the last of all threads has left it."""

    def __init__(self, *places: Any) -> None:  # of torch's settings, which have no type
        self._places = places
        self._lock = threading.Lock()
        self._within = 0
        self._before: list[tuple[Any, str]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._within += 1
            if self._within == 1:
                precisions = [(place, place.fp32_precision) for place in self._places]
                self._before = [(place, set_to) for place, set_to in precisions if set_to not in ("none", "ieee")]
                for place, _ in self._before:
                    place.fp32_precision = "ieee"

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                for place, precision in self._before:
                    place.fp32_precision = "none"  # what applies to all backends
                    if place.fp32_precision != precision:
                        place.fp32_precision = precision


_EXACT = {
    "cpu": _FullPrecision(*(getattr(torch.backends.mkldnn, name) for name in ("matmul", "conv", "rnn"))),
    "cuda": _FullPrecision(
        torch.backends.cuda.matmul, *(getattr(torch.backends.cudnn, name) for name in ("conv", "rnn"))
    ),
}


def keep_freed_memory() -> None:
    """Let the process keep memory that tensors of up to 32 MB have freed, which the next ones then need not fault in.

    glibc does so from the first time on that a block of this size is freed; before, it depends on which happened to be.
    """
    torch.empty(2**25 - 2**14, dtype=torch.uint8, device="cpu")


def misled_by_onednn(model: nn.Module) -> bool:
    """Whether the model has a layer whose gradient oneDNN may get wrong; no network of this project has one.

    On processors without AVX-512 it writes past its memory, as released with torch 2.14 (uxlfoundation/oneDNN, issue
    6035), where a kernel of one point skips pixels and reads fewer channels than such a processor works on at once.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    return any(max(x.kernel_size) == 1 < max(x.stride) and x.in_channels // x.groups < 8 for x in layers)


@contextmanager
def without_cudnn() -> Iterator[None]:
    """Within it cuDNN computes nothing; torch's own ``flags`` fails where its layers differ in precision."""
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


@contextmanager
def without_onednn() -> Iterator[None]:
    """Within it a CPU computes convolutions by torch's own code, which is slower."""
    place = torch.backends.mkldnn
    before = place.enabled
    try:
        place.enabled = False  # type: ignore[assignment]
        yield
    finally:
        place.enabled = before


def environment(modules: Iterable[str], device: torch.device) -> dict[str, str]:
    """What may change the last bits of a result, for its provenance: a column each in every table of measurements.

    Args:
        modules: those that compute it.
        device: on which it does.
    """
    return {
        "code": version(*modules)[:12],
        "torch": str(torch.__version__),
        "device": _name(device),
        "threads": str(torch.get_num_threads()),
        "kernels": _kernels(os.environ),
    }


def _kernels(variables: Mapping[str, str]) -> str:
    """The variables by which somebody chose other kernels than the libraries would, with their values."""
    names = sorted(filter(_CHOOSING.fullmatch, variables))
    own = {"CUBLAS_WORKSPACE_CONFIG": _WORKSPACE}
    chosen = [name for name in names if not _CHOOSING_NOTHING.fullmatch(name) and own.get(name) != variables[name]]
    return " ".join(f"{name}={variables[name]}" for name in chosen)


def _name(device: torch.device) -> str:
    model = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"{device.type} {model}"
