"""One training run as a value: its settings with ranges and defaults, and its name.

No torch: the workflow imports it each time it plans.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

from sharpness.data import arrays, catalogue
from sharpness.runtime import own
from sharpness.study import nested, networks, run_name
from sharpness.study.nested import MAPPINGS
from sharpness.study.optimizers import OPTIMIZERS, SCHEDULES, RateSchedule, checked, filled
from sharpness.study.settings import Derived, a_twentieth, schema_of, setting, unmet

LOSSES = ("cross_entropy", "mse", "bce_with_logits")
# Allowed in Python, never in a study: no epochs names the state that all lengths of a run share, and a factor of zero
# belongs to a rate that never changes.
_BESIDES = {"epochs": 0, "learning_rate_factor": 0}


class RunError(ValueError):
    """No run is possible with these values.

    Attributes:
        problems: a sentence for each of them.
        possible: of several runs, those that are.
    """

    def __init__(self, problems: Sequence[str], possible: Sequence[Run] = ()) -> None:
        super().__init__("; ".join(problems))
        self.problems, self.possible = list(problems), list(possible)


@dataclass(frozen=True)
class Run:
    """Everything that may change the weights of one training run, and nothing else.

    Each field says what a study may give for it, and what it is where the study says nothing.

    Raises:
        RunError: a value is out of its range, or two do not go together.
    """

    data: str = setting(
        "digits",
        "the data set; or your own, relative to the study's file: arrays.npz, arrays.safetensors, a folder/ of images "
        "by class, or file.py:function (docs/own.md)",
        known=list(catalogue.DATA_SETS),
        otherwise=r"[./:]",
        minLength=1,
    )
    num_training: int = setting(
        Derived("the whole training split of the data set", arrays.num_training, "data"),
        "training examples: the first so many of the data set's training split",
        minimum=2,
        maximum=100_000,
    )
    augment: bool = setting(False, "flip and shift the training images")
    model: str = setting(
        "simple_cnn",
        "the network; or your own, file.py:function, relative to the study's file (docs/own.md)",
        known=list(networks.NAMES),
        otherwise=":",
        minLength=1,
    )
    padding: Literal["alternating", "same"] = setting(
        "alternating", "SimpleCNN's convolutions: same and valid in turn, as in the authors' code, or all same"
    )
    init_scale: float | None = setting(
        None,
        "factor on the variance of a ResNet's first weights; null for the model's own",
        exclusiveMinimum=0,
        maximum=10,
    )
    learning_rate: float = setting(0.05, "step size of SGD", exclusiveMinimum=0, maximum=1000)
    learning_rate_epochs: tuple[int, ...] = setting(
        [],
        "epochs after which the learning rate is multiplied by learning_rate_factor; [] for never",
        uniqueItems=True,
        items={"type": "integer", "minimum": 1, "maximum": 100_000},
    )
    learning_rate_factor: float = setting(
        0.1, "factor on the learning rate after each of learning_rate_epochs", exclusiveMinimum=0, maximum=1000
    )
    batch_size: int | Literal["full"] = setting(
        Derived("128, or the whole training set where it is smaller", partial(min, 128), "num_training"),
        "examples per SGD step, or full for the whole training set",
        minimum=1,
        maximum=100_000,
    )
    momentum: float = setting(0.0, "heavy-ball momentum; 0 is vanilla SGD", minimum=0, exclusiveMaximum=1)
    l2: float = setting(
        0.0,
        "factor of the sum of squared kernel weights in the loss (its gradient is 2 * l2 * weights)",
        minimum=0,
        maximum=10,
    )
    precision: Literal["float32", "bfloat16"] = setting(
        "float32",
        "of the passes of the training steps; the weights, their updates and every measurement stay in float32; "
        "bfloat16 is faster on CPUs with AMX and on GPUs only; it changed no result beyond the spread over three seeds "
        "on digits and Fashion-MNIST (docs/precision)",
    )
    gamma: float = setting(
        1.0, "factor on the step inside the span of the sharpest directions; 1 is SGD", minimum=0, maximum=1000
    )
    gamma_outside: float = setting(
        1.0, "factor on the step outside that span; 1 except in ablations", minimum=0, maximum=1000
    )
    num_directions: int = setting(5, "how many sharpest directions span the nudged subspace", minimum=0, maximum=100)
    direction_examples: int = setting(
        Derived("5 % of num_training, at least 250 or all", a_twentieth, "num_training"),
        "training examples from which the nudged directions are found, once an epoch",
        minimum=0,
        maximum=100_000,
    )
    direction_tolerance: float = setting(
        0.1, "residual at which a nudged direction is good enough", minimum=0, maximum=1
    )
    direction_products: int = setting(
        Derived("20, or 4 for each direction where that is more", lambda number: max(20, 4 * number), "num_directions"),
        "most Hessian-vector products spent on one set of nudged directions",
        minimum=0,
        maximum=10_000,
    )
    direction_precision: Literal["float32", "tf32", "bfloat16"] = setting(
        "float32", "of the products that the nudged directions are found with"
    )
    epochs: int = setting(10, "passes over the training set", minimum=1, maximum=100_000)
    plateau_patience: int | None = setting(
        None,
        "epochs without a better validation loss before the learning rate is cut to a tenth; null for never",
        minimum=1,
        maximum=100_000,
    )
    stop_patience: int | None = setting(
        None,
        "epochs without a better validation accuracy before training ends; null for never",
        minimum=1,
        maximum=100_000,
    )
    loss_bound: float | None = setting(
        None,
        "a loss of a mini-batch beyond which a run counts as diverged; null for only one that is not finite",
        exclusiveMinimum=0,
        maximum=1_000_000,
    )
    seed: int = setting(0, "seed of every random stream of the run", minimum=0, maximum=2**32 - 1)
    model_args: str = setting(
        {},
        "arguments of your own network's function; in a grid, a list has the values of one argument",
        in_code=True,
        type="object",
        additionalProperties=True,
    )
    loss: str = setting(
        "cross_entropy",
        "of outputs and targets; or your own, file.py:function(outputs, targets), which returns each example's loss",
        in_code=True,
        known=list(LOSSES),
        otherwise=":",
        minLength=1,
    )
    optimizer: str = setting(
        {},
        f"the update rule, by its name ({', '.join(OPTIMIZERS)}) and its settings; {{}} is SGD with the run's momentum",
        in_code=True,
        type=["object", "string"],
        additionalProperties=True,
    )
    schedule: str = setting(
        {},
        f"of the learning rate, by its name ({', '.join(SCHEDULES)}) and its settings, as warmup, in epochs; {{}} "
        "is the constant one, or that of learning_rate_epochs and plateau_patience",
        in_code=True,
        type=["object", "string"],
        additionalProperties=True,
    )

    def __post_init__(self) -> None:
        wrong = []
        for field, take in (
            ("model_args", _as_it_is),
            ("optimizer", self._take_optimizer),
            ("schedule", self._take_schedule),
        ):
            try:
                told = take(nested.as_mapping(nested.as_text(getattr(self, field))))
                object.__setattr__(self, field, nested.as_text(told))
            except ValueError as error:
                wrong.append(f"{field} {error}")
        if wrong:
            raise RunError(wrong)
        # Read from a file it is a list; in whatever order, it is one and the same run.
        object.__setattr__(self, "learning_rate_epochs", tuple(sorted(self.learning_rate_epochs)))
        if wrong := [*self._out_of_range()] or [*self._impossible()]:
            raise RunError(wrong)

    def _take_optimizer(self, given: dict[str, Any]) -> dict[str, Any]:
        """Check the optimizer; SGD and heavy ball are those of the field ``momentum``."""
        told = checked(given, OPTIMIZERS)
        if not told:
            return told
        name = told["name"]
        if name in ("sgd", "heavy_ball"):
            momentum = (
                filled(told, OPTIMIZERS)["momentum"] if "momentum" in given or not self.momentum else self.momentum
            )
            object.__setattr__(self, "momentum", momentum)
            return {}
        if self.momentum:
            raise ValueError(f"{name} does not use the field momentum, which must be 0, got {self.momentum}")
        return told

    def _take_schedule(self, given: dict[str, Any]) -> dict[str, Any]:
        """Check the schedule; what the fields of the learning rate say too, they say."""
        told = checked(given, SCHEDULES)
        if not told:
            return told
        settings = filled(told, SCHEDULES)
        if told["name"] == "steps":
            if not settings["epochs"]:
                raise ValueError("steps lacks epochs, after which the learning rate is multiplied by factor")
            object.__setattr__(self, "learning_rate_epochs", tuple(settings["epochs"]))
            object.__setattr__(self, "learning_rate_factor", settings["factor"])
        elif told["name"] == "plateau":
            object.__setattr__(self, "plateau_patience", settings["patience"])
        if told["name"] in ("cosine", "linear"):
            return told
        return {"name": "constant", "warmup": settings["warmup"]} if settings["warmup"] else {}

    def _out_of_range(self) -> Iterator[str]:
        for field, schema in _ranges().items():
            if field in MAPPINGS:
                continue
            value = getattr(self, field)
            if (demand := unmet(value, schema)) and not (field in _BESIDES and value == _BESIDES[field]):
                yield f"{field} {demand}, got {value}"

    def _impossible(self) -> Iterator[str]:
        """Say what is wrong although each value is in its range."""
        if self.batch_size != "full" and self.batch_size > self.num_training:
            yield (
                f"batch_size must be at most num_training, got batch_size {self.batch_size} "
                f"with num_training {self.num_training}"
            )
        if not self.is_nudged:
            return
        if not self.num_directions >= 1:
            yield f"num_directions must be at least 1 where gamma is not 1, got {self.num_directions}"
        if not 1 <= self.direction_examples <= self.num_training:
            yield (
                f"direction_examples must be between 1 and num_training, got {self.direction_examples} "
                f"with num_training {self.num_training}"
            )
        if not self.direction_tolerance > 0:
            yield f"direction_tolerance must be positive where gamma is not 1, got {self.direction_tolerance}"
        if self.direction_products < self.num_directions:
            yield (
                f"direction_products must be at least num_directions, got {self.direction_products} "
                f"with num_directions {self.num_directions}"
            )

    @property
    def own_code(self) -> tuple[str, ...]:
        """The user's own functions by which it trains and is measured, as a study names them."""
        return tuple(each for each in (self.model, self.loss) if own.is_reference(each))

    def fields(self) -> dict[str, Any]:
        """Return the fields by name, without those that were added later and are at their neutral value.

        So that a run of an older version is what it was, in files and digests.
        """
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in NEUTRAL or NEUTRAL[name] != value}

    @property
    def update(self) -> dict[str, Any]:
        """The optimizer's name and all its settings; empty for SGD with ``momentum``."""
        told = nested.as_mapping(self.optimizer)
        return {"name": told["name"], **filled(told, OPTIMIZERS)} if told else {}

    @property
    def rates(self) -> RateSchedule:
        """The factor on the learning rate at every update."""
        told = nested.as_mapping(self.schedule)
        return RateSchedule.of(told, steps_per_epoch=self.steps_per_epoch, epochs=self.epochs)

    @property
    def depends_on_length(self) -> bool:
        """Whether a longer run takes other steps from the beginning, since its rates end later."""
        return nested.as_mapping(self.schedule).get("name") in ("cosine", "linear")

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
    def without_epochs(self) -> Run:
        """The run without its length: the same for all lengths."""
        return dataclasses.replace(self, epochs=0)

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return run_name.name_of(self)

    def canonical(self) -> Run:
        """Return the same run in its one canonical spelling, with settings of no effect at zero."""
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


# Fields that were added once there were results, with the value that these have.
NEUTRAL: dict[str, Any] = {
    "model_args": nested.EMPTY,
    "loss": "cross_entropy",
    "optimizer": nested.EMPTY,
    "schedule": nested.EMPTY,
}


@cache
def _ranges() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of every field, without limits that only guard a study's file against typing errors."""
    properties: dict[str, dict[str, Any]] = schema_of(Run)["properties"]
    return {
        name: {**schema, "uniqueItems": False, **({"maximum": sys.float_info.max} if "maximum" in schema else {})}
        for name, schema in properties.items()
    }


def _as_it_is(told: dict[str, Any]) -> dict[str, Any]:
    return told
