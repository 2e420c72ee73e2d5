"""Krylov spaces of symmetric operators of any kind: knows vectors only.

Full reorthogonalisation in two passes (Parlett, "The Symmetric Eigenvalue Problem", chapter 13): no ghost copies of an
eigenvalue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from inspect import getattr_static
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

_ROWS_PER_BLOCK = 16
_COLUMNS_PER_CHUNK = 2**16
# Of x'Ay - y'Ax for unit vectors, relative to the largest eigenvalue: more is neither rounding nor a little noise.
_ALLOWED_ASYMMETRY = 0.01


class SymmetricOperator(Protocol):
    """Anything real and symmetric, [P, P], that multiplies a vector [P] by ``@``.

    With a torch dtype it also has a ``device`` and is given torch vectors; with a numpy dtype or None (a numpy array, a
    scipy sparse array or LinearOperator) it is given numpy ones. An operator of low precision may have an attribute
    ``reference``: the same operator in full precision.
    """

    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> Any: ...

    def __matmul__(self, vector: Any, /) -> Any: ...


class Krylov:
    """An orthonormal basis V [m, P] that grows by one product a step, and the operator A projected on it.

    The images of the basis lie in the span of the basis and of a few vectors more, the frontier F [p, P]:
    A V' = V' T + F' C. One sequence of Lanczos has p = 1 and its next vector there. Each restart that interrupts a
    sequence keeps the interrupted one's next vector, as in the band Lanczos method (Ruhe, 1979): nothing is lost.

    Args:
        product: of the operator.
        generator: of the start vectors, on the CPU.
        keep_images: whether A V' is kept, for residuals computed from products.
    """

    def __init__(self, product: VectorProduct, generator: torch.Generator, *, keep_images: bool) -> None:
        self.basis = Rows(product)
        self.images = Rows(product) if keep_images else None
        self.projected = torch.zeros(0, 0, dtype=torch.float64)  # T, [m, m]
        self._frontier = torch.zeros(0, product.size, dtype=product.dtype, device=product.device)
        self.coupling = torch.zeros(0, 0, dtype=torch.float64)  # C, [p, m]
        self._product = product
        self._generator = generator
        self._ritz: tuple[Tensor, Tensor] | None = None

    @property
    def size(self) -> int:
        """P."""
        return self._product.size

    @property
    def negligible(self) -> float:
        """Less is rounding, which two passes of orthogonalisation do not tell from a direction."""
        return float(torch.finfo(self._product.dtype).eps ** 0.7 * largest_magnitude(self.projected))

    @property
    def num_steps(self) -> int:
        """m, the number of products."""
        return len(self.projected)

    def ritz_pairs(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues of T [m], ascending, and its eigenvectors as columns [m, m]: computed once a step."""
        if self._ritz is None:
            self._ritz = torch.linalg.eigh(self.projected)
        return self._ritz

    def restart(self) -> None:
        """Go on from a random vector orthogonal to the basis, uniform on the sphere: the frontier is part of it."""
        vector = self._product.random_direction(self._generator)
        for _ in range(2):
            _, vector = self.basis.split(vector)
            vector /= length(vector)
        _, along, rest = self._split(vector, self._frontier)
        _, _, rest = self._split(rest, self._frontier)
        norm = length(rest)
        if norm > torch.finfo(rest.dtype).eps ** 0.7 and self.num_steps + len(self._frontier) < self.size:
            self._frontier = torch.cat([self._frontier, (rest / norm)[None]])
            self.coupling = pad(self.coupling, (0, 0, 0, 1))
            along = torch.cat([along, along.new_tensor([norm])])
        self._lead(along.double().cpu())

    def follow(self) -> None:
        """Go on with all of the last image that lies outside the basis."""
        self._lead(self.coupling[:, -1])

    def extend(self) -> float:
        """One more step, with the frontier's first vector; returns the length of its image outside the basis.

        Raises:
            ValueError: the operator is not symmetric.
        """
        if not len(self._frontier):
            self.restart()
        vector, others = self._frontier[0], self._frontier[1:]
        image = self._product(vector)
        self.basis.append(vector)
        if self.images is not None:
            self.images.append(image)
        along_basis, along_others, rest = self._split(image, others)
        before = self.coupling[0]
        # Twice is enough: one pass leaves components of the size of the rounding error.
        _, _, rest = self._split(rest, others)
        self.projected = pad(self.projected, (0, 1, 0, 1))
        self.projected[-1] = self.projected[:, -1] = along_basis.double().cpu()
        self._ritz = None
        self._check_symmetry(before)
        coupling = torch.cat([self.coupling[1:], along_others.double().cpu()[:, None]], dim=1)

        norm = length(rest)
        outside = math.hypot(norm, length(along_others))
        # Nothing is lost where a sequence ends too early: the columns of the projection are computed in full.
        if norm > self.negligible and self.num_steps + len(others) < self.size:
            others = torch.cat([(rest / norm)[None], others])
            coupling = pad(coupling, (0, 0, 1, 0))
            coupling[0, -1] = norm
        self._frontier, self.coupling = others, coupling
        return outside

    def _check_symmetry(self, expected: Tensor) -> None:
        """The last vector's image has the parts along the vectors before that theirs have along it: ``expected``."""
        difference = largest_magnitude(self.projected[-1, :-1] - expected) if len(expected) else 0.0
        if difference > self._product.allowed_asymmetry * largest_magnitude(self.projected):
            raise not_symmetric(difference / largest_magnitude(self.projected))

    def estimates(self, coefficients: Tensor) -> Tensor:
        """|A y - θ y| of Ritz vectors given by their ``coefficients`` [n, m], as the recurrence has it: cheap, [n]."""
        return norms_of_rows(coefficients @ self.coupling.T)

    def turn(self, coefficients: Tensor) -> None:
        """Where several sequences wait, go on with the residual of the Ritz vector given by ``coefficients`` [m]."""
        self._lead(self.coupling @ coefficients)

    def _lead(self, direction: Tensor) -> None:
        """Turn the frontier so that its first vector is the one with the coefficients ``direction`` [p]."""
        num_waiting = len(self._frontier)
        if num_waiting < 2 or not float(direction.norm()):
            return
        rotation = torch.linalg.qr(torch.cat([direction[:, None], torch.eye(num_waiting).double()], dim=1)).Q.T
        self._frontier = rotation.to(self._frontier) @ self._frontier
        self.coupling = rotation @ self.coupling

    def _split(self, vector: Tensor, frontier: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients [m] and [p] of ``vector`` along the basis and ``frontier``, and the rest [P]."""
        along_basis, rest = self.basis.split(vector)
        along_frontier = frontier @ rest
        return along_basis, along_frontier, rest - along_frontier @ frontier


class Rows:
    """Vectors as the rows of a matrix [m, P] that grows: in blocks, so that none is copied and few wait empty."""

    def __init__(self, product: VectorProduct) -> None:
        self._empty = torch.empty(0, product.size, dtype=product.dtype, device=product.device)
        self._blocks: list[Tensor] = []
        self._num_rows = 0

    def append(self, row: Tensor) -> None:
        """Copy ``row`` [P] to the end."""
        place = self._num_rows % _ROWS_PER_BLOCK
        if place == 0:
            self._blocks.append(self._empty.new_empty(_ROWS_PER_BLOCK, self._empty.shape[1]))
        self._blocks[-1][place] = row
        self._num_rows += 1

    def split(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients [m] of ``vector`` along the rows, which are orthonormal, and what is left of it [P]."""
        parts = [self._empty.new_empty(0)]
        for block in self._filled():
            parts.append(block @ vector)
            vector = vector - parts[-1] @ block
        return torch.cat(parts), vector

    def combine(self, coefficients: Tensor) -> Tensor:
        """``coefficients`` [n, m] times the rows, [n, P]."""
        combined = self._empty.new_zeros(len(coefficients), self._empty.shape[1])
        parts = torch.split(coefficients.to(combined), _ROWS_PER_BLOCK, dim=1)
        for part, block in zip(parts, self._filled(), strict=True):
            combined.addmm_(part, block)
        return combined

    def _filled(self) -> list[Tensor]:
        last = self._num_rows - _ROWS_PER_BLOCK * (len(self._blocks) - 1)
        return [*self._blocks[:-1], *(block[:last] for block in self._blocks[-1:])]


class VectorProduct:
    """Products of a symmetric operator of any kind with torch vectors, in one working precision: counted and checked.

    The working precision is the reference's, if there is one, and at least single: an orthonormal basis needs it.

    Raises:
        TypeError: it is no operator.
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
        # Asked statically: a reference may be made when it is asked for.
        rough = self.reference is not None or (not with_reference and getattr_static(operator, "reference", None))
        precise = not rough and self._dtype in (torch.float32, torch.float64)
        self.allowed_asymmetry = _ALLOWED_ASYMMETRY if precise else math.inf

    def __call__(self, vector: Tensor) -> Tensor:
        """The operator times ``vector`` [P], both in the working precision.

        Raises:
            TypeError: the product is of another kind or dtype.
            ValueError: it has another shape or is on another device.
            FloatingPointError: it is not finite.
        """
        self.num_products += 1
        if self._in_torch:
            image = self._checked(self._operator @ vector.to(self._dtype)).detach().to(self.dtype)
        else:
            image = self._in_numpy(vector)
        if not math.isfinite(length(image)):
            raise FloatingPointError(f"product {self.num_products} with the operator is not finite")
        return image

    def _checked(self, image: Any) -> Tensor:
        place = f"product {self.num_products} with the operator"
        if not isinstance(image, Tensor):
            raise TypeError(f"{place} must be a tensor, got {type(image).__name__}")
        if image.shape != (self.size,):
            raise ValueError(f"{place} must have the shape [{self.size}], got {list(image.shape)}")
        if image.dtype != self._dtype:
            raise TypeError(f"{place} must be of the operator's dtype {self._dtype}, got {image.dtype}")
        if image.device.type != self.device.type:
            raise ValueError(f"{place} must be on the operator's device {self.device}, got {image.device}")
        return image

    def _in_numpy(self, vector: Tensor) -> Tensor:
        image = np.asarray(self._operator @ vector.numpy())
        place = f"product {self.num_products} with the operator"
        if image.size != self.size:
            raise ValueError(f"{place} must have the shape [{self.size}], got {list(image.shape)}")
        if image.dtype.kind not in "fiub":
            raise TypeError(f"{place} must be real numbers, got dtype {image.dtype}")
        return torch.tensor(image.reshape(-1), dtype=self.dtype)

    def rows(self, vectors: Tensor) -> Tensor:
        """The operator times each of the rows ``vectors`` [n, P], as rows."""
        images = torch.empty_like(vectors)
        for image, vector in zip(images, vectors, strict=True):
            image.copy_(self(vector))
        return images

    def random_direction(self, generator: torch.Generator) -> Tensor:
        """A vector [P] of length 1, uniform on the sphere, the same on every device."""
        drawn = torch.randn(self.size, generator=generator, dtype=torch.float64)
        drawn /= length(drawn)
        return drawn.to(device=self.device, dtype=self.dtype)


def not_symmetric(difference: float) -> ValueError:
    """The error of an operator that is none of this project's."""
    return ValueError(
        "the operator must be symmetric and the same at each product: "
        f"x'Ay and y'Ax differ by {difference:.1e} of its largest eigenvalue"
    )


def inner_products(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of the rows of ``left`` [n, P] with those of ``right`` [l, P]: [n, l], float64, on the CPU."""
    total = torch.zeros(len(left), len(right), dtype=torch.float64)
    # In pieces: a copy of it all in double precision may not fit.
    pieces = (torch.split(rows, _COLUMNS_PER_CHUNK, dim=1) for rows in (left, right))
    for of_left, of_right in zip(*pieces, strict=True):
        total += (of_left.double() @ of_right.double().T).cpu()
    return total


def orthonormal_outside(rows: Tensor, vectors: Tensor) -> Tensor:
    """An orthonormal basis of the span of ``vectors`` [n, P] less their parts along the orthonormal ``rows`` [k, P]."""
    for _ in range(2):
        vectors = vectors - (vectors @ rows.T) @ rows
        vectors = torch.linalg.qr(vectors.T).Q.T
    return vectors


def norms_of_rows(rows: Tensor) -> Tensor:
    """Their lengths [n], float64, on the CPU."""
    # Summed in double: single precision is off by 1e-5 on vectors as long as a network's weights, and eigenvalues by
    # twice as much.
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return norms.cpu()


def length(vector: Tensor) -> float:
    """Of one vector [P]."""
    return float(norms_of_rows(vector[None]))


def largest_magnitude(values: Tensor) -> float:
    """max|λ| of some eigenvalues."""
    return float(values.abs().max())


def _torch_dtype(dtype: Any) -> torch.dtype:
    """The precision in which an operator of numpy's ``dtype`` is worked on; double where it does not say."""
    kind = np.dtype(np.float64 if dtype is None else dtype)
    if kind.kind == "c":
        return torch.complex128
    return torch.float32 if kind in (np.float16, np.float32) else torch.float64
