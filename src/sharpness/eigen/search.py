"""The search for eigenpairs in a Krylov space: converge, probe for missed ones, certify."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sharpness.eigen.completeness import FAILURE, LanczosSequence, Spectrum
from sharpness.eigen.eigenpairs import Eigenpairs
from sharpness.eigen.krylov import Krylov
from sharpness.eigen.memory import Capacity
from sharpness.eigen.operators import VectorProduct
from sharpness.eigen.refinement import refine
from sharpness.eigen.vectors import largest_magnitude, norms_of_rows

# With a reference, at most this many matvecs with it per pair: one recomputes the pair, the others correct it. A few
# pairs may take more, since their corrections widen a small span only.
_REFERENCE_PRODUCTS_PER_PAIR = 3
_LEAST_REFERENCE_PRODUCTS = 12
# Rounding of the recurrence, relative to the tolerance, that may be added to the residuals.
_NEGLIGIBLE = 0.1
# Part of the room beyond the wanted pairs that Ritz vectors keep in a compression; from 0.3 to 0.7 all do as well.
_KEPT = 0.5
# Vectors that a step of a probe adds at most, and what convergence needs afterwards.
_LEAST_ROOM = 4


@dataclass
class Search:
    """Grow a Krylov space until it contains the wanted pairs."""

    space: Krylov
    signs: tuple[int, ...]  # ends of the spectrum: 1 for the largest eigenvalues, -1 for the smallest
    num_pairs: int
    tolerance: float
    max_products: int  # budget of matvecs
    capacity: Capacity
    reference: VectorProduct | None  # with which the pairs will be recomputed
    sequences: list[LanczosSequence] = field(default_factory=list)  # of the probes, since the last compression
    num_sequences: int = 0  # with the earlier ones
    earlier_bounds: dict[int, float] = field(default_factory=dict)  # on the complement, by sign, from earlier sequences

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
                full = self._is_spent()
                if full or float(estimates.max()) <= check_below * largest_magnitude(values):
                    pairs = self._pairs(values, coefficients)
                    if full or pairs.converged:
                        return pairs
                    # Rounding made the recurrence's estimate too small. Computing residuals costs more than a step, so
                    # do not repeat it at every step.
                    check_below /= 2
                self.space.turn(coefficients[int(estimates.argmax())])
            self._make_room(1)
            if not self._is_spent():
                self.space.extend()

    def _is_spent(self) -> bool:
        """Whether there is no further step: one matvec is left to check the recurrence where there are no images."""
        if self.space.num_steps < self.num_pairs:
            return False
        left = self.max_products - self.space.num_products
        return left <= self._needs_check() or self.space.num_steps == self.space.size

    def _needs_check(self) -> bool:
        """Whether residuals follow from the recurrence, which one matvec checks."""
        return self.space.images is None and self.reference is None

    def _make_room(self, num_rows: int) -> bool:
        """Make room for ``num_rows`` more vectors, by giving up the images or else compressing the basis.

        Returns:
            Whether the basis was compressed. It may leave less room than wanted.
        """
        space, capacity = self.space, self.capacity
        if space.images is not None:
            if space.num_vectors() <= capacity.with_images:
                return False
            space.drop_images()
        if num_rows <= self._room():
            return False
        values, coefficients = self._ritz()
        most = capacity.without_images - space.num_frontier
        least = self.num_pairs + 1
        num_kept = max(least, min(most - num_rows, least + int(_KEPT * (most - least))))
        if num_kept >= space.num_steps:
            return False
        kept, others = self._chosen(values, num_kept)
        self._inherit(values[others], coefficients[others])
        space.compress(values[kept], coefficients[kept])
        return True

    def _room(self) -> float:
        """How many vectors may still be added to basis and frontier; infinite if all that there are fit."""
        space, most = self.space, self.capacity.without_images
        if space.images is not None or most >= space.size:
            return math.inf
        return most - space.num_steps - space.num_frontier

    def _chosen(self, values: Tensor, num_kept: int) -> tuple[Tensor, Tensor]:
        """Indices of the Ritz values to keep: the wanted ones, the smallest, and those that follow.

        The smallest is reported, and its magnitude may be the largest.
        """
        keys = self.ranking(values)
        keys[: self.num_pairs] = math.inf
        keys[int(values.argmin())] = math.inf
        order = keys.argsort(descending=True, stable=True)
        return order[:num_kept].sort().values, order[num_kept:]

    def _inherit(self, values: Tensor, coefficients: Tensor) -> None:
        """Bound the eigenvalues of the complement once the Ritz vectors with ``values`` [n] belong to it.

        The operator on the larger complement is at most one with the Ritz values, their coupling to the frontier and
        the present bound.
        """
        if not self.sequences and not self.earlier_bounds:
            return
        coupling = self.space.coupling @ coefficients.T
        for sign, bound in self._bounds().items():
            flat = bound * torch.eye(len(coupling), dtype=torch.float64)
            upper = torch.cat([torch.diag(sign * values), sign * coupling.T], dim=1)
            larger = torch.cat([upper, torch.cat([sign * coupling, flat], dim=1)])
            self.earlier_bounds[sign] = max(bound, float(torch.linalg.eigvalsh(larger).max()))
        self.sequences.clear()

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
        self._make_room(num_products + _LEAST_ROOM)
        for number in range(num_products):
            if self._is_spent():
                return None
            if self._make_room(_LEAST_ROOM):
                followed = None
            if self._room() < _LEAST_ROOM:
                return None  # each sequence leaves a vector in the frontier
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
        if not self.sequences and not self.earlier_bounds:
            return sign * math.inf, False
        first = self._first_uncertain()
        return sign * self._spectrum().upper_bound(first), first == self.num_pairs

    def _begin(self) -> LanczosSequence:
        """Start a sequence from a random vector; the n-th gets 1 / (n (n + 1)) of the total failure probability."""
        self.num_sequences += 1
        steps, number = self.space.num_steps, self.num_sequences
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
        return Spectrum(*self.space.ritz_pairs(), self.space.coupling, self._bounds())

    def _bounds(self) -> dict[int, float]:
        """Upper bounds on the eigenvalues of the complement, by sign."""
        projected = self.space.projected
        return {
            sign: min(
                self.earlier_bounds.get(sign, math.inf),
                *(each.largest_eigenvalue(projected, sign)[1] for each in self.sequences),
                math.inf,
            )
            for sign in self.signs
        }

    def _wanted(self) -> Tensor:
        """Sort keys of the wanted Ritz values, [k], descending."""
        return self.ranking(self._ritz()[0][: self.num_pairs])

    def _slack(self) -> float:
        """Tolerated distance of an eigenvalue beyond the Ritz value of its rank."""
        return self.tolerance * (self._scale() or 1.0)

    def _scale(self) -> float:
        return largest_magnitude(self._ritz()[0])

    def certified(self, pairs: Eigenpairs, reference: VectorProduct) -> Eigenpairs:
        """Recompute ``pairs`` from products with ``reference``; the search ends, and its basis is freed."""
        # max|λ| may be at the other end of the spectrum, which only the operator itself has seen.
        others = self._ritz()[0][self.num_pairs :]
        magnitude = largest_magnitude(others) if len(others) else 0.0
        most = max(_REFERENCE_PRODUCTS_PER_PAIR * self.num_pairs, _LEAST_REFERENCE_PRODUCTS)
        self.space.basis.clear()
        refined = refine(
            reference,
            pairs.eigenvectors,
            ranking=self.ranking,
            tolerance=self.tolerance,
            max_products=most if pairs.converged else self.num_pairs,
            magnitude=magnitude,
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
            negligible = _NEGLIGIBLE * self.tolerance * scale
            norms = self._norms_by_recurrence(values, coefficients, vectors, negligible=negligible)
        else:
            norms = norms_of_rows(self.space.images.combine(coefficients) - values.to(vectors)[:, None] * vectors)
        residuals = norms / (scale or 1.0)
        return Eigenpairs(
            eigenvalues=values[:-1],
            eigenvectors=vectors[:-1],
            residuals=residuals[:-1],
            smallest=float(values[-1]),
            smallest_residual=float(residuals[-1]),
            num_products=self.space.num_products,
            num_probing=0,
            num_certifying=0,
            converged=bool((residuals[:-1] <= self.tolerance).all()),
            complete=None,
            complete_beyond=self.signs[0] * math.inf,
        )

    def _norms_by_recurrence(
        self, values: Tensor, coefficients: Tensor, vectors: Tensor, *, negligible: float
    ) -> Tensor:
        """Residual norms of the Ritz ``vectors`` [n, P] without their images.

        Without a reference, one matvec measures what rounding has added, and the norms include it. If that is not small
        beside the tolerance, the norms are computed from a matvec each instead, as far as the budget allows.
        """
        norms = self.space.estimates(coefficients)
        left = self.max_products - self.space.num_products
        if not self._needs_check() or left < 1:
            return norms
        error = self.space.recurrence_error(values, coefficients, vectors)
        if error <= negligible or left <= len(values):
            return norms + error
        return self.space.residual_norms(values, vectors)
