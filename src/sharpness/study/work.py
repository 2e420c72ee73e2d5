"""The work of a measurement at one checkpoint, counted before it is done: what a forecast multiplies. No torch.

Gradients and images are counted exactly. Products are not known before: an eigensolver takes as many as it takes.
Expected are 8 + 2 k for k eigenvalues, which is what the demo's spectra took in the median to a residual of 1e-2
(k = 2, 5, 10 and 30: 10, 17, 22 and 70); at most is what the study allows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sharpness.runtime.precision import Precision


@dataclass(frozen=True)
class Products:
    """Hessian-vector products on so many examples."""

    expected: float
    at_most: int
    num_examples: int
    precision: Precision = "float32"

    def __mul__(self, count: int) -> Products:
        return replace(self, expected=count * self.expected, at_most=count * self.at_most)

    @classmethod
    def exactly(cls, count: int, num_examples: int, precision: Precision = "float32") -> Products:
        """So many, neither more nor less."""
        return cls(count, count, num_examples, precision)

    @classmethod
    def of_eigenpairs(
        cls, num_pairs: int, max_products: int, num_examples: int, precision: Precision = "float32"
    ) -> Products:
        """Those of a search for leading eigenpairs."""
        return cls(min(max_products, 8 + 2 * num_pairs), max_products, num_examples, precision)


@dataclass(frozen=True)
class Work:
    """What is computed at one checkpoint."""

    gradients: int = 0  # of mini-batches of the run's size
    evaluated: int = 0  # images on which the loss is evaluated, without a gradient
    products: tuple[Products, ...] = ()

    def __mul__(self, count: int) -> Work:
        return Work(count * self.gradients, count * self.evaluated, tuple(some * count for some in self.products))
