"""Device, precision and determinism: the only code that changes torch's backend settings."""

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

from sharpness.runtime import float32
from sharpness.runtime.closure import version

_log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_WORKSPACE = ":4096:8"
# Environment variables that make libraries choose other kernels, and so change the last bits.
_KERNEL_VARIABLES = re.compile(
    "(ATEN|BLIS|CUBLAS|CUBLASLT|CUDNN|DNNL|GOMP|KMP|MKL|NVIDIA_TF32|OMP|ONEDNN|OPENBLAS"
    "|TORCH_(ALLOW|BLAS|CUBLAS|CUDNN|LINALG|MKLDNN))_.+"
)
# Of these, variables that only affect printing, or that have a column of their own.
_HARMLESS = re.compile(r"\w+_(NUM_THREADS|VERBOSE\w*|DISPLAY_\w+|LOG\w*)")


def choose_device(*, threads: int) -> torch.device:
    """Choose the GPU if there is one, else the CPU, and set torch up to be deterministic.

    Args:
        threads: number of CPU threads; another number may give other bits.
    """
    torch.set_num_threads(threads)
    # Deterministic where torch can be, with a logged warning where it cannot. use_deterministic_algorithms would do the
    # same, but also import the compiler, which takes 1.5 seconds.
    torch.set_deterministic_debug_mode("warn")
    # Otherwise torch fills every new tensor with NaN, which costs a pass over memory.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (torch has no type for it)
    # Hessian-vector products need full float32 by default: TF32 keeps only 10 bits of the mantissa.
    for backend in (float32.MATRIX_PRODUCTS, float32.CONVOLUTIONS):
        backend.fp32_precision = "ieee"
    torch.backends.cudnn.benchmark = False
    # cuBLAS is deterministic only with a workspace of fixed size; it reads this variable when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", _WORKSPACE)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
    where = socket.gethostname()
    _log.info("on host %s, %s, threads %d, CUDA_VISIBLE_DEVICES %s", where, _name(device), threads, given)
    return device


def to_device_async(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to ``device`` without synchronising."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def fast_precision(device: torch.device) -> Literal["bfloat16", "float32"]:
    """Return bfloat16 if the device multiplies it in hardware; emulation is many times slower than float32."""
    if device.type == "cuda":
        has_instructions = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        has_instructions = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return "bfloat16" if has_instructions else "float32"


@contextmanager
def tensor_float_32() -> Iterator[None]:
    """Let GPUs multiply float32 numbers in TensorFloat-32."""
    backends = float32.MATRIX_PRODUCTS, float32.CONVOLUTIONS
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "tf32"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@contextmanager
def undisturbed(device: torch.device, *, default_device: torch.device | str = "cpu") -> Iterator[None]:
    """Shield the block from the caller's autocast, default device and reduced precision of float32 products.

    Args:
        device: on which the block computes.
        default_device: of new tensors.
    """
    with ExitStack() as settings:
        for kind in {"cpu", device.type}:
            if torch.is_autocast_enabled(kind):
                settings.enter_context(torch.autocast(kind, enabled=False))
        # Not by torch.get_default_device: in torch 2.4 it fails once a default was set and taken back.
        if torch.empty(0).device != torch.device("cpu"):
            settings.enter_context(torch.device(default_device))
        settings.enter_context(_EXACT[device.type] if device.type in _EXACT else nullcontext())
        yield


def on_its_device(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function whose first argument is an operator to run ``undisturbed`` on the operator's device."""

    @functools.wraps(function)
    def undisturbed_function(*args: P.args, **kwargs: P.kwargs) -> R:
        operator = args[0] if args else kwargs.get("operator")
        with undisturbed(torch.device(getattr(operator, "device", "cpu"))):
            return function(*args, **kwargs)

    return undisturbed_function


@contextmanager
def alone(device: torch.device, *, default_dtype: torch.dtype | None = None) -> Iterator[None]:
    """Run the block ``undisturbed`` in one thread at a time, since it changes process-wide state.

    That state is forward-mode differentiation, the weights put into a network for a call, and the default dtype.

    Args:
        device: on which the block computes, also the default device.
        default_dtype: of new tensors; None keeps the caller's.
    """
    with _ALONE, undisturbed(device, default_device=device), ExitStack() as settings:
        if default_dtype not in (None, torch.get_default_dtype()):
            settings.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(default_dtype)
        yield


_ALONE = threading.RLock()


class _FullPrecision:
    """Context of exact float32 products, in effect until the last thread has left it."""

    def __init__(self, *backends: Any) -> None:  # torch's backend settings have no type
        self._backends = backends
        self._lock = threading.Lock()
        self._within = 0
        self._before: list[tuple[Any, str]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._within += 1
            if self._within == 1:
                precisions = [(backend, backend.fp32_precision) for backend in self._backends]
                self._before = [(backend, set_to) for backend, set_to in precisions if set_to not in ("none", "ieee")]
                for backend, _ in self._before:
                    backend.fp32_precision = "ieee"

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                for backend, precision in self._before:
                    backend.fp32_precision = "none"  # inherit the global setting
                    if backend.fp32_precision != precision:
                        backend.fp32_precision = precision


_EXACT = {"cpu": _FullPrecision(*float32.ON_CPU), "cuda": _FullPrecision(*float32.ON_GPU)}


def misled_by_onednn(model: nn.Module) -> bool:
    """Whether the model has a layer whose gradient oneDNN may compute wrongly; no network of this project has one.

    On processors without AVX-512, the oneDNN of torch 2.14 writes out of bounds (uxlfoundation/oneDNN#6035) for
    strided 1x1 convolutions with fewer input channels than the processor's vector width.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    return any(max(x.kernel_size) == 1 < max(x.stride) and x.in_channels // x.groups < 8 for x in layers)


@contextmanager
def without_cudnn() -> Iterator[None]:
    """Disable cuDNN; torch's own ``flags`` fails if layers differ in precision."""
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


@contextmanager
def without_onednn() -> Iterator[None]:
    """Disable oneDNN: CPUs compute convolutions by torch's own, slower code."""
    backend = torch.backends.mkldnn
    if not hasattr(backend, "enabled"):  # before torch 2.5
        with backend.flags(enabled=False):
            yield
        return
    before = backend.enabled
    try:
        backend.enabled = False  # type: ignore[assignment]
        yield
    finally:
        backend.enabled = before


def environment(modules: Iterable[str], device: torch.device) -> dict[str, str]:
    """Return what may change the last bits of a result, as provenance columns of every table of measurements.

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
    """Environment variables that override the libraries' choice of kernels, with their values."""
    names = sorted(filter(_KERNEL_VARIABLES.fullmatch, variables))
    own = {"CUBLAS_WORKSPACE_CONFIG": _WORKSPACE}
    chosen = [name for name in names if not _HARMLESS.fullmatch(name) and own.get(name) != variables[name]]
    return " ".join(f"{name}={variables[name]}" for name in chosen)


def _name(device: torch.device) -> str:
    model = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"{device.type} {model}"
