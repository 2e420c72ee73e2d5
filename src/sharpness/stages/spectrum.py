"""Leading eigenvalues of the Hessian at the checkpoints of one part of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sharpness.checkpoints import Snapshot
from sharpness.data import augment
from sharpness.hessian import Precision
from sharpness.measuring import Part, Subject, measure
from sharpness.stages import run_stage
from sharpness.streams import stream


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
    precision: Precision
    probe_products: int


def spectrum(settings: Settings, part: Part) -> None:
    """Write the leading eigenvalues, and the smallest that their Krylov space shows, with residuals."""

    def rows(subject: Subject, snapshot: Snapshot) -> Iterator[dict[str, object]]:
        purpose = "examples of the Hessian" + (f" at step {snapshot.step}" if settings.resample else "")
        inputs, targets = subject.drawn_examples(settings.num_examples, purpose)
        if settings.augment:
            inputs = augment(inputs, generator=stream(subject.run.seed, f"augmentation of the {purpose}"))
        operator = subject.hessian(
            snapshot, (inputs, targets), precision=settings.precision, parameters=settings.parameters
        )
        pairs = subject.eigenpairs(
            snapshot,
            operator,
            num_pairs=settings.num_eigenvalues,
            tolerance=settings.tolerance,
            max_products=settings.max_products,
            probe_products=settings.probe_products,
        )
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
                "num_examples": len(targets),
            }

    measure(part, rows, stage="sharpness.stages.spectrum", when_diverged={"which": "largest", "rank": 0})


if __name__ == "__main__":
    run_stage(spectrum)
