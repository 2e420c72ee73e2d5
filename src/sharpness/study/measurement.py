"""What a measurement is: its settings, the columns of its table, its work, and its rows at a checkpoint.

Each is one module of ``sharpness.measurements`` with a subclass of ``Measurement``, named ``MEASUREMENT`` there; the
registry has their names. The workflow reads them each time it plans, so that importing one must not import torch:
a module imports what it computes with where it computes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from sharpness.study.settings import Derived, a_twentieth, setting
from sharpness.study.work import Products, Work

if TYPE_CHECKING:
    from sharpness.study.run import Run

_PACKAGE = "sharpness.measurements"


@dataclass(frozen=True)
class Column:
    """What one column of a measurement's table holds."""

    description: str
    unit: str = ""  # a number has none where it is a ratio or a count
    finite: bool = False  # whether it is a finite number wherever the run has not diverged
    optional: bool = False  # whether a table may lack it, since the settings ask for none or it is of an older version


# Of an eigenvector: the upper end of the bracket is its eigenvalue, this is the lower one.
ELSEWHERE = {
    "elsewhere": Column(
        "curvature along the same eigenvector on other training examples; empty if there are none",
        "nats / weight²",
        optional=True,
    ),
    "elsewhere_error": Column("its standard error over chunks of these examples", "nats / weight²", optional=True),
}


@dataclass(frozen=True)
class Measurement(ABC):
    """A measurement with its settings: a subclass is the dataclass of these, each declared by ``setting``."""

    title: ClassVar[str]  # what its settings are of
    columns: ClassVar[Mapping[str, Column]]
    checkpoints: ClassVar[str] = "few"  # the schedule of settings that name none
    named: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # settings that every study has, each with what is its own
    shared: ClassVar[tuple[str, ...]] = ()  # keys in which settings that a figure compares must not differ
    later: ClassVar[Mapping[str, Any]] = {}  # settings added after results were published, with the value these have
    looks_back: ClassVar[bool] = False  # whether it compares each checkpoint with the one before

    @property
    def keeps(self) -> bool:
        """Whether it keeps eigenvectors beside its table."""
        return False

    def keeps_for(self, other: Measurement) -> bool:  # noqa: ARG002
        """Whether it keeps the eigenvectors that ``other`` needs of the same checkpoint of a run."""
        return False

    @property
    def from_step(self) -> int:
        """The first step at which it can be measured."""
        return 0

    @property
    def own_code(self) -> tuple[str, ...]:
        """The user's own functions that it calls, as a study names them."""
        return ()

    @abstractmethod
    def work(self, run: Run) -> Work:
        """Count the work at one checkpoint of ``run``."""

    @abstractmethod
    def rows(self, landscape: Any, checkpoint: Any, before: Any) -> Iterable[Mapping[str, object]]:
        """Measure one checkpoint.

        Args:
            landscape: the ``Landscape`` of the run.
            checkpoint: its ``Snapshot``.
            before: the one measured before it, for a measurement that looks back; None at the first one.

        Returns:
            rows with the measurement's columns; ``measure`` puts run, settings, step and epoch before them.

        Raises:
            FloatingPointError: the loss or its curvature is not finite.
        """

    @abstractmethod
    def when_diverged(self) -> Mapping[str, object]:
        """The row of a checkpoint that a run did not reach since it diverged: no value where one would be measured."""

    def problems(self, run: Run) -> Iterator[str]:
        """Say which settings cannot be on ``run`` though each is in its range: a key and what it must be."""
        for key in ("num_examples", "loss_examples"):
            value = getattr(self, key, 0)
            if value != "auto" and value > run.num_training:
                yield f"{key} must be at most {run.num_training}, the num_training of {run.name}, got {value}"

    @abstractmethod
    def in_words(self) -> str:
        """Of what it is measured, and how exactly: for captions."""


def _enough_products(num_eigenvalues: int | None) -> int:
    return max(100, 10 * (num_eigenvalues or 1))


