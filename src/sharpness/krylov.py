"""Krylov spaces of symmetric operators of any kind: knows vectors only.

Full reorthogonalisation in two passes (Parlett, "The Symmetric Eigenvalue Problem", chapter 13): no ghost copies of an
eigenvalue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

_ROWS_PER_BLOCK = 16
_COLUMNS_PER_CHUNK = 2**16


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
        self._coupling = torch.zeros(0, 0, dtype=torch.float64)  # C, [p, m]
        self._product = product
        self._generator = generator

    @property
    def num_steps(self) -> int:
        """m, the number of products."""
        return len(self.projected)

    def restart(self) -> None:
        """Go on from a random vector orthogonal to all there is, if there is room for one."""
        if self.num_steps + len(self._frontier) == self._product.size:
            return
        vector = self._product.random_direction(self._generator)
        for _ in range(2):
            _, _, rest = self._split(vector, self._frontier)
            vector = rest / length(rest)
        self._frontier = torch.cat([vector[None], self._frontier])
        self._coupling = pad(self._coupling, (0, 0, 1, 0))

    def extend(self) -> bool:
        """One more step, with the frontier's first vector; returns whether its image held no new direction."""
        if not len(self._frontier):
            self.restart()
        vector, others = self._frontier[0], self._frontier[1:]
        image = self._product(vector)
        self.basis.append(vector)
        if self.images is not None:
            self.images.append(image)
        along_basis, along_others, rest = self._split(image, others)
        # Twice is enough: one pass leaves components of the size of the rounding error.
        _, _, rest = self._split(rest, others)
        self.projected = pad(self.projected, (0, 1, 0, 1))
        self.projected[-1] = self.projected[:, -1] = along_basis.double().cpu()
        coupling = torch.cat([self._coupling[1:], along_others.double().cpu()[:, None]], dim=1)

        norm = length(rest)
        # Less is rounding, which two passes do not tell from a direction. Nothing is lost where a sequence ends too
        # early: the columns of the projection are computed in full.
        ends = norm <= torch.finfo(rest.dtype).eps ** 0.7 * largest_magnitude(self.projected)
        ends = ends or self.num_steps + len(others) == self._product.size
        if not ends:
            others = torch.cat([(rest / norm)[None], others])
            coupling = pad(coupling, (0, 0, 1, 0))
            coupling[0, -1] = norm
        self._frontier, self._coupling = others, coupling
        return ends

    def estimates(self, coefficients: Tensor) -> Tensor:
        """|A y - θ y| of Ritz vectors given by their ``coefficients`` [n, m], as the recurrence has it: cheap, [n]."""
        return norms_of_rows(coefficients @ self._coupling.T)

    def turn(self, coefficients: Tensor) -> None:
        """Where several sequences wait, go on with the residual of the Ritz vector given by ``coefficients`` [m]."""
        num_waiting = len(self._frontier)
        if num_waiting < 2:
            return
        residual = self._coupling @ coefficients
        rotation = torch.linalg.qr(torch.cat([residual[:, None], torch.eye(num_waiting).double()], dim=1)).Q.T
        self._frontier = rotation.to(self._frontier) @ self._frontier
        self._coupling = rotation @ self._coupling

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
        ValueError: the operator is not square, or not real and of floating point.
    """

    def __init__(self, operator: SymmetricOperator, *, with_reference: bool = False) -> None:
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

    def __call__(self, vector: Tensor) -> Tensor:
        """The operator times ``vector`` [P], both in the working precision.

        Raises:
            FloatingPointError: the product is not finite.
        """
        self.num_products += 1
        if self._in_torch:
            image: Tensor = (self._operator @ vector.to(self._dtype)).detach().to(self.dtype)
        else:
            image = torch.tensor(np.asarray(self._operator @ vector.numpy()).reshape(-1), dtype=self.dtype)
        if not math.isfinite(length(image)):
            raise FloatingPointError(f"product {self.num_products} with the operator is not finite")
        return image

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
