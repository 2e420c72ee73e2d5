"""One training run as a value, the axes that make many of them, and the steps at which they are kept.

No torch: the workflow imports it each time it plans.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sharpness.study import networks

_LONGEST_NAME = 255

# Of the numbers of a run, and how a message says it. A comparison with a NaN is false.
_SENSIBLE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_training": (lambda value: value >= 1, "at least 1"),
    "init_scale": (lambda value: value is None or 0 < value < math.inf, "positive and finite, or null"),
    "learning_rate": (lambda value: 0 < value < math.inf, "positive and finite"),
    "learning_rate_epochs": (lambda value: all(epoch >= 1 for epoch in value), "epochs from 1 on"),
    "learning_rate_factor": (lambda value: 0 <= value < math.inf, "at least 0 and finite"),
    "batch_size": (lambda value: value == "full" or value >= 1, "full or at least 1"),
    "momentum": (lambda value: 0 <= value < 1, "at least 0 and less than 1"),
    "l2": (lambda value: 0 <= value < math.inf, "at least 0 and finite"),
    "gamma": (lambda value: 0 <= value < math.inf, "at least 0 and finite"),
    "gamma_outside": (lambda value: 0 <= value < math.inf, "at least 0 and finite"),
    "num_directions": (lambda value: value >= 0, "at least 0"),
    "direction_examples": (lambda value: value >= 0, "at least 0"),
    "direction_tolerance": (lambda value: 0 <= value < math.inf, "at least 0 and finite"),
    "direction_products": (lambda value: value >= 0, "at least 0"),
    "epochs": (lambda value: value >= 0, "at least 0"),
    "plateau_patience": (lambda value: value is None or value >= 1, "at least 1, or null"),
    "stop_patience": (lambda value: value is None or value >= 1, "at least 1, or null"),
    "loss_bound": (lambda value: value is None or value > 0, "positive, or null"),
    "seed": (lambda value: value >= 0, "at least 0"),
}


@dataclass(frozen=True)
class Run:
    """Everything that may change the weights of one training run, and nothing else."""

    data: str
    num_training: int  # training examples: the first so many of the data set's training split
    augment: bool  # flips and shifts of the training images
    model: str
    padding: Literal["alternating", "same"]  # of SimpleCNN's convolutions
    init_scale: float | None  # factor on the variance of a ResNet's first weights; None: the model's own
    learning_rate: float  # η
    learning_rate_epochs: tuple[int, ...]  # after these epochs
    learning_rate_factor: float  # the rate is multiplied by this
    batch_size: int | Literal["full"]  # S
    momentum: float
    l2: float  # factor of the sum of squared kernel weights in the loss
    precision: Literal["float32", "bfloat16"]  # of the passes of the training steps; the weights stay in float32
    gamma: float  # factor on the step inside the span of the sharpest directions; the paper's γ
    gamma_outside: float  # factor on the rest of the step
    num_directions: int  # K
    direction_examples: int  # training examples from which the directions are found
    direction_tolerance: float  # residual at which the directions are good enough
    direction_products: int  # most Hessian-vector products spent on one set of directions
    direction_precision: Literal["float32", "tf32", "bfloat16"]  # of these products
    epochs: int
    plateau_patience: int | None  # epochs without a better validation loss before the rate is cut to a tenth
    stop_patience: int | None  # epochs without a better validation accuracy before training ends
    loss_bound: float | None  # a loss of a mini-batch beyond it is a divergence; None: only one that is not finite
    seed: int

    def __post_init__(self) -> None:
        # Read from a file it is a list; in whatever order, it is one and the same run.
        object.__setattr__(self, "learning_rate_epochs", tuple(sorted(self.learning_rate_epochs)))
        for field, (sensible, words) in _SENSIBLE.items():
            if not sensible(getattr(self, field)):
                raise ValueError(f"{field} must be {words}, got {getattr(self, field)}")
        if self.batch_size != "full" and self.batch_size > self.num_training:
            raise ValueError(
                f"batch_size must be at most num_training, got batch_size {self.batch_size} "
                f"with num_training {self.num_training}"
            )
        if self.is_nudged and not self.num_directions >= 1:
            raise ValueError(f"num_directions must be at least 1 where gamma is not 1, got {self.num_directions}")
        if self.is_nudged and not 1 <= self.direction_examples <= self.num_training:
            raise ValueError(
                f"direction_examples must be between 1 and num_training, got {self.direction_examples} "
                f"with num_training {self.num_training}"
            )
        if self.is_nudged and not self.direction_tolerance > 0:
            raise ValueError(
                f"direction_tolerance must be positive where gamma is not 1, got {self.direction_tolerance}"
            )
        if self.is_nudged and self.direction_products < self.num_directions:
            raise ValueError(
                f"direction_products must be at least num_directions, got {self.direction_products} "
                f"with num_directions {self.num_directions}"
            )

    @property
    def is_nudged(self) -> bool:
        """Whether the update needs the sharpest directions at all; (1, 1) is plain SGD."""
        return (self.gamma, self.gamma_outside) != (1, 1)

    @property
    def examples_per_step(self) -> int:
        """The batch size as a number."""
        return self.num_training if self.batch_size == "full" else self.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one epoch: the last, incomplete batch is left out, as the authors do."""
        return self.num_training // self.examples_per_step

    @property
    def name(self) -> str:
        """The name of the run's folder: spells every field that is not at its neutral value.

        No file system takes more than 255 characters: a longer name, of many numbers with all their digits, ends with
        a hash instead.
        """
        parts = [
            f"{self.data}-{self.num_training}",
            "augmented" if self.augment else "",
            self.model,
            "" if self.padding == "alternating" else self.padding,
            "" if self.init_scale is None else f"init{_number(self.init_scale)}",
            f"lr{_number(self.learning_rate)}",
            self._schedule_part() if self.learning_rate_epochs else "",
            f"bs{self.batch_size}",
            f"m{_number(self.momentum)}" if self.momentum else "",
            f"l2_{_number(self.l2)}" if self.l2 else "",
            "" if self.precision == "float32" else self.precision,
            *(self._nudge_parts() if self.is_nudged else ()),
            f"e{self.epochs}",
            "" if self.plateau_patience is None else f"plateau{self.plateau_patience}",
            "" if self.stop_patience is None else f"stop{self.stop_patience}",
            "" if self.loss_bound is None else f"bound{_number(self.loss_bound)}",
            f"seed{self.seed}",
        ]
        name = "-".join(part for part in parts if part)
        if len(name) <= _LONGEST_NAME:
            return name
        digest = hashlib.sha256(name.encode()).hexdigest()
        return f"{name[: _LONGEST_NAME - len(digest) - 1]}-{digest}"

    def _schedule_part(self) -> str:
        return f"x{_number(self.learning_rate_factor)}at{'_'.join(map(str, self.learning_rate_epochs))}"

    def _nudge_parts(self) -> tuple[str, ...]:
        return (
            f"gamma{_number(self.gamma)}",
            "" if self.gamma_outside == 1 else f"outside{_number(self.gamma_outside)}",
            f"K{self.num_directions}",
            f"n{self.direction_examples}",
            f"tol{_number(self.direction_tolerance)}",
            f"max{self.direction_products}",
            "" if self.direction_precision == "float32" else f"in{self.direction_precision}",
        )

    def canonical(self) -> Run:
        """The same run with its settings spelt in one way, those without effect at zero: equal runs are equal."""
        idle: dict[str, Any] = {}
        if not self.is_nudged:
            idle |= {"num_directions": 0, "direction_examples": 0, "direction_tolerance": 0.0, "direction_products": 0}
            idle |= {"direction_precision": "float32"}
        # After the last epoch there is no step that a changed rate could take.
        changes = () if self.learning_rate_factor == 1 else self.learning_rate_epochs
        changes = tuple(epoch for epoch in changes if epoch < self.epochs)
        idle |= {"learning_rate_epochs": changes} | ({} if changes else {"learning_rate_factor": 0.0})
        if self.batch_size == self.num_training:
            idle |= {"batch_size": "full"}
        if self.model in networks.RESNETS and self.init_scale == networks.default_init_scale(self.model):
            idle |= {"init_scale": None}
        return dataclasses.replace(self, **idle)


