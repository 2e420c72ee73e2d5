"""Follow the leading eigenpairs of an operator that changes a little at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sharpness.eigen.eigenpairs import Eigenpairs
from sharpness.eigen.lanczos import follow_eigenpairs, top_eigenpairs
from sharpness.eigen.operators import SymmetricOperator
from sharpness.eigen.refinement import Refined
from sharpness.eigen.saving import provenance_of
from sharpness.eigen.vectors import along_rows, subspace_overlap

# Why the pairs were found by a fresh search; "followed" if they were not.
FoundBy = Literal["first search", "followed", "search: overlap", "search: residual", "search: probe"]


# Overlap with the vectors of the update before from which on they turn slowly.
_SLOW = 0.9
# What one update leaves to the next.
_STATE = ("vectors", "overlap", "outside", "since_look", "saved", "search_cost")


@dataclass(frozen=True)
class Followed:
    """The leading eigenpairs at one time."""

    pairs: Eigenpairs
    found_by: FoundBy
    overlap: float | None  # mean squared cosine of the angles to the span of the previous vectors; None at first
    beyond: float | None  # the largest curvature that a probe found outside the span; None without a probe
    num_products: int  # all that this took


@dataclass
class Follower:
    """Follow the leading eigenpairs through a sequence of operators.

    Each update is Rayleigh-Ritz in the span of the previous eigenvectors, widened by their largest residuals. If the
    last update turned them a lot, it is in the Krylov space of their sum instead, which finds new eigenvectors in fewer
    products. Where following does not get the residuals down, or the span has turned, the pairs are searched anew.

    An eigenvalue that overtakes the others with a vector outside their span is invisible to all this, so that every few
    updates a probe looks outside: a few Lanczos steps from a vector that is half random, half where the last probe saw
    the largest curvature. If it finds more curvature than the last followed pair has, a search follows too.

    Searches and probes wait until enough products have been saved: in the long run an update takes at most ``products``
    on average, the first search apart.

    Args:
        num_pairs: k.
        tolerance: residual at which following or a search stops, relative to the largest magnitude.
        products: products per update on average.
        follow_products: products at most while following, at least k.
        renew_residual: residual above which the pairs are searched anew.
        renew_overlap: mean squared cosine of the angles to the previous vectors below which they are.
        probe_every: updates from one look outside to the next, searches included; 0 for none.
        probe_products: products of a probe.
        max_products: products at most of a search.
        generator: of random vectors, on the CPU.
    """

    num_pairs: int
    tolerance: float
    products: float
    follow_products: int
    renew_residual: float
    renew_overlap: float
    probe_every: int
    probe_products: int
    max_products: int
    generator: torch.Generator
    vectors: Tensor | None = None  # [k, P], those of the last update
    overlap: float = 0.0  # of the last update, with the one before
    outside: Tensor | None = None  # [1, P], where the last probe found the largest curvature
    since_look: int = 0  # updates since the last look outside
    saved: float = 0.0  # products not spent so far
    search_cost: int = 0  # products of the last search

    def state_dict(self) -> dict[str, Any]:
        """Return what the next updates depend on."""
        return {name: getattr(self, name) for name in _STATE} | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any], *, like: Tensor) -> None:
        """Take up the state of another follower.

        Args:
            state: its ``state_dict``, tensors on any device.
            like: a tensor with the type and on the device of the vectors.
        """
        for name in _STATE:
            value = state[name]
            setattr(self, name, value.to(like) if isinstance(value, Tensor) else value)
        self.generator.set_state(state["generator"].cpu())

    def update(self, operator: SymmetricOperator) -> Followed:
        """Return the leading eigenpairs of the next operator.

        Raises:
            FloatingPointError: a product is not finite.
        """
        if self.vectors is None:
            return self._search(operator, "first search", None, None, 0)
        before, self.since_look = self.vectors, self.since_look + 1
        found = self._follow(operator, before)
        self.vectors, self.overlap = found.eigenvectors, subspace_overlap(found.eigenvectors, before)
        self.saved += self.products - found.num_products
        beyond, spent, reason = None, found.num_products, self._reason(found)
        if reason is None and self._is_due(len(before) < before.shape[1]):
            beyond, more = self._probe(operator, found.eigenvectors)
            self.saved -= more
            spent += more
            if beyond > float(found.eigenvalues[-1]):
                reason = "search: probe"
        if reason is not None and self.saved >= self.search_cost:
            return self._search(operator, reason, before, beyond, spent)
        return Followed(_as_pairs(found, operator, self.tolerance), "followed", self.overlap, beyond, spent)

    def _follow(self, operator: SymmetricOperator, before: Tensor) -> Refined:
        # The sum of the vectors is one vector of a Krylov space; it has lost what turned little.
        is_slow = self.overlap >= _SLOW
        start = before if is_slow else _unit(before.sum(dim=0, keepdim=True))
        return follow_eigenpairs(
            operator,
            start,
            tolerance=self.tolerance,
            max_products=min(self.follow_products, before.shape[1]),
            num_pairs=len(before),
        )

    def _is_due(self, has_outside: bool) -> bool:
        """Whether it is time to look outside, and there are products for it."""
        is_time = 0 < self.probe_every <= self.since_look
        return is_time and has_outside and self.saved >= self.probe_products

    def _reason(self, found: Refined) -> FoundBy | None:
        """Why followed pairs must be searched anew, if they must."""
        if not float(found.residuals.max()) <= self.renew_residual:
            return "search: residual"
        return None if self.overlap >= self.renew_overlap else "search: overlap"

    def forget(self) -> None:
        """Start anew, with a search."""
        self.vectors, self.outside = None, None

    def _search(
        self,
        operator: SymmetricOperator,
        reason: FoundBy,
        before: Tensor | None,
        beyond: float | None,
        spent: int,
    ) -> Followed:
        pairs = top_eigenpairs(
            operator,
            self.num_pairs,
            tolerance=self.tolerance,
            max_products=self.max_products,
            generator=self.generator,
            probe_products=self.probe_products,
        )
        cost = pairs.num_products + pairs.num_probing + pairs.num_certifying
        overlap = None if before is None else subspace_overlap(pairs.eigenvectors, before)
        self.vectors, self.overlap, self.since_look = pairs.eigenvectors, overlap or 0.0, 0
        if before is not None:
            self.saved -= cost
        self.search_cost = cost
        return Followed(pairs, reason, overlap, beyond, spent + cost)

    def _probe(self, operator: SymmetricOperator, vectors: Tensor) -> tuple[float, int]:
        """The largest curvature that a few Lanczos steps find outside the span of ``vectors``, and their number."""
        drawn = torch.randn(1, vectors.shape[1], generator=self.generator, dtype=torch.float64).to(vectors)
        start = _unit(_outside(vectors, drawn))
        if self.outside is not None:
            start = _unit(start + _unit(_outside(vectors, self.outside)))
        complement = _Complement(operator, vectors)
        found = follow_eigenpairs(
            complement,
            start,
            tolerance=self.tolerance,
            max_products=min(self.probe_products, vectors.shape[1] - len(vectors)),
        )
        self.outside, self.since_look = found.eigenvectors, 0
        return float(found.eigenvalues[0]), found.num_products


class _Complement:
    """An operator restricted to the complement of the span of orthonormal rows [k, P]."""

    def __init__(self, operator: Any, vectors: Tensor) -> None:
        self.shape, self.dtype = operator.shape, operator.dtype
        self.device = getattr(operator, "device", torch.device("cpu"))
        self._operator, self._vectors = operator, vectors

    def __matmul__(self, vector: Tensor) -> Tensor:
        return _outside(self._vectors, self._operator @ _outside(self._vectors, vector))


def _outside(vectors: Tensor, rows: Tensor) -> Tensor:
    """The part of ``rows`` [..., P] orthogonal to the orthonormal ``vectors`` [k, P]."""
    return rows - along_rows(rows, vectors) @ vectors


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def _as_pairs(found: Refined, operator: SymmetricOperator, tolerance: float) -> Eigenpairs:
    """Followed pairs say nothing of the other end of the spectrum, nor of pairs that were missed."""
    return Eigenpairs(
        eigenvalues=found.eigenvalues,
        eigenvectors=found.eigenvectors,
        residuals=found.residuals,
        smallest=math.nan,
        smallest_residual=math.nan,
        num_products=found.num_products,
        num_probing=0,
        num_certifying=0,
        converged=bool((found.residuals <= tolerance).all()),
        complete=None,
        complete_beyond=math.inf,
        provenance=provenance_of(operator),
    )
