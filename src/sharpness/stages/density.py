"""The whole spectrum of the Hessian at some checkpoints: its density, its trace and its Frobenius norm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sharpness.eigen import estimators
from sharpness.eigen.estimators import Estimate, SpectralDensity
from sharpness.measurements.measuring import Part, Subject, measure
from sharpness.runtime.stage import run_stage
from sharpness.runtime.streams import stream
from sharpness.training.checkpoints import Snapshot


@dataclass(frozen=True)
class Settings:
    """Settings of a density; the study's schema describes them."""

    num_examples: int
    num_eigenvalues: int
    tolerance: float
    max_products: int
    num_probes: int
    num_steps: int
    trace_products: int
    frobenius_products: int


def density(settings: Settings, part: Part) -> None:
    """Write the quadrature's nodes, the leading eigenvalues, and trace and norm with their standard errors."""

    def rows(subject: Subject, snapshot: Snapshot) -> Iterator[dict[str, object]]:
        examples = subject.drawn_examples(settings.num_examples)
        operator = subject.hessian(snapshot, examples)
        random = stream(subject.run.seed, f"probes at step {snapshot.step}")
        pairs = subject.eigenpairs(
            snapshot,
            operator,
            num_pairs=settings.num_eigenvalues,
            tolerance=settings.tolerance,
            max_products=settings.max_products,
        )
        whole = estimators.spectral_density(
            operator, num_probes=settings.num_probes, num_steps=settings.num_steps, generator=random
        )
        trace = estimators.trace(operator, num_products=settings.trace_products, generator=random)
        norm = estimators.frobenius_norm(
            operator, num_products=settings.frobenius_products, generator=random, pairs=pairs
        )
        size = {"num_examples": settings.num_examples, "num_weights": operator.shape[0]}
        for eigenvalue, residual in zip(pairs.eigenvalues, pairs.residuals, strict=True):
            yield {"quantity": "eigenvalue", "value": float(eigenvalue), "residual": float(residual), **size}
        yield {"quantity": "trace", **_of(trace), **size}
        yield {"quantity": "frobenius_norm", **_of(norm), **size}
        yield from ({**row, **size} for row in _nodes(whole))

    measure(part, rows, settings=settings, stage="sharpness.stages.density", when_diverged={"quantity": "trace"})


def _of(estimate: Estimate) -> dict[str, object]:
    return {"value": estimate.value, "standard_error": estimate.standard_error, "num_products": estimate.num_products}


def _nodes(whole: SpectralDensity) -> Iterator[dict[str, object]]:
    for probe, (nodes, weights) in enumerate(zip(whole.nodes, whole.weights, strict=True)):
        for node, weight in zip(nodes, weights, strict=True):
            yield {"quantity": "node", "probe": probe, "value": float(node), "weight": float(weight)}


if __name__ == "__main__":
    run_stage(density)