@dataclass(frozen=True)
class OfHessian(Measurement):
    """A measurement that looks for leading eigenpairs of the Hessian on some training examples."""

    pairs_setting: ClassVar[str] = ""  # the setting that says how many; none for one

    num_examples: int = setting(
        Derived("5 % of the study's smallest num_training, at least 250 or all", a_twentieth, "num_training"),
        "training examples of the Hessian (about 5 % of the training set)",
        minimum=1,
        maximum=100000,
    )
    tolerance: float = setting(
        1e-2, "largest residual of an eigenpair, relative to the largest eigenvalue", exclusiveMinimum=0, maximum=1
    )
    max_products: int = setting(
        Derived("100, or 10 for each eigenpair if that is more", _enough_products, "num_eigenvalues"),
        "most Hessian-vector products for the eigenpairs of one checkpoint",
        minimum=1,
        maximum=100000,
    )

    @property
    def num_pairs(self) -> int:
        """How many eigenpairs it looks for."""
        return int(getattr(self, self.pairs_setting)) if self.pairs_setting else 1

    @property
    def search(self) -> dict[str, Any]:
        """What the search for eigenpairs is told."""
        return {"num_pairs": self.num_pairs, "tolerance": self.tolerance, "max_products": self.max_products}

    def problems(self, run: Run) -> Iterator[str]:
        """Say that more eigenpairs are asked for than products, too."""
        yield from super().problems(run)
        if self.pairs_setting and self.num_pairs > self.max_products:
            yield f"{self.pairs_setting} must be at most {self.max_products}, its max_products, got {self.num_pairs}"

    def products(self) -> Products:
        """Those of the search for eigenpairs at one checkpoint."""
        return Products.of_eigenpairs(self.num_pairs, self.max_products, self.num_examples)

    def products_elsewhere(self, run: Run, num_pairs: int = 1) -> Products:
        """Those along the eigenvectors found, on as many other examples, or on all others where there are fewer."""
        others = min(self.num_examples, run.num_training - self.num_examples)
        return Products.exactly(num_pairs if others else 0, max(1, others))

    def in_words(self) -> str:
        """``Hessian on 250 training images, residuals at most 0.01``."""
        return self._in_words()

    def sample_in_words(self) -> str:
        """``250 training images``."""
        return f"{self.num_examples} training images"

    def _in_words(self, *, block: str = "", details: Iterable[str] = ()) -> str:
        of_block = f" of {block}" if block else ""
        parts = [f"Hessian{of_block} on {self.sample_in_words()}", *details]
        return ", ".join([*parts, f"residuals at most {self.tolerance:g}"])


def finite(columns: Mapping[str, Column]) -> tuple[str, ...]:
    """The columns that hold a finite number wherever the run has not diverged."""
    return tuple(name for name, column in columns.items() if column.finite)


def is_finite(value: Any) -> bool:
    """Whether a cell, of a row or of a table that was read, is a finite number."""
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def is_lost(row: Mapping[str, Any], columns: Mapping[str, Column]) -> bool:
    """Whether a number that a row must have is not finite; such a run has diverged."""
    return not all(is_finite(row.get(name)) for name in finite(columns))


def required(columns: Mapping[str, Column]) -> tuple[str, ...]:
    """The columns that no table may lack."""
    return tuple(name for name, column in columns.items() if not column.optional)


def measurement(name: str) -> type[Measurement]:
    """The measurement of this name.

    Raises:
        ModuleNotFoundError: there is none.
    """
    found: type[Measurement] | None = getattr(import_module(f"{_PACKAGE}.{name}"), "MEASUREMENT", None)
    if found is None:
        raise ModuleNotFoundError(f"{name} is no measurement")
    return found


def name_of(found: type[Measurement]) -> str:
    """The name of a measurement: that of its module."""
    return found.__module__.rpartition(".")[2]


def code_of(name: str) -> tuple[str, str]:
    """The modules that a job of a measurement runs: with all that they import, its code."""
    return "sharpness.stages.measure", f"{_PACKAGE}.{name}"
