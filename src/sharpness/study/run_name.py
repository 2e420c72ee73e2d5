"""What a training run is called: the name of its folder, and of its rows in tables."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from sharpness.study import nested

if TYPE_CHECKING:
    from sharpness.study.run import Run

_LONGEST = 255  # characters that a file system takes


def name_of(run: Run) -> str:
    """Spell every field that is not at its neutral value.

    A name too long for a file system, of many numbers with all their digits, ends with a hash instead.
    """
    parts = [
        f"{word(run.data)}-{run.num_training}",
        "augmented" if run.augment else "",
        word(run.model),
        "" if run.model_args == nested.EMPTY else nested.spelt(run.model_args),
        "" if run.padding == "alternating" else run.padding,
        "" if run.init_scale is None else f"init{_number(run.init_scale)}",
        f"lr{_number(run.learning_rate)}",
        _changes(run) if run.learning_rate_epochs else "",
        "" if run.schedule == nested.EMPTY else nested.spelt(run.schedule),
        f"bs{run.batch_size}",
        "" if run.optimizer == nested.EMPTY else nested.spelt(run.optimizer),
        f"m{_number(run.momentum)}" if run.momentum else "",
        f"l2_{_number(run.l2)}" if run.l2 else "",
        "" if run.precision == "float32" else run.precision,
        "" if run.loss == "cross_entropy" else word(run.loss),
        *(_nudge(run) if run.is_nudged else ()),
        f"e{run.epochs}",
        "" if run.plateau_patience is None else f"plateau{run.plateau_patience}",
        "" if run.stop_patience is None else f"stop{run.stop_patience}",
        "" if run.loss_bound is None else f"bound{_number(run.loss_bound)}",
        f"seed{run.seed}",
    ]
    name = "-".join(part for part in parts if part)
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{name[: _LONGEST - len(digest) - 1]}-{digest}"


def word(name: str) -> str:
    """Spell the name of a network, data set or loss within a file's name: those of one's own have other characters."""
    plain = name.replace(".py:", ".").replace(":", ".").removeprefix("./").strip("/").replace("/", ".")
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,80}", plain):
        return plain
    return f"{re.sub('[^A-Za-z0-9_.]+', '_', plain)[:40].strip('._')}_{nested.short_hash(name)}"


def _changes(run: Run) -> str:
    return f"x{_number(run.learning_rate_factor)}at{'_'.join(map(str, run.learning_rate_epochs))}"


def _nudge(run: Run) -> tuple[str, ...]:
    return (
        f"gamma{_number(run.gamma)}",
        "" if run.gamma_outside == 1 else f"outside{_number(run.gamma_outside)}",
        f"K{run.num_directions}",
        f"n{run.direction_examples}",
        f"tol{_number(run.direction_tolerance)}",
        f"max{run.direction_products}",
        "" if run.direction_precision == "float32" else f"in{run.direction_precision}",
    )


def _number(value: float) -> str:
    # 0.1 and 0.10 are one number and one name, 1 and 1.0 and even 0 and -0 too; no two numbers share a name.
    return repr(float(value) + 0.0).removesuffix(".0")
