"""Eigenpairs of a symmetric operator by the Lanczos method, stopped on residuals.

One start vector sees one copy of a multiple eigenvalue, and may see a cluster late: random vectors in the complement of
the Krylov space look for what is missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from sharpness.eigen.completeness import FAILURE, Sequence, Spectrum
from sharpness.eigen.krylov import (
    Krylov,
    SymmetricOperator,
    VectorProduct,
    inner_products,
    largest_magnitude,
    norms_of_rows,
)
from sharpness.eigen.refinement import Refined, refine
from sharpness.runtime import checks
from sharpness.runtime.device import on_its_device

Which = Literal["largest", "smallest", "magnitude"]

# The ends of the spectrum that the wanted eigenvalues come from.
_SIGNS: dict[str, tuple[int, ...]] = {"largest": (1,), "smallest": (-1,), "magnitude": (1, -1)}

# With a reference, at most so many products with it for each pair: one computes it anew, the others correct it. Few
# pairs may have more, since their corrections widen a small span only.
_MOST_CERTIFYING = 3
_CERTIFYING_FEW = 12
# How far inner products of vectors that are followed may be from those of orthonormal ones.
_ORTHONORMAL = 0.1


@dataclass(frozen=True)
class Eigenpairs:
    """The wanted eigenpairs, and what the same Krylov space says of the smallest eigenvalue."""

    eigenvalues: Tensor  # [k], from the wanted end inwards, float64, on the CPU
    eigenvectors: Tensor  # [k, P], orthonormal rows; the sign of a row is arbitrary
    residuals: Tensor  # [k], |A v - λ v| / max|λ|, computed from products; with the reference where there is one
    smallest: float  # the smallest Ritz value: the smallest eigenvalue where its residual is small
    smallest_residual: float  # of the operator itself, by the recurrence, where there is a reference
    num_products: int  # up to the convergence of these pairs, or all if they have not converged
    num_probing: int  # further products, of the probe that found nothing missing before it or the budget ended
    num_certifying: int  # products with the reference: k, and those that correct; 0 where there is none
    converged: bool  # whether every residual of the k pairs is within the tolerance
    # True: with a probability of 99.9 %, none of the wanted pairs is missing, or the whole space is spanned. False: a
    # probe showed a missed eigenvalue, and the budget ended before the pairs converged again. None: neither.
    complete: bool | None
    # What the probes promise with that probability: every eigenvalue beyond it (above it, below it or further from
    # zero, as ``which`` has it) is among these pairs, to within the tolerance. Infinite where nothing was probed. Where
    # there is a reference, this and ``complete`` are of the operator itself.
    complete_beyond: float


@on_its_device
def top_eigenpairs(
    operator: SymmetricOperator,
    *,
    num_pairs: int,
    tolerance: float,
    max_products: int,
    generator: torch.Generator,
    which: Which = "largest",
    probe_products: int = 8,
    certify: bool = True,
) -> Eigenpairs:
    """The ``num_pairs`` largest, smallest (both algebraically) or largest in magnitude eigenpairs of ``operator``.

    Small residuals do not mean that none was missed. So, after convergence, a vector drawn uniformly from all that was
    not multiplied yet is followed, for ``probe_products`` products in all. If that moves a wanted value by more than
    ``tolerance`` times the largest magnitude, or by a share of that where there are fewer products than pairs, the
    search goes on until the pairs converge again, and probes again. A probe that found nothing excludes what stands out
    from the rest of the spectrum: ``complete_beyond`` says how far. More products bring it closer to that rest; once it
    is short of the last wanted value, the pairs are ``complete``.

    An operator with a ``reference`` is trusted up to its noise only: the recurrence decides when to stop, and the pairs
    are then computed anew in the span of the k vectors, with one product with the reference for each, and corrected
    with a few more where the noise was too much.

    Args:
        operator: symmetric, [P, P].
        num_pairs: k, at most P.
        tolerance: largest residual, relative to the largest magnitude of an eigenvalue.
        max_products: most products with the operator, those of probes included; the best pairs so far are returned when
            they are used up. Those with a reference, from k to 3 k or 12, come on top.
        generator: of the start vector and the probes, on the CPU.
        which: the wanted end; "magnitude" orders λ and -λ as rounding has it.
        probe_products: products of a probe; 0 for none.
        certify: False leaves the ``reference`` of an operator of low precision alone; the residuals are then those of
            the operator itself.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: the operator is not square, real, of floating point and symmetric, its products have another shape,
            dtype or device, or an argument does not fit.
        FloatingPointError: a product is not finite.
    """
    product = VectorProduct(operator, with_reference=certify)
    if not isinstance(which, str) or which not in _SIGNS:
        raise ValueError(f"which must be one of {', '.join(_SIGNS)}, got {which!r}")
    for name, number in (("num_pairs", num_pairs), ("max_products", max_products), ("probe_products", probe_products)):
        checks.whole_number(name, number)
    checks.tolerance(tolerance)
    checks.generator(generator)
    if not 1 <= num_pairs <= min(max_products, product.size):
        raise ValueError(
            f"need 1 <= num_pairs <= max_products and the size {product.size} of the operator, "
            f"got num_pairs={num_pairs}, max_products={max_products}"
        )
    if probe_products < 0:
        raise ValueError(f"probe_products must not be negative, got {probe_products}")
    space = Krylov(product, generator, keep_images=product.reference is None)
    search = _Search(space, _SIGNS[which], num_pairs, tolerance, min(max_products, product.size))

    missed: bool | None = None
    pairs = search.converge()
    while pairs.converged and (missed := search.probe(probe_products)):
        pairs = search.converge()

    beyond, is_whole = search.promise()
    pairs = replace(
        pairs,
        num_probing=space.num_steps - pairs.num_products,
        complete=True if is_whole and not missed else (False if missed else None),
        complete_beyond=beyond,
    )
    return pairs if product.reference is None else search.certified(pairs, product.reference)


@on_its_device
def follow_eigenpairs(operator: SymmetricOperator, vectors: Tensor, *, tolerance: float, max_products: int) -> Refined:
    """The largest eigenpairs of ``operator`` from the eigenvectors of one that was nearly the same.

    A few products for each pair, where the operator has changed little; but an eigenvalue that has overtaken the
    followed ones is seen only as far as its vector has a part in the span. Look anew from time to time.

    Args:
        operator: symmetric, [P, P]; a ``reference`` is left alone.
        vectors: [k, P], orthonormal rows.
        tolerance: largest residual, relative to the largest magnitude among the k pairs.
        max_products: at least k; with fewer than the tolerance needs, the best pairs are returned, with their
            residuals.

    Raises:
        ValueError: there are fewer products than vectors.
        FloatingPointError: a product is not finite.
    """
    product = VectorProduct(operator, with_reference=False)
    checks.tolerance(tolerance)
    if not isinstance(vectors, Tensor):
        raise TypeError(f"vectors must be a tensor [k, {product.size}], got {type(vectors).__name__}")
    if vectors.dim() != 2 or not 1 <= len(vectors) <= product.size or vectors.shape[1] != product.size:
        raise ValueError(f"vectors must be rows [k, {product.size}], got a tensor of shape {list(vectors.shape)}")
    if not float((inner_products(vectors, vectors) - torch.eye(len(vectors))).abs().max()) < _ORTHONORMAL:
        raise ValueError("vectors must be orthonormal rows, as eigenvectors are: give torch.linalg.qr(vectors.T).Q.T")
    checks.whole_number("max_products", max_products)
    if max_products < len(vectors):
        raise ValueError(f"max_products must be at least {len(vectors)}, one for each vector, got {max_products}")
    return refine(product, vectors, ranking=torch.clone, tolerance=tolerance, max_products=max_products)


@dataclass(frozen=True)
class _Search:
    """A Krylov space that grows until it holds the wanted pairs."""

    space: Krylov
    signs: tuple[int, ...]  # the ends of the spectrum that they come from
    num_pairs: int
    tolerance: float
    capacity: int  # most steps
    sequences: list[Sequence] = field(default_factory=list)  # of the probes

    def ranking(self, values: Tensor) -> Tensor:
        """What the wanted eigenvalues have most of."""
        return torch.stack([sign * values for sign in self.signs]).amax(dim=0)

    def converge(self) -> Eigenpairs:
        """Extend the space until the wanted pairs are within the tolerance or the budget is used up."""
        look_below = self.tolerance
        while True:
            if self.space.num_steps >= self.num_pairs:
                values, coefficients = self._ritz()
                estimates = self.space.estimates(coefficients[: self.num_pairs])
                full = self.space.num_steps == self.capacity
                if full or float(estimates.max()) <= look_below * largest_magnitude(values):
                    pairs = self._pairs(values, coefficients)
                    if full or pairs.converged:
                        return pairs
                    # The recurrence is too hopeful, by rounding: looking costs more than a step, so not at each.
                    look_below /= 2
                self.space.turn(coefficients[int(estimates.argmax())])
            self.space.extend()

    def probe(self, num_products: int) -> bool | None:
        """Whether a random vector outside the basis leads to a missed pair; None if it was not followed so far.

        It is followed until its bound on the complement is well below the wanted values. What could overtake them yet
        is then known: the pair beyond them whose value plus residual is largest leads on. Once nothing could, another
        random vector is followed.
        """
        before = self._wanted()
        # Where eigenvalues lie closer together than the tolerance, Ritz vectors mix several: many may be missing, and a
        # short probe brings to light a part of them.
        negligible = self.tolerance * min(1.0, num_products / self.num_pairs)
        followed: Sequence | None = None
        for number in range(num_products):
            if self.space.num_steps == self.capacity:
                return None
            certain = number > 0 and self._first_uncertain() == self.num_pairs
            if followed is not None and followed.norms[-1] > self.space.negligible:
                if certain or not self._is_below(followed):
                    self.space.follow()
                else:
                    followed = None
                    self._turn_to_what_could_overtake()
            elif followed is not None or certain or not number:
                followed = self._begin()
            else:
                self._turn_to_what_could_overtake()
            norm = self.space.extend()
            if followed is not None:
                followed.norms.append(norm)
            if float((self._wanted() - before).max()) > negligible * self._scale():
                return True
        return False if num_products else None

    def promise(self) -> tuple[float, bool]:
        """The ``complete_beyond`` of the wanted pairs, and whether none of them can be missing."""
        sign = self.signs[0]
        if self.space.num_steps == self.space.size:
            others = self.ranking(self._ritz()[0][self.num_pairs :])
            return sign * (float(others[0]) if len(others) else -math.inf), True
        if not self.sequences:
            return sign * math.inf, False
        first = self._first_uncertain()
        return sign * self._spectrum().upper_bound(first), first == self.num_pairs

    def _begin(self) -> Sequence:
        """Lead on with a random vector: the probability of the n-th one to mislead is 1 / n (n + 1) of that of all."""
        steps, number = self.space.num_steps, len(self.sequences) + 1
        failure = FAILURE / len(self.signs) / (number * (number + 1))
        self.sequences.append(Sequence(steps, self.space.size - steps, failure))
        self.space.restart()
        return self.sequences[-1]

    def _turn_to_what_could_overtake(self) -> None:
        values, coefficients = self._ritz()
        others = coefficients[self.num_pairs :]
        if len(others):
            reach = self.ranking(values[self.num_pairs :]) + self.space.estimates(others)
            self.space.turn(others[int(reach.argmax())])

    def _is_below(self, sequence: Sequence) -> bool:
        """Whether its bounds are in the lower half of the way from what it has seen to the last wanted value."""
        last = float(self._wanted()[-1]) + self._slack()
        bounds = (sequence.largest_eigenvalue(self.space.projected, sign) for sign in self.signs)
        return all(bound <= (seen + last) / 2 for seen, bound in bounds)

    def _first_uncertain(self) -> int:
        """The rank of the first wanted value that an eigenvalue may be missing above; their number if there is none."""
        spectrum, slack = self._spectrum(), self._slack()
        wanted = enumerate(self._wanted().tolist())
        return next((rank for rank, value in wanted if spectrum.most_beyond(value + slack) > rank), self.num_pairs)

    def _spectrum(self) -> Spectrum:
        """With the bounds of all probes: what holds for the complement of a part of the basis holds for that of all."""
        projected = self.space.projected
        bounds = {
            sign: min(each.largest_eigenvalue(projected, sign)[1] for each in self.sequences) for sign in self.signs
        }
        return Spectrum(*self.space.ritz_pairs(), self.space.coupling, bounds)

    def _wanted(self) -> Tensor:
        """The ranking of the wanted Ritz values, [k], descending."""
        return self.ranking(self._ritz()[0][: self.num_pairs])

    def _slack(self) -> float:
        """How far an eigenvalue may be beyond the Ritz value of its rank."""
        return self.tolerance * (self._scale() or 1.0)

    def _scale(self) -> float:
        return largest_magnitude(self._ritz()[0])

    def certified(self, pairs: Eigenpairs, reference: VectorProduct) -> Eigenpairs:
        """``pairs`` computed anew from products with ``reference``."""
        # The wanted end is known from the reference, the other one from the operator itself.
        others = self._ritz()[0][self.num_pairs :]
        most = max(_MOST_CERTIFYING * self.num_pairs, _CERTIFYING_FEW)
        refined = refine(
            reference,
            pairs.eigenvectors,
            ranking=self.ranking,
            tolerance=self.tolerance,
            max_products=most if pairs.converged else self.num_pairs,
            magnitude=largest_magnitude(others) if len(others) else 0.0,
        )
        return replace(
            pairs,
            eigenvalues=refined.eigenvalues,
            eigenvectors=refined.eigenvectors,
            residuals=refined.residuals,
            num_certifying=refined.num_products,
            converged=bool((refined.residuals <= self.tolerance).all()),
        )

    def _ritz(self) -> tuple[Tensor, Tensor]:
        """Ritz values from the wanted end inwards, and the coefficients of their vectors as rows."""
        values, vectors = self.space.ritz_pairs()
        order = self.ranking(values).argsort(descending=True, stable=True)
        return values[order], vectors.T[order]

    def _pairs(self, values: Tensor, coefficients: Tensor) -> Eigenpairs:
        chosen = torch.cat([torch.arange(self.num_pairs), values.argmin()[None]])
        values, coefficients, scale = values[chosen], coefficients[chosen], largest_magnitude(values)
        vectors = self.space.basis.combine(coefficients)
        if self.space.images is None:
            norms = self.space.estimates(coefficients)
        else:
            norms = norms_of_rows(self.space.images.combine(coefficients) - values.to(vectors)[:, None] * vectors)
        residuals = norms / (scale or 1.0)
        return Eigenpairs(
            eigenvalues=values[:-1],
            eigenvectors=vectors[:-1],
            residuals=residuals[:-1],
            smallest=float(values[-1]),
            smallest_residual=float(residuals[-1]),
            num_products=self.space.num_steps,
            num_probing=0,
            num_certifying=0,
            converged=bool((residuals[:-1] <= self.tolerance).all()),
            complete=None,
            complete_beyond=self.signs[0] * math.inf,
        )
