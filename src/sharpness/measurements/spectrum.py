"""The leading eigenvalues of the Hessian, and its Frobenius norm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sharpness.runtime.precision import Precision
from sharpness.study.measurement import ELSEWHERE, Column, Measurement, OfHessian
from sharpness.study.optimizers import PRECONDITIONED
from sharpness.study.settings import Derived, a_twentieth, setting
from sharpness.study.work import Products, Work

if TYPE_CHECKING:
    from torch import Tensor

    from sharpness.eigen.lanczos import Eigenpairs
    from sharpness.hessian.operator import HessianOperator
    from sharpness.measurements.bracket import Elsewhere
    from sharpness.measurements.landscape import Landscape
    from sharpness.study.run import Run
    from sharpness.training.checkpoints import Snapshot

_FOUND_IN = {
    "tf32": ["found in tf32"],
    "bfloat16": ["found in bfloat16"],
    "auto": ["found in bfloat16 where the device has instructions for it"],
}
# Examples with which num_examples "auto" tries first, where they are at most half of the training set.
_SAMPLES = (250, 1000, 4000)


@dataclass(frozen=True)
class _Found:
    """Eigenpairs on some examples."""

    num_examples: int
    precision: Precision
    operator: HessianOperator
    pairs: Eigenpairs
    outside: Elsewhere | None

    @property
    def width(self) -> float:
        """The distance from the largest eigenvalue to the lower end of its bracket, standard error included."""
        assert self.outside is not None
        lower = self.outside.curvatures[0] - self.outside.standard_errors[0]
        return float(self.pairs.eigenvalues[0] - lower)


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
    later: ClassVar = {"bracket": 0.2, "keep_vectors": False, "preconditioner": None}
    columns: ClassVar = {
        "which": Column("largest, or smallest for the smallest that the same Krylov space shows"),
        "rank": Column("0 for the largest eigenvalue, 1 for the second, ..."),
        "eigenvalue": Column("of the Hessian, in float32 or better", "nats / weight²", finite=True),
        "residual": Column("|Hv - λv| / max|λ| of the eigenpair"),
        **ELSEWHERE,
        "num_elsewhere": Column("other training examples", optional=True),
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
        "preconditioner": Column(
            "optimizer: all of these are of the preconditioned Hessian, without a unit; else there is no such column",
            optional=True,
        ),
        "learning_rate_now": Column(
            "of the next update, where a plateau of the validation loss cuts it; else there is no such column",
            "weight² / nat",
            optional=True,
        ),
        "num_examples": Column("training examples of the Hessian"),
    }

    num_examples: int | Literal["auto"] = setting(  # type: ignore[assignment]
        Derived("5 % of the study's smallest num_training, at least 250 or all", a_twentieth, "num_training"),
        "training examples of the Hessian (about 5 % of the training set); auto takes 250, 1000, 4000 (where they are "
        "at most half of the training set) or all: the first of them with a bracket as narrow as the key bracket asks",
        minimum=1,
        maximum=100000,
    )
    bracket: float = setting(
        0.2,
        "with num_examples auto: largest distance between the largest eigenvalue and the lower end of its bracket, its "
        "standard error included, relative to the eigenvalue",
        exclusiveMinimum=0,
        maximum=1,
    )
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

    keep_vectors: bool = setting(
        False,
        "keep the eigenvectors too: a file for each checkpoint, by its step, in a folder beside the table that ends in "
        "-vectors; load_pairs reads them, and so do the run's other measurements that need no more of them, on the "
        "same examples, to no smaller tolerance, instead of finding them again",
        in_code=True,
    )
    preconditioner: Literal["optimizer"] | None = setting(
        None,
        "optimizer for the eigenvalues of D^-1/2 H D^-1/2, where D is what Adam, AdamW or RMSProp divides its steps by "
        "(after its first update; Cohen et al., 2022); null for those of H",
        in_code=True,
    )

    @property
    def from_step(self) -> int:
        return 0 if self.preconditioner is None else 1

    @property
    def keeps(self) -> bool:
        return self.keep_vectors

    def keeps_for(self, other: Measurement) -> bool:
        # Others look for those of the whole Hessian in float32, on the same examples at every checkpoint.
        is_plain = not (self.resample or self.augment) and (self.parameters, self.precision) == ("*", "float32")
        is_plain = is_plain and self.preconditioner is None
        return (
            self.keeps
            and is_plain
            and isinstance(other, OfHessian)
            and not isinstance(other, Spectrum)
            and self.num_examples == other.num_examples
            and self.num_pairs >= other.num_pairs
            and self.tolerance <= other.tolerance
        )

    def problems(self, run: Run) -> Iterator[str]:
        yield from super().problems(run)
        name = run.update.get("name", "sgd")
        if self.preconditioner and name not in PRECONDITIONED:
            yield (
                f"preconditioner must be null for {run.name}: {name} does not divide its steps by anything; "
                f"{', '.join(PRECONDITIONED)} do"
            )
        if self.frobenius_products == 1:
            yield "frobenius_products must be 0, for no estimate, or at least 2, which have a standard error, got 1"

    def samples(self, num_training: int) -> list[int]:
        """The numbers of examples to try, one after the other."""
        if self.num_examples != "auto":
            return [self.num_examples]
        return [*(size for size in _SAMPLES if size <= num_training / 2), num_training]

    def sample_in_words(self) -> str:
        if self.num_examples != "auto":
            return super().sample_in_words()
        return f"as many training images as narrow the bracket to {100 * self.bracket:g} %"

    def in_words(self) -> str:
        preconditioned = ["preconditioned by the optimizer"] if self.preconditioner else []
        details = [*preconditioned, f"top {self.num_eigenvalues}", *_FOUND_IN.get(self.precision, ())]
        return self._in_words(block="" if self.parameters == "*" else self.parameters, details=details)

    def work(self, run: Run) -> Work:
        # As on a device without instructions for lower precision; a forecast says which it is.
        precision: Precision = "float32" if self.precision == "auto" else self.precision
        # After a search in low precision each pair takes a product in float32, or a few.
        certified = self.num_eigenvalues if precision != "float32" else 0
        products, sizes = [], self.samples(run.num_training)
        for size in sizes:
            fixed = replace(self, num_examples=size)
            of_size = [
                replace(fixed.products(), precision=precision),
                Products.exactly(self.probe_products, size, precision),
                Products.exactly(certified, size),
                fixed.products_elsewhere(run, self.num_eigenvalues),
            ]
            # With "auto", the first two samples are to be expected.
            products += of_size if size in sizes[:2] else [replace(some, expected=0) for some in of_size]
        products.append(Products.exactly(self.frobenius_products, sizes[:2][-1]))
        return Work(products=tuple(products))

    def when_diverged(self) -> dict[str, object]:
        return {"which": "largest", "rank": 0}

    def rows(self, landscape: Landscape, checkpoint: Snapshot, before: Snapshot | None) -> Iterator[dict[str, object]]:
        from sharpness.measurements.bracket import in_columns

        found = self._found(landscape, checkpoint)
        pairs, outside = found.pairs, found.outside
        norm = self._frobenius_norm(landscape, checkpoint, found.operator, pairs)
        # Whatever else changes the rate follows from the run's fields.
        is_cut = landscape.run.plateau_patience is not None
        if self.keep_vectors:
            landscape.keep(checkpoint, pairs, found.operator)
        largest = enumerate(zip(pairs.eigenvalues, pairs.residuals, strict=True))
        values = [
            ("largest", rank, eigenvalue, residual, in_columns(outside, rank))
            for rank, (eigenvalue, residual) in largest
        ]
        smallest = ("smallest", 0, pairs.smallest, pairs.smallest_residual, dict[str, float]())
        for which, rank, eigenvalue, residual, elsewhere in [*values, smallest]:
            yield {
                "which": which,
                "rank": rank,
                "eigenvalue": float(eigenvalue),
                "residual": float(residual),
                **dict.fromkeys(ELSEWHERE),
                **elsewhere,
                "num_elsewhere": 0 if outside is None else outside.num_examples,
                "num_products": pairs.num_products,
                "num_probing": pairs.num_probing,
                "num_certifying": pairs.num_certifying,
                "complete": pairs.complete,
                "complete_beyond": pairs.complete_beyond,
                "search_precision": found.precision,
                **norm,
                **({"preconditioner": self.preconditioner} if self.preconditioner else {}),
                **({"learning_rate_now": checkpoint.learning_rate} if is_cut else {}),
                "num_examples": found.num_examples,
            }

    def _found(self, landscape: Landscape, checkpoint: Snapshot) -> _Found:
        """The leading eigenpairs on the first sample that is large enough, and their curvatures elsewhere."""
        for size in self.samples(landscape.run.num_training):
            found = self._on(landscape, checkpoint, size)
            if found.outside is None or found.width <= self.bracket * float(found.pairs.eigenvalues[0]):
                break
        return found

    def _on(self, landscape: Landscape, checkpoint: Snapshot, num_examples: int) -> _Found:
        from sharpness.runtime.device import fast_precision

        examples = self._examples(landscape, checkpoint, num_examples)
        precision = fast_precision(examples[0].device) if self.precision == "auto" else self.precision
        operator = landscape.hessian(checkpoint, examples, precision=precision, **self._of_what)
        pairs = landscape.eigenpairs(
            checkpoint,
            operator,
            **self.search,
            probe_products=self.probe_products,
        )
        outside = landscape.elsewhere(
            checkpoint,
            pairs.eigenvectors,
            found_on=num_examples,
            others=self._examples(landscape, checkpoint, num_examples, after=num_examples),
            **self._of_what,
        )
        return _Found(num_examples, precision, operator, pairs, outside)

    @property
    def _of_what(self) -> dict[str, Any]:
        return {"parameters": self.parameters, "preconditioned": self.preconditioner is not None}

    def _examples(
        self, landscape: Landscape, checkpoint: Snapshot, num_examples: int, *, after: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Those of the Hessian at a checkpoint, or others, behind them in the same order."""
        from sharpness.data.datasets import EXAMPLES, augment
        from sharpness.runtime.streams import stream

        purpose = EXAMPLES + (f" at step {checkpoint.step}" if self.resample else "")
        inputs, targets = landscape.drawn_examples(num_examples, purpose, after=after)
        if self.augment:
            behind = f", behind {after}" if after else ""
            inputs = augment(inputs, generator=stream(landscape.run.seed, f"augmentation of the {purpose}{behind}"))
        return inputs, targets

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
