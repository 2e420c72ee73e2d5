"""Symmetric operators of any kind, and counted, checked products with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from inspect import getattr_static
from numbers import Integral
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sharpness.eigen.vectors import length

# Largest |x'Ay - y'Ax| for unit vectors, relative to the largest eigenvalue, that rounding and noise explain.
_ALLOWED_ASYMMETRY = 0.01


class SymmetricOperator(Protocol):
    """A real symmetric operator [P, P] that multiplies a vector [P] by ``@``.

    An operator with a torch dtype also has a ``device`` and receives torch vectors; one with a numpy dtype or None (a
    numpy array, a scipy sparse array or LinearOperator) receives numpy vectors. A low-precision operator may have an
    attribute ``reference``: the same operator in full precision.
    """

    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> Any: ...

    def __matmul__(self, vector: Any, /) -> Any: ...


class VectorProduct:
    """Count and check matvecs of any symmetric operator with torch vectors, in one working precision.

    The working precision is that of the reference, if there is one, and at least float32, which an orthonormal basis
    needs.

    Raises:
        TypeError: ``operator`` is not an operator.
        ValueError: the operator is not square, or not real and of floating point.
    """

    def __init__(self, operator: SymmetricOperator, *, with_reference: bool = False) -> None:
        if not all(hasattr(operator, name) for name in ("shape", "dtype", "__matmul__")):
            raise TypeError(
                "need a symmetric operator: anything with shape, dtype and @, such as a HessianOperator, a tensor or a "
                f"scipy LinearOperator; got {type(operator).__name__}"
            )
        if not isinstance(operator.shape, Sequence):
            raise TypeError(f"need an operator whose shape is (P, P), got {operator.shape!r}")
        shape = tuple(operator.shape)
        if not all(isinstance(length, Integral) for length in shape):
            raise TypeError(f"need an operator whose shape is (P, P), whole numbers, got {operator.shape!r}")
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(f"need a square operator [P, P], got one of shape {list(shape)}")
        reference = getattr(operator, "reference", None) if with_reference else None
        self.reference = None if reference is None else VectorProduct(reference)
        self.size = shape[0]
        self.num_products = 0
        self._operator = operator
        self._in_torch = isinstance(operator.dtype, torch.dtype)
        self._dtype: torch.dtype = operator.dtype if self._in_torch else _torch_dtype(operator.dtype)
        if not self._dtype.is_floating_point:
            raise ValueError(f"need a real operator of floating point, got one of dtype {operator.dtype}")
        self.dtype: torch.dtype = (
            torch.promote_types(self._dtype, torch.float32) if self.reference is None else self.reference.dtype
        )
        self.device = torch.device(getattr(operator, "device", "cpu"))
        # Looked up statically: accessing the attribute may build the reference.
        rough = self.reference is not None or (not with_reference and getattr_static(operator, "reference", None))
        precise = not rough and self._dtype in (torch.float32, torch.float64)
        self.allowed_asymmetry = _ALLOWED_ASYMMETRY if precise else math.inf

    def __call__(self, vector: Tensor) -> Tensor:
        """Multiply ``vector`` [P]; argument and result are in the working precision.

        Raises:
            TypeError: the product has the wrong type or dtype.
            ValueError: the product has the wrong shape or device, or has changed the vector.
            FloatingPointError: the product is not finite.
        """
        self.num_products += 1
        before = vector.clone() if self.num_products == 1 else None
        if self._in_torch:
            image = self._checked(self._operator @ vector.to(self._dtype)).detach().to(self.dtype)
        else:
            image = self._in_numpy(vector)
        if before is not None and not torch.equal(before, vector):
            raise ValueError("a product with the operator changes the vector that it is given: multiply a copy of it")
        if not math.isfinite(length(image)):
            raise FloatingPointError(f"product {self.num_products} with the operator is not finite")
        return image

    def _checked(self, image: Any) -> Tensor:
        name = f"product {self.num_products} with the operator"
        if not isinstance(image, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(image).__name__}")
        if image.shape != (self.size,):
            raise ValueError(f"{name} must have the shape [{self.size}], got {list(image.shape)}")
        if image.dtype != self._dtype:
            raise TypeError(f"{name} must be of the operator's dtype {self._dtype}, got {image.dtype}")
        if image.device.type != self.device.type:
            raise ValueError(f"{name} must be on the operator's device {self.device}, got {image.device}")
        return image

    def _in_numpy(self, vector: Tensor) -> Tensor:
        image = np.asarray(self._operator @ vector.numpy())
        name = f"product {self.num_products} with the operator"
        if image.size != self.size:
            raise ValueError(f"{name} must have the shape [{self.size}], got {list(image.shape)}")
        if image.dtype.kind not in "fiub":
            raise TypeError(f"{name} must be real numbers, got dtype {image.dtype}")
        return torch.tensor(image.reshape(-1), dtype=self.dtype)

    def rows(self, vectors: Tensor) -> Tensor:
        """Multiply each row of ``vectors`` [n, P]; return the products as rows [n, P]."""
        images = torch.empty_like(vectors)
        for image, vector in zip(images, vectors, strict=True):
            image.copy_(self(vector))
        return images

    def random_direction(self, generator: torch.Generator) -> Tensor:
        """Draw a unit vector [P] uniformly on the sphere, the same on every device."""
        drawn = torch.randn(self.size, generator=generator, dtype=torch.float64)
        drawn /= length(drawn)
        return drawn.to(device=self.device, dtype=self.dtype)


def not_symmetric(difference: float) -> ValueError:
    """Build the error for an operator that is not symmetric or not deterministic."""
    return ValueError(
        "the operator must be symmetric and the same at each product: "
        f"x'Ay and y'Ax differ by {difference:.1e} of its largest eigenvalue"
    )


def _torch_dtype(dtype: Any) -> torch.dtype:
    """The torch dtype that stands for numpy's ``dtype``; float64 for None."""
    kind = np.dtype(np.float64 if dtype is None else dtype)
    if kind.kind == "c":
        return torch.complex128
    return torch.float32 if kind in (np.float16, np.float32) else torch.float64
