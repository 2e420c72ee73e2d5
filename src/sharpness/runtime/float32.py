"""How torch multiplies float32 numbers: one name for its settings, in all versions of torch.

Since torch 2.9 each kind of kernel has its ``fp32_precision``; before, a GPU's TF32 was a flag, and a CPU's bfloat16 a
setting for all matrix products.
"""

from __future__ import annotations

from typing import Any

import torch

_IS_BY_KERNEL = hasattr(torch.backends.cuda.matmul, "fp32_precision")


class _Flag:
    """The flag ``allow_tf32`` of a backend, as a precision."""

    def __init__(self, backend: Any) -> None:  # torch's backend settings have no type
        self._backend = backend

    @property
    def fp32_precision(self) -> str:
        return "tf32" if self._backend.allow_tf32 else "ieee"

    @fp32_precision.setter
    def fp32_precision(self, precision: str) -> None:
        self._backend.allow_tf32 = precision == "tf32"


class _MatrixProducts:
    """The setting of all matrix products, which makes a CPU multiply in bfloat16 if it is "medium"."""

    @property
    def fp32_precision(self) -> str:
        setting = torch.get_float32_matmul_precision()
        return "ieee" if setting == "highest" else setting

    @fp32_precision.setter
    def fp32_precision(self, precision: str) -> None:
        torch.set_float32_matmul_precision("highest" if precision in ("ieee", "none") else precision)


if _IS_BY_KERNEL:
    MATRIX_PRODUCTS: Any = torch.backends.cuda.matmul
    CONVOLUTIONS: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    ON_CPU = tuple(getattr(torch.backends.mkldnn, name) for name in ("matmul", "conv", "rnn"))
    ON_GPU = (MATRIX_PRODUCTS, *(getattr(torch.backends.cudnn, name) for name in ("conv", "rnn")))
else:
    MATRIX_PRODUCTS, CONVOLUTIONS = _Flag(torch.backends.cuda.matmul), _Flag(torch.backends.cudnn)
    ON_CPU = (_MatrixProducts(),)
    ON_GPU = (MATRIX_PRODUCTS, CONVOLUTIONS)
