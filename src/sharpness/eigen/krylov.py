"""Krylov spaces of symmetric operators, with full reorthogonalisation.

Two passes of Gram-Schmidt prevent ghost copies of an eigenvalue (Parlett, "The Symmetric Eigenvalue Problem", chapter
13).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from sharpness.eigen.operators import VectorProduct, not_symmetric
from sharpness.eigen.vectors import along_rows, largest_magnitude, length, norms_of_rows

_ROWS_PER_BLOCK = 16
_COLUMNS_AT_ONCE = 2**16


class Krylov:
    """An orthonormal basis V [m, P] that grows by one matvec a step, and the operator A projected onto it.

    The images of the basis lie in the span of the basis and a few further vectors, the frontier F [p, P]:
    A V' = V' T + F' C. A single Lanczos sequence has p = 1, with its next vector as the frontier. A restart keeps the
    next vector of the sequence that it interrupts, as in the band Lanczos method (Ruhe, 1979), so nothing is lost.

    Args:
        product: matvec with the operator.
        generator: draws the start vectors, on the CPU.
        keep_images: store A V', so that residuals can be computed from products.
        max_rows: most rows that the basis may have; None for no bound.
    """

    def __init__(
        self, product: VectorProduct, generator: torch.Generator, *, keep_images: bool, max_rows: int | None = None
    ) -> None:
        self.basis = Rows(product, max_rows)
        self.images = Rows(product) if keep_images else None
        self.projected = torch.zeros(0, 0, dtype=torch.float64)  # T, [m, m]
        self._frontier = torch.zeros(0, product.size, dtype=product.dtype, device=product.device)
        self.coupling = torch.zeros(0, 0, dtype=torch.float64)  # C, [p, m]
        self._product = product
        self._generator = generator
        self._in_place = False
        self._ritz: tuple[Tensor, Tensor] | None = None

    @property
    def size(self) -> int:
        """P."""
        return self._product.size

    @property
    def negligible(self) -> float:
        """Norm below which a remainder is rounding error and not a new direction."""
        return float(torch.finfo(self._product.dtype).eps ** 0.7 * largest_magnitude(self.projected))

    @property
    def num_steps(self) -> int:
        """m: the number of matvecs, unless the space was compressed."""
        return len(self.projected)

    @property
    def num_frontier(self) -> int:
        """p."""
        return len(self._frontier)

    @property
    def num_products(self) -> int:
        """Number of matvecs so far."""
        return self._product.num_products

    def num_vectors(self) -> int:
        """Number of vectors in memory after the next step: basis, images and frontier."""
        rows = min((self.num_steps // _ROWS_PER_BLOCK + 1) * _ROWS_PER_BLOCK, self.size)
        return rows * (1 if self.images is None else 2) + self.num_frontier

    def ritz_pairs(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues [m] of T, ascending, and its eigenvectors as columns [m, m]; cached until the next step."""
        if self._ritz is None:
            self._ritz = torch.linalg.eigh(self.projected)
        return self._ritz

    def restart(self) -> None:
        """Continue from a random unit vector in the complement of the basis, which includes the frontier."""
        vector = self._product.random_direction(self._generator)
        for _ in range(2):
            _, vector = self.basis.split(vector)
            vector /= length(vector)
        _, along, rest = self._split(vector, self._frontier)
        _, _, rest = self._split(rest, self._frontier)
        norm = length(rest)
        if norm > torch.finfo(rest.dtype).eps ** 0.7 and self.num_steps + len(self._frontier) < self.size:
            self._frontier = torch.cat([self._frontier, (rest / norm)[None]])
            self.coupling = torch.cat([self.coupling, self.coupling.new_zeros(1, self.coupling.shape[1])])
            along = torch.cat([along, along.new_tensor([norm])])
        self._lead(along.double().cpu())

    def follow(self) -> None:
        """Continue with the part of the last image that lies outside the basis."""
        self._lead(self.coupling[:, -1])

    def extend(self) -> float:
        """Add the frontier's first vector to the basis; return the norm of its image outside the basis.

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
        _, _, rest = self._split(rest, others, in_place=True)
        self.projected = pad(self.projected, (0, 1, 0, 1))
        self.projected[-1] = self.projected[:, -1] = along_basis.double().cpu()
        self._ritz = None
        self._check_symmetry(before)
        coupling = torch.cat([self.coupling[1:], along_others.double().cpu()[:, None]], dim=1)

        norm = length(rest)
        outside = math.hypot(norm, length(along_others))
        # Ending a sequence early loses nothing, since the columns of T are computed in full.
        if norm > self.negligible and self.num_steps + len(others) < self.size:
            self._frontier[0] = rest.div_(norm)
            others = self._frontier
            coupling = pad(coupling, (0, 0, 1, 0))
            coupling[0, -1] = norm
        self._frontier, self.coupling = others, coupling
        return outside

    def _check_symmetry(self, expected: Tensor) -> None:
        """Compare the last column of T with ``expected``, the same entries as computed from the earlier images."""
        difference = largest_magnitude(self.projected[-1, :-1] - expected) if len(expected) else 0.0
        if difference > self._product.allowed_asymmetry * largest_magnitude(self.projected):
            raise not_symmetric(difference / largest_magnitude(self.projected))

    def estimates(self, coefficients: Tensor) -> Tensor:
        """Residual norms |A y - θ y| [n], by the recurrence, of Ritz vectors with ``coefficients`` [n, m]."""
        return norms_of_rows(coefficients @ self.coupling.T)

    def turn(self, coefficients: Tensor) -> None:
        """Continue along the residual of the Ritz vector with ``coefficients`` [m], if the frontier has a choice."""
        self._lead(self.coupling @ coefficients)

    def drop_images(self) -> None:
        """Free the images; from now on residuals follow from the recurrence alone."""
        self.images = None
        self._in_place = True

    def compress(self, values: Tensor, coefficients: Tensor) -> None:
        """Replace the basis by the Ritz vectors with ``values`` [n] and ``coefficients`` [n, m]: a thick restart.

        A Ritz vector y with value θ has A y = θ y + F' C s, so the frontier stays, and nothing is lost of the images of
        what is kept (Wu and Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", 2000).
        """
        self.drop_images()
        self.basis.compress(coefficients)
        self.projected = torch.diag(values)
        self.coupling = self.coupling @ coefficients.T
        self._ritz = None

    def recurrence_error(self, values: Tensor, coefficients: Tensor, vectors: Tensor) -> float:
        """Measure by one matvec how far rounding has taken the recurrence from the images of Ritz vectors.

        Args:
            values: [k].
            coefficients: [k, m].
            vectors: [k, P].

        Returns:
            The Frobenius norm of the difference of all k images, as a sum of the vectors with random signs shows it.
        """
        num_pairs = len(values)
        signs = 1.0 - 2.0 * torch.randint(2, (num_pairs,), generator=self._generator, dtype=torch.float64)
        signs /= math.sqrt(num_pairs)
        image = self._product(signs.to(vectors) @ vectors)
        image = image - (signs * values).to(vectors) @ vectors
        image -= (self.coupling @ (signs @ coefficients)).to(vectors) @ self._frontier
        return math.sqrt(num_pairs) * length(image)

    def residual_norms(self, values: Tensor, vectors: Tensor) -> Tensor:
        """Compute |A v - λ v| [n] for the rows of ``vectors`` [n, P], from a matvec each."""
        norms = [
            length(self._product(vector) - value * vector)
            for value, vector in zip(values.tolist(), vectors, strict=True)
        ]
        return torch.tensor(norms, dtype=torch.float64)

    def _lead(self, direction: Tensor) -> None:
        """Rotate the frontier so that its first vector is the one with coefficients ``direction`` [p]."""
        num_frontier = len(self._frontier)
        if num_frontier < 2 or not float(direction.norm()):
            return
        rotation = torch.linalg.qr(torch.cat([direction[:, None], torch.eye(num_frontier).double()], dim=1)).Q.T
        if self._in_place:
            _combine_in_place(list(torch.split(self._frontier, _ROWS_PER_BLOCK)), rotation)
        else:
            self._frontier = rotation.to(self._frontier) @ self._frontier
        self.coupling = rotation @ self.coupling

    def _split(self, vector: Tensor, frontier: Tensor, *, in_place: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients [m] and [p] of ``vector`` along the basis and ``frontier``, and the remainder [P]."""
        along_basis, rest = self.basis.split(vector, in_place=in_place)
        return along_basis, self.basis.subtract_projection(rest, frontier), rest


class Rows:
    """A matrix [m, P] that grows row by row; stored in blocks, so that rows are never moved.

    Args:
        product: whose vectors the rows are.
        max_rows: most rows that there will be, so that no more are allocated; None for no bound.
    """

    def __init__(self, product: VectorProduct, max_rows: int | None = None) -> None:
        self._empty = torch.empty(0, product.size, dtype=product.dtype, device=product.device)
        self._blocks: list[Tensor] = []
        self._num_rows = 0
        self._scratch: Tensor | None = None
        self._max_rows = product.size if max_rows is None else max_rows

    def append(self, row: Tensor) -> None:
        """Append a copy of ``row`` [P]."""
        index = self._num_rows % _ROWS_PER_BLOCK
        if self._num_rows == _ROWS_PER_BLOCK * len(self._blocks):
            size = min(_ROWS_PER_BLOCK, self._max_rows - self._num_rows)
            self._blocks.append(self._empty.new_empty(size, self._empty.shape[1]))
        self._blocks[self._num_rows // _ROWS_PER_BLOCK][index] = row
        self._num_rows += 1

    def compress(self, coefficients: Tensor) -> None:
        """Replace the rows by ``coefficients`` [n, m] times the rows, n <= m, in place."""
        _combine_in_place(self._filled(), coefficients)
        self._num_rows = len(coefficients)

    def clear(self) -> None:
        """Free all rows."""
        self._blocks, self._num_rows = [], 0

    def split(self, vector: Tensor, *, in_place: bool = False) -> tuple[Tensor, Tensor]:
        """Coefficients [m] of ``vector`` along the orthonormal rows, and the remainder [P]."""
        rest = vector if in_place else vector.clone()
        parts = [self.subtract_projection(rest, block) for block in self._filled()]
        return torch.cat([self._empty.new_empty(0), *parts]), rest

    def subtract_projection(self, vector: Tensor, rows: Tensor) -> Tensor:
        """Take the part along orthonormal ``rows`` [n, P] from ``vector`` [P], in place; return the coefficients."""
        along = along_rows(rows, vector)
        if len(rows):
            # The system zeroes the pages of every new tensor of this length: use one for all.
            if self._scratch is None:
                self._scratch = torch.empty_like(vector)
            torch.mm(along[None], rows, out=self._scratch[None])
            vector.sub_(self._scratch)
        return along

    def combine(self, coefficients: Tensor) -> Tensor:
        """The linear combinations ``coefficients`` [n, m] times the rows: [n, P]."""
        combined = self._empty.new_zeros(len(coefficients), self._empty.shape[1])
        return _add_combinations(combined, self._filled(), coefficients)

    def _filled(self) -> list[Tensor]:
        num_blocks = -(-self._num_rows // _ROWS_PER_BLOCK)
        last = self._num_rows - _ROWS_PER_BLOCK * (num_blocks - 1)
        return [*self._blocks[: num_blocks - 1], self._blocks[num_blocks - 1][:last]] if num_blocks else []


def _add_combinations(total: Tensor, blocks: list[Tensor], coefficients: Tensor) -> Tensor:
    """Add ``coefficients`` [n, m] times the rows of all blocks [m, c] to ``total`` [n, c]."""
    parts = torch.split(coefficients.to(total), _ROWS_PER_BLOCK, dim=1)
    for part, block in zip(parts, blocks, strict=True):
        total.addmm_(part, block)
    return total


def _combine_in_place(blocks: list[Tensor], coefficients: Tensor) -> None:
    """Replace the first n rows of all blocks [m, P] by ``coefficients`` [n, m] times the rows."""
    for pieces in zip(*(torch.split(block, _COLUMNS_AT_ONCE, dim=1) for block in blocks), strict=True):
        total = pieces[0].new_zeros(len(coefficients), pieces[0].shape[1])
        rows = torch.split(_add_combinations(total, list(pieces), coefficients), _ROWS_PER_BLOCK)
        for piece, combined in zip(pieces, rows, strict=False):
            piece[: len(combined)] = combined
