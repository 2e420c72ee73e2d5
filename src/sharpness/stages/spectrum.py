"""Leading eigenvalues of the Hessian, and its Frobenius norm, at the checkpoints of one part of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sharpness.data.datasets import augment
from sharpness.eigen import estimators
from sharpness.eigen.lanczos import Eigenpairs
from sharpness.hessian.operator import HessianOperator
from sharpness.measurements.measuring import Part, Subject, measure
from sharpness.runtime.device import fast_precision
from sharpness.runtime.precision import Precision
from sharpness.runtime.stage import run_stage
from sharpness.runtime.streams import stream
from sharpness.training.checkpoints import Snapshot


@dataclass(frozen=True)
class Settings:
    """Settings of a spectrum; the study's schema describes them."""

    num_eigenvalues: int
    num_examples: int
    tolerance: float
    max_products: int
    resample: bool
    augment: bool
    parameters: str
    precision: Precision | Literal["auto"]
    probe_products: int
    frobenius_products: int


def spectrum(settings: Settings, part: Part) -> None:
    """Write the leading eigenvalues, and the smallest that their Krylov space shows, with residuals; then the norm."""

    def rows(subject: Subject, snapshot: Snapshot) -> Iterator[dict[str, object]]:
        purpose = "examples of the Hessian" + (f" at step {snapshot.step}" if settings.resample else "")
        inputs, targets = subject.drawn_examples(settings.num_examples, purpose)
        if settings.augment:
            inputs = augment(inputs, generator=stream(subject.run.seed, f"augmentation of the {purpose}"))
        precision = fast_precision(inputs.device) if settings.precision == "auto" else settings.precision
        operator = subject.hessian(snapshot, (inputs, targets), precision=precision, parameters=settings.parameters)
        pairs = subject.eigenpairs(
            snapshot,
            operator,
            num_pairs=settings.num_eigenvalues,
            tolerance=settings.tolerance,
            max_products=settings.max_products,
            probe_products=settings.probe_products,
        )
        norm = _frobenius_norm(settings.frobenius_products, subject, snapshot, operator, pairs)
        largest = enumerate(zip(pairs.eigenvalues, pairs.residuals, strict=True))
        values = [("largest", rank, eigenvalue, residual) for rank, (eigenvalue, residual) in largest]
        for which, rank, eigenvalue, residual in [*values, ("smallest", 0, pairs.smallest, pairs.smallest_residual)]:
            yield {
                "which": which,
                "rank": rank,
                "eigenvalue": float(eigenvalue),
                "residual": float(residual),
                "num_products": pairs.num_products,
                "num_probing": pairs.num_probing,
                "num_certifying": pairs.num_certifying,
                "complete": pairs.complete,
                "complete_beyond": pairs.complete_beyond,
                "search_precision": precision,
                **norm,
                "num_examples": len(targets),
            }

    measure(
        part, rows, settings=settings, stage="sharpness.stages.spectrum", when_diverged={"which": "largest", "rank": 0}
    )


def _frobenius_norm(
    num_products: int, subject: Subject, snapshot: Snapshot, operator: HessianOperator, pairs: Eigenpairs
) -> dict[str, float]:
    """That of the whole operator, the leading pairs exact and the rest estimated; nothing without products for it."""
    if not num_products:
        return {}
    random = stream(subject.run.seed, f"random vectors of the norm at step {snapshot.step}")
    norm = estimators.frobenius_norm(
        operator.reference or operator, num_products=num_products, generator=random, pairs=pairs
    )
    return {"frobenius_norm": norm.value, "frobenius_error": norm.standard_error}


if __name__ == "__main__":
    run_stage(spectrum)
