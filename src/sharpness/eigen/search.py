"""The search for eigenpairs in a Krylov space: converge, probe for missed ones, certify."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sharpness.eigen.completeness import FAILURE, LanczosSequence, Spectrum
from sharpness.eigen.krylov import Krylov
from sharpness.eigen.operators import VectorProduct
from sharpness.eigen.refinement import refine
from sharpness.eigen.vectors import largest_magnitude, norms_of_rows

# With a reference, at most this many matvecs with it per pair: one recomputes the pair, the others correct it. A few
# pairs may take more, since their corrections widen a small span only.
_REFERENCE_PRODUCTS_PER_PAIR = 3
_LEAST_REFERENCE_PRODUCTS = 12


@dataclass(frozen=True)
class Eigenpairs:
    """The wanted eigenpairs, and the smallest eigenvalue as the same Krylov space estimates it."""

    eigenvalues: Tensor  # [k], from the wanted end inwards, float64, on the CPU
    eigenvectors: Tensor  # [k, P], orthonormal rows; the sign of a row is arbitrary
    residuals: Tensor  # [k], |A v - λ v| / max|λ|, computed from products (with the reference if there is one)
    smallest: float  # the smallest Ritz value; the smallest eigenvalue if its residual is small
    smallest_residual: float  # with a reference: of the operator itself, by the recurrence
    num_products: int  # matvecs until these pairs converged, or all matvecs if they did not
    num_probing: int  # further matvecs of the last probe, which found nothing missing
    num_certifying: int  # matvecs with the reference, k and corrections; 0 without one
    converged: bool  # whether every residual of the k pairs is within the tolerance
    # True: no wanted pair is missing, with probability 99.9 % (or the basis spans the whole space). False: a probe
    # revealed a missed eigenvalue, and the budget ended before the pairs converged again. None: undecided.
    complete: bool | None
    # With the same probability, every eigenvalue beyond this bound (above, below or larger in magnitude, according to
    # ``which``) is among these pairs, to within the tolerance. Infinite without a probe. With a reference, this and
    # ``complete`` refer to the operator itself.
    complete_beyond: float


@dataclass(frozen=True)
class Search:
    """Grow a Krylov space until it contains the wanted pairs."""

    space: Krylov
    signs: tuple[int, ...]  # ends of the spectrum: 1 for the largest eigenvalues, -1 for the smallest
    num_pairs: int
    tolerance: float
    capacity: int  # maximum number of steps
    sequences: list[LanczosSequence] = field(default_factory=list)  # of the probes

    def ranking(self, values: Tensor) -> Tensor:
        """Sort key of the Ritz values ``values`` [n]: the wanted ones are largest."""
        return torch.stack([sign * values for sign in self.signs]).amax(dim=0)

    def converge(self) -> Eigenpairs:
        """Extend the space until the wanted pairs are within the tolerance or the budget is spent."""
        check_below = self.tolerance
        while True:
            if self.space.num_steps >= self.num_pairs:
                values, coefficients = self._ritz()
                estimates = self.space.estimates(coefficients[: self.num_pairs])
                full = self.space.num_steps == self.capacity
                if full or float(estimates.max()) <= check_below * largest_magnitude(values):
                    pairs = self._pairs(values, coefficients)
                    if full or pairs.converged:
                        return pairs
                    # Rounding made the recurrence's estimate too small. Computing residuals costs more than a step, so
                    # do not repeat it at every step.
                    check_below /= 2
                self.space.turn(coefficients[int(estimates.argmax())])
            self.space.extend()

    def probe(self, num_products: int) -> bool | None:
        """Look for a missed pair from a random vector outside the basis; None if the search ended before it could tell.

        Extend the random vector's Lanczos sequence until its bound on the complement is well below the wanted values.
        Then extend along the Ritz pair that could still overtake them: the one whose value plus residual is largest.
        Once none could, start from another random vector.
        """
        before = self._wanted()
        # Ritz vectors mix eigenvalues that are closer together than the tolerance: many may be missing, and a short
        # probe reveals only some of them.
        negligible = self.tolerance * min(1.0, num_products / self.num_pairs)
        followed: LanczosSequence | None = None
        for number in range(num_products):
            if self.space.num_steps == self.capacity:
                return None
            certain = number > 0 and self._first_uncertain() == self.num_pairs
            if followed is not None and followed.norms[-1] > self.space.negligible:
                if certain or not self._is_below(followed):
                    self.space.follow()
                else:
                    followed = None
                    self._turn_to_strongest_contender()
            elif followed is not None or certain or not number:
                followed = self._begin()
            else:
                self._turn_to_strongest_contender()
            norm = self.space.extend()
            if followed is not None:
                followed.norms.append(norm)
            if float((self._wanted() - before).max()) > negligible * self._scale():
                return True
        return False if num_products else None

    def completeness(self) -> tuple[float, bool]:
        """Return ``Eigenpairs.complete_beyond``, and whether no wanted pair can be missing."""
        sign = self.signs[0]
        if self.space.num_steps == self.space.size:
            others = self.ranking(self._ritz()[0][self.num_pairs :])
            return sign * (float(others[0]) if len(others) else -math.inf), True
        if not self.sequences:
            return sign * math.inf, False
        first = self._first_uncertain()
        return sign * self._spectrum().upper_bound(first), first == self.num_pairs

    def _begin(self) -> LanczosSequence:
        """Start a sequence from a random vector; the n-th gets 1 / (n (n + 1)) of the total failure probability."""
        steps, number = self.space.num_steps, len(self.sequences) + 1
        failure = FAILURE / len(self.signs) / (number * (number + 1))
        self.sequences.append(LanczosSequence(steps, self.space.size - steps, failure))
        self.space.restart()
        return self.sequences[-1]

    def _turn_to_strongest_contender(self) -> None:
        """Continue along the residual of the unwanted pair that could overtake the wanted ones first."""
        values, coefficients = self._ritz()
        others = coefficients[self.num_pairs :]
        if len(others):
            reach = self.ranking(values[self.num_pairs :]) + self.space.estimates(others)
            self.space.turn(others[int(reach.argmax())])

    def _is_below(self, sequence: LanczosSequence) -> bool:
        """Whether the bounds of ``sequence`` are closer to its largest Ritz value than to the last wanted value."""
        last = float(self._wanted()[-1]) + self._slack()
        bounds = (sequence.largest_eigenvalue(self.space.projected, sign) for sign in self.signs)
        return all(bound <= (seen + last) / 2 for seen, bound in bounds)

    def _first_uncertain(self) -> int:
        """Rank of the first wanted value above which an eigenvalue may be missing; ``num_pairs`` if there is none."""
        spectrum, slack = self._spectrum(), self._slack()
        wanted = enumerate(self._wanted().tolist())
        return next((rank for rank, value in wanted if spectrum.most_beyond(value + slack) > rank), self.num_pairs)

    def _spectrum(self) -> Spectrum:
        """Combine the bounds of all probes: a bound on the complement of part of the basis holds for that of all."""
        projected = self.space.projected
        bounds = {
            sign: min(each.largest_eigenvalue(projected, sign)[1] for each in self.sequences) for sign in self.signs
        }
        return Spectrum(*self.space.ritz_pairs(), self.space.coupling, bounds)

    def _wanted(self) -> Tensor:
        """Sort keys of the wanted Ritz values, [k], descending."""
        return self.ranking(self._ritz()[0][: self.num_pairs])

    def _slack(self) -> float:
        """Tolerated distance of an eigenvalue beyond the Ritz value of its rank."""
        return self.tolerance * (self._scale() or 1.0)

    def _scale(self) -> float:
        return largest_magnitude(self._ritz()[0])

    def certified(self, pairs: Eigenpairs, reference: VectorProduct) -> Eigenpairs:
        """Recompute ``pairs`` from products with ``reference``."""
        # max|λ| may be at the other end of the spectrum, which only the operator itself has seen.
        others = self._ritz()[0][self.num_pairs :]
        most = max(_REFERENCE_PRODUCTS_PER_PAIR * self.num_pairs, _LEAST_REFERENCE_PRODUCTS)
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
        """Ritz values, wanted ones first, and the coefficients of their vectors as rows."""
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
