"""The leading eigenvalues of the Hessian, and its Frobenius norm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from sharpness.runtime.precision import Precision
from sharpness.study.measurement import Column, OfHessian
from sharpness.study.settings import setting
from sharpness.study.work import Products, Work

if TYPE_CHECKING:
    from sharpness.eigen.lanczos import Eigenpairs
    from sharpness.hessian.operator import HessianOperator
    from sharpness.measurements.landscape import Landscape
    from sharpness.study.run import Run
    from sharpness.training.checkpoints import Snapshot

_FOUND_IN = {
    "tf32": ["found in tf32"],
    "bfloat16": ["found in bfloat16"],
    "auto": ["found in bfloat16 where the device has instructions for it"],
}


@dataclass(frozen=True)
class Spectrum(OfHessian):
    """The leading eigenvalues, and the smallest that their Krylov space shows, with residuals; then the norm."""

    title: ClassVar = "leading eigenvalues of the Hessian along training"
    pairs_setting: ClassVar = "num_eigenvalues"
    checkpoints: ClassVar = "trajectory"
    named: ClassVar = {
        "top30": {"num_eigenvalues": 30},
        "ends": {"checkpoints": "ends", "num_eigenvalues": 10},
    }
    columns: ClassVar = {
        "which": Column("largest, or smallest for the smallest that the same Krylov space shows"),
        "rank": Column("0 for the largest eigenvalue, 1 for the second, ..."),
        "eigenvalue": Column("of the Hessian, in float32 or better", "nats / weight²", finite=True),
        "residual": Column("|Hv - λv| / max|λ| of the eigenpair"),
        "num_products": Column("Hessian-vector products spent on the eigenpairs"),
        "num_probing": Column("products that then looked for missed eigenvalues", optional=True),
        "num_certifying": Column("products in float32 after a search in lower precision", optional=True),
        "complete": Column(
            "True: none of these was missed (99.9 %); False: one was, and has not converged; empty: unknown"
        ),
        "complete_beyond": Column(
            "beyond it every eigenvalue is among these (99.9 %)", "nats / weight²", optional=True
        ),
        "search_precision": Column("in which the eigenvectors were looked for", optional=True),
        "frobenius_norm": Column("of the whole Hessian", "nats / weight²", optional=True),
        "frobenius_error": Column("its standard error", "nats / weight²", optional=True),
        "num_examples": Column("training examples of the Hessian"),
    }

    num_eigenvalues: int = setting(2, "how many of the largest eigenvalues", minimum=1, maximum=100)
    resample: bool = setting(
        False, "draw new examples at every checkpoint, as the authors do, instead of keeping one set per seed"
    )
    augment: bool = setting(False, "augment the examples, as the authors do")
    parameters: str = setting(
        "*",
        "names of the weights whose block of the Hessian is measured, as a pattern (layer3.*); * is the whole",
        minLength=1,
    )
    precision: Precision | Literal["auto"] = setting(
        "float32",
        "of the passes over the network while the eigenvectors are looked for; eigenvalues and residuals are computed "
        "in float32 either way; bfloat16 is faster on GPUs and on CPUs with AMX or AVX-512's instructions for it, ten "
        "times slower on other CPUs; tf32 is faster on GPUs with tensor cores only; auto is bfloat16 where the device "
        "has instructions for it, else float32",
        enum=["float32", "tf32", "bfloat16", "auto"],
    )
    probe_products: int = setting(
        5, "products that then look for eigenvalues that were missed; 0 for no look", minimum=0, maximum=1000
    )
    frobenius_products: int = setting(
        0,
        "products that then estimate the part of the Frobenius norm outside the leading eigenvectors, with its "
        "standard error; 0 for none",
        minimum=0,
        maximum=100000,
    )

    def problems(self, run: Run) -> Iterator[str]:
        yield from super().problems(run)
        if self.frobenius_products == 1:
            yield "frobenius_products must be 0, for no estimate, or at least 2, which have a standard error, got 1"

    def in_words(self) -> str:
        details = [f"top {self.num_eigenvalues}", *_FOUND_IN.get(self.precision, ())]
        return self._in_words(block="" if self.parameters == "*" else self.parameters, details=details)

    def work(self, run: Run) -> Work:
        # As on a device without instructions for lower precision; a forecast says which it is.
        precision: Precision = "float32" if self.precision == "auto" else self.precision
        # After a search in low precision each pair takes a product in float32, or a few.
        certified = self.num_eigenvalues if precision != "float32" else 0
        probed = Products.exactly(self.probe_products, self.num_examples, precision)
        exact = Products.exactly(certified + self.frobenius_products, self.num_examples)
        return Work(products=(replace(self.products(), precision=precision), probed, exact))

    def when_diverged(self) -> dict[str, object]:
        return {"which": "largest", "rank": 0}

    def rows(self, landscape: Landscape, checkpoint: Snapshot, before: Snapshot | None) -> Iterator[dict[str, object]]:
        from sharpness.data.datasets import augment
        from sharpness.runtime.device import fast_precision
        from sharpness.runtime.streams import stream

        purpose = "examples of the Hessian" + (f" at step {checkpoint.step}" if self.resample else "")
        inputs, targets = landscape.drawn_examples(self.num_examples, purpose)
        if self.augment:
            inputs = augment(inputs, generator=stream(landscape.run.seed, f"augmentation of the {purpose}"))
        precision = fast_precision(inputs.device) if self.precision == "auto" else self.precision
        operator = landscape.hessian(checkpoint, (inputs, targets), precision=precision, parameters=self.parameters)
        pairs = landscape.eigenpairs(
            checkpoint,
            operator,
            num_pairs=self.num_eigenvalues,
            tolerance=self.tolerance,
            max_products=self.max_products,
            probe_products=self.probe_products,
        )
        norm = self._frobenius_norm(landscape, checkpoint, operator, pairs)
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

    def _frobenius_norm(
        self, landscape: Landscape, checkpoint: Snapshot, operator: HessianOperator, pairs: Eigenpairs
    ) -> dict[str, float]:
        """That of the whole operator, the leading pairs exact and the rest estimated; none without products for it."""
        from sharpness.eigen import estimators
        from sharpness.runtime.streams import stream

        if not self.frobenius_products:
            return {}
        random = stream(landscape.run.seed, f"random vectors of the norm at step {checkpoint.step}")
        norm = estimators.frobenius_norm(
            operator.reference or operator, num_products=self.frobenius_products, generator=random, pairs=pairs
        )
        return {"frobenius_norm": norm.value, "frobenius_error": norm.standard_error}


MEASUREMENT = Spectrum
