"""The run that tries a user's own network and data before any training."""

from __future__ import annotations

import dataclasses

from sharpness.data import arrays
from sharpness.runtime import own
from sharpness.study import nested
from sharpness.study.run import Run
from sharpness.study.run_name import word

# What a network that is built, and given examples, depends on.
_FIELDS = ("data", "num_training", "augment", "model", "padding", "init_scale", "model_args", "loss")
# Everything else, in all trials the same: an edit of it tries nothing again.
_FIRST = Run(
    data="digits",
    num_training=2,
    augment=False,
    model="simple_cnn",
    padding="alternating",
    init_scale=None,
    learning_rate=1.0,
    learning_rate_epochs=(),
    learning_rate_factor=0.0,
    batch_size="full",
    momentum=0.0,
    l2=0.0,
    precision="float32",
    gamma=1.0,
    gamma_outside=1.0,
    num_directions=0,
    direction_examples=0,
    direction_tolerance=0.0,
    direction_products=0,
    direction_precision="float32",
    epochs=1,
    plateau_patience=None,
    stop_patience=None,
    loss_bound=None,
    seed=0,
)


def trial_of(run: Run) -> Run | None:
    """Return the run that stands for all with this network and these data of the user's own; None without such."""
    if not (run.own_code or arrays.is_own(run.data)):
        return None
    return dataclasses.replace(_FIRST, **{field: getattr(run, field) for field in _FIELDS})


def trial_of_measuring(run: Run) -> Run:
    """Return the run that stands for all that a user's own measurement may tell apart before training."""
    return dataclasses.replace(_FIRST, **{field: getattr(run, field) for field in (*_FIELDS, "momentum", "optimizer")})


def name_of_trial(trial: Run) -> str:
    """Name the files of a trial."""
    return f"{word(trial.model)}-{nested.short_hash(trial.name)}"


def name_of_measuring(code: str, run: Run) -> str:
    """Name the trial of a user's own measurement on a run's network and data."""
    return f"{own.name_of(code)}-{name_of_trial(trial_of_measuring(run))}"