def _number(value: float) -> str:
    # 0.1 and 0.10 are one number and one name, 1 and 1.0 and even 0 and -0 too; no two numbers share a name.
    return repr(float(value) + 0.0).removesuffix(".0")


def runs_of(defaults: Mapping[str, Any], axes: Mapping[str, Any]) -> list[Run]:
    """Every combination of the axes' values, over the defaults.

    Args:
        defaults: a value for each field of ``Run`` that is not an axis.
        axes: field to value or list of values.

    Raises:
        ValueError: a combination is not a possible run.
    """
    lists = {key: value if _is_list_of_values(key, value) else [value] for key, value in axes.items()}
    combinations = itertools.product(*lists.values())
    return [Run(**{**defaults, **dict(zip(lists, values, strict=True))}).canonical() for values in combinations]


def _is_list_of_values(field: str, value: Any) -> bool:
    """Whether an axis is given by all its values, and not by its only one: that of some fields is a list too."""
    if field == "learning_rate_epochs" and not any(isinstance(item, list) for item in value):
        return False
    return isinstance(value, list)


@dataclass(frozen=True)
class Schedule:
    """When checkpoints are kept: the union of what its fields ask for."""

    at_epochs: tuple[float, ...] = ()
    dense_epochs: float = 0  # for so many epochs from the start,
    dense_images: int = 1  # every so many training images (every step where a batch is larger)
    every_epochs: int | None = None  # after that, once every so many epochs, and at the end

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Schedule:
        """A named schedule of a study's file."""
        return cls(**{**section, "at_epochs": tuple(section.get("at_epochs", ()))})

    def steps(self, run: Run) -> list[int]:
        """The steps of ``run`` that the schedule keeps, ascending; times after its end are left out."""
        per_epoch, last = run.steps_per_epoch, run.steps_per_epoch * run.epochs
        steps = {round(epoch * per_epoch) for epoch in self.at_epochs}
        dense_end = round(self.dense_epochs * per_epoch)
        steps.update(range(0, min(dense_end, last + 1), max(1, self.dense_images // run.examples_per_step)))
        if self.every_epochs is not None:
            first = -(-dense_end // per_epoch)  # the first whole epoch that is not dense
            steps.update(range(first * per_epoch, last + 1, self.every_epochs * per_epoch))
            steps.add(last)
        return sorted(step for step in steps if step <= last)


def chunks_of(steps: Sequence[int], num_chunks: int) -> list[list[int]]:
    """``steps`` in order, cut into exactly ``num_chunks`` lists as equal as can be (some empty where steps are few)."""
    size, longer = divmod(len(steps), num_chunks)
    ends = list(itertools.accumulate(size + (index < longer) for index in range(num_chunks)))
    return [list(steps[begin:end]) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def flags(prefix: str, values: Mapping[str, Any]) -> list[str]:
    """``values`` as the words of a stage's command line: --prefix.key value."""

    def words(key: str, value: Any) -> Iterable[str]:
        yield f"--{prefix}.{key.replace('_', '-')}"
        yield from (str(item) for item in value) if isinstance(value, list | tuple) else [str(value)]

    return [word for key, value in values.items() for word in words(key, value)]
