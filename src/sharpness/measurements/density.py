"""The whole spectrum of the Hessian: its density, its trace and its Frobenius norm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sharpness.study.measurement import Column, OfHessian
from sharpness.study.settings import setting
from sharpness.study.work import Products, Work

if TYPE_CHECKING:
    from sharpness.eigen.estimators import Estimate, SpectralDensity
    from sharpness.measurements.landscape import Landscape
    from sharpness.study.run import Run
    from sharpness.training.checkpoints import Snapshot


@dataclass(frozen=True)
class Density(OfHessian):
    """The quadrature's nodes, the leading eigenvalues, and trace and norm with their standard errors."""

    title: ClassVar = "the density of all eigenvalues, their trace and their Frobenius norm"
    pairs_setting: ClassVar = "num_eigenvalues"
    columns: ClassVar = {
        "quantity": Column("what the row has: eigenvalue, trace, frobenius_norm, or node of the quadrature"),
        "value": Column("eigenvalue, trace, norm, or place of the node", "nats / weight²", finite=True),
        "residual": Column("of an eigenpair, relative to the largest |eigenvalue|"),
        "standard_error": Column("of the estimate of trace or norm", "nats / weight²"),
        "probe": Column("number of the node's random start vector, from 0 on"),
        "weight": Column("part of the eigenvalues that the node stands for; those of a probe sum to 1"),
        "num_examples": Column("training examples of the Hessian"),
        "num_weights": Column("size of the Hessian"),
        "num_products": Column("Hessian-vector products spent on trace or norm", optional=True),
    }

    num_eigenvalues: int = setting(
        10, "how many of the largest eigenvalues enter the Frobenius norm exactly", minimum=1, maximum=100
    )
    num_probes: int = setting(4, "random start vectors of the Lanczos quadrature", minimum=1, maximum=1000)
    num_steps: int = setting(50, "Lanczos steps from each of them", minimum=1, maximum=1000)
    trace_products: int = setting(30, "Hessian-vector products for the trace", minimum=4, maximum=100000)
    frobenius_products: int = setting(
        16,
        "Hessian-vector products for the part of the Frobenius norm outside the leading eigenvectors",
        minimum=2,
        maximum=100000,
    )

    def in_words(self) -> str:
        return self._in_words(details=[f"top {self.num_eigenvalues}"])

    def work(self, run: Run) -> Work:
        stochastic = self.num_probes * self.num_steps + self.trace_products + self.frobenius_products
        return Work(products=(self.products(), Products.exactly(stochastic, self.num_examples)))

    def when_diverged(self) -> dict[str, object]:
        return {"quantity": "trace"}

    def rows(self, landscape: Landscape, checkpoint: Snapshot, before: Snapshot | None) -> Iterator[dict[str, object]]:
        from sharpness.eigen import estimators
        from sharpness.runtime.streams import stream

        operator = landscape.hessian(checkpoint, landscape.drawn_examples(self.num_examples))
        random = stream(landscape.run.seed, f"probes at step {checkpoint.step}")
        pairs = landscape.sharpest(checkpoint, self)
        whole = estimators.spectral_density(
            operator, num_probes=self.num_probes, num_steps=self.num_steps, generator=random
        )
        trace = estimators.trace(operator, num_products=self.trace_products, generator=random)
        norm = estimators.frobenius_norm(operator, num_products=self.frobenius_products, generator=random, pairs=pairs)
        size = {"num_examples": self.num_examples, "num_weights": operator.shape[0]}
        for eigenvalue, residual in zip(pairs.eigenvalues, pairs.residuals, strict=True):
            yield {"quantity": "eigenvalue", "value": float(eigenvalue), "residual": float(residual), **size}
        yield {"quantity": "trace", **_of(trace), **size}
        yield {"quantity": "frobenius_norm", **_of(norm), **size}
        yield from ({**row, **size} for row in _nodes(whole))


def _of(estimate: Estimate) -> dict[str, object]:
    return {"value": estimate.value, "standard_error": estimate.standard_error, "num_products": estimate.num_products}


def _nodes(whole: SpectralDensity) -> Iterator[dict[str, object]]:
    for probe, (nodes, weights) in enumerate(zip(whole.nodes, whole.weights, strict=True)):
        for node, weight in zip(nodes, weights, strict=True):
            yield {"quantity": "node", "probe": probe, "value": float(node), "weight": float(weight)}


MEASUREMENT = Density
