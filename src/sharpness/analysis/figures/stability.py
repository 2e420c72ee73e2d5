"""Where the optimizer that trained would become unstable on a quadratic loss: for gradient descent, at 2 / step size.

Along nudged directions the step is γ times the learning rate. With momentum β the curvature is 1 + β times as large,
and with Nesterov's (1 + β) / (1 + 2β) times. Optimizers that scale each weight by itself have a limit for the
preconditioned Hessian alone: that of Adam is (1 + β₁) / (1 - β₁) times 2 / learning rate (``sharpness.tracking.limits``
derives all of them).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sharpness.study import nested
from sharpness.study.optimizers import OPTIMIZERS, RateSchedule, filled

LOOK: dict[str, Any] = {"linewidth": 1, "linestyle": (0, (1, 2))}


def limits_of(rows: pd.DataFrame) -> pd.Series:
    """The limit of the eigenvalues that were measured, by row, at the learning rate of that time.

    Args:
        rows: columns learning_rate, gamma; and momentum, optimizer, the fields of a schedule with step and epoch, and
            preconditioner, where they are other than those of SGD on the Hessian itself.

    Returns:
        NaN where no limit is known.
    """
    limits: pd.Series = 2 / (_rates(rows) * rows["gamma"])
    factors = _factors(rows)
    return limits * factors - _decays(rows) * factors


def _column(rows: pd.DataFrame, name: str, neutral: Any) -> pd.Series:
    return rows[name] if name in rows else pd.Series(neutral, index=rows.index)


def _factors(rows: pd.DataFrame) -> pd.Series:
    """What the update rule multiplies the limit of plain SGD by."""
    columns = [
        _column(rows, name, neutral)
        for name, neutral in (("momentum", 0.0), ("optimizer", nested.EMPTY), ("preconditioner", ""))
    ]
    rules = pd.concat([*columns, rows["gamma"], _column(rows, "gamma_outside", 1.0)], axis=1)
    rules.columns = ["momentum", "optimizer", "preconditioner", "gamma", "gamma_outside"]
    # A run has one rule, and many rows.
    known = {rule: _factor(*rule) for rule in rules.drop_duplicates().itertuples(index=False, name=None)}
    return pd.Series([known[rule] for rule in rules.itertuples(index=False, name=None)], index=rows.index, dtype=float)


def _factor(momentum: float, optimizer: str, preconditioner: Any, gamma: float, gamma_outside: float) -> float:
    told = nested.as_mapping(optimizer)
    if not told:
        return 1 + momentum
    settings = filled(told, OPTIMIZERS)
    if told["name"] == "nesterov":
        beta = settings["momentum"]
        return float((1 + beta) / (1 + 2 * beta))
    if preconditioner != "optimizer" or (gamma, gamma_outside) != (1, 1):
        return math.nan
    if told["name"] == "rmsprop":
        return float(1 + settings["momentum"])
    return float((1 + settings["beta1"]) / (1 - settings["beta1"]))


def _decays(rows: pd.DataFrame) -> pd.Series:
    """AdamW's decay of the weights, which acts as so much more curvature."""
    told = {text: nested.as_mapping(text) for text in _column(rows, "optimizer", nested.EMPTY).unique()}
    decays = {
        text: filled(each, OPTIMIZERS)["weight_decay"] if each.get("name") == "adamw" else 0.0
        for text, each in told.items()
    }
    return _column(rows, "optimizer", nested.EMPTY).map(decays).astype(float)


def _rates(rows: pd.DataFrame) -> pd.Series:
    """The learning rate of the next update; NaN where a plateau cuts it and the table does not tell."""
    rates = rows["learning_rate"]
    if not _is_scheduled(rows).any():
        return rates
    found = [_rate(run) if is_scheduled else run["learning_rate"] for run, is_scheduled in _with(rows)]
    return pd.Series(found, index=rows.index, dtype=float).replace(0.0, np.nan)


def _with(rows: pd.DataFrame) -> list[tuple[dict[str, Any], bool]]:
    return list(zip(rows.to_dict("records"), _is_scheduled(rows), strict=True))


def _is_scheduled(rows: pd.DataFrame) -> pd.Series:
    """Whether the learning rate of a row's run changes."""
    if "step" not in rows:
        return pd.Series(False, index=rows.index)
    return (
        (_column(rows, "schedule", nested.EMPTY) != nested.EMPTY)
        | ~_column(rows, "learning_rate_epochs", "").isin(["", None])
        | _column(rows, "plateau_patience", np.nan).notna()
    )


def _rate(run: dict[str, Any]) -> float:
    if pd.notna(run.get("plateau_patience")):
        return float(run.get("learning_rate_now", math.nan))
    size = run["num_training"] if run["batch_size"] in ("full", math.inf) else int(run["batch_size"])
    steps_per_epoch = int(run["num_training"]) // int(size)
    told = nested.as_mapping(run.get("schedule", nested.EMPTY))
    schedule = RateSchedule.of(told, steps_per_epoch=steps_per_epoch, epochs=int(run["epochs"]))
    changes = [int(epoch) for epoch in str(run.get("learning_rate_epochs") or "").split()]
    passed = sum(run["step"] >= epoch * steps_per_epoch for epoch in changes)
    return float(run["learning_rate"] * run["learning_rate_factor"] ** passed * schedule.factor(int(run["step"])))


def draw_limits(axes: Axes, rows: pd.DataFrame, colours: Sequence[str] | pd.Series) -> None:
    """A dotted line at each limit in its colour, where it is in sight; called when all is drawn.

    Args:
        axes: whose x axis has epochs.
        rows: as ``limits_of`` takes them, with column epoch where a rate changes.
        colours: by row.
    """
    seen = axes.get_ylim()
    table = pd.DataFrame(
        {"limit": limits_of(rows).to_numpy(), "colour": list(colours), "moves": _is_scheduled(rows).to_numpy()}
    )
    # A rate that is cut stays until it is cut again.
    table["style"] = [
        "steps-post" if each == nested.EMPTY else "default" for each in _column(rows, "schedule", nested.EMPTY)
    ]
    fixed = table[~table["moves"]]
    for limit, colour in dict(zip(fixed["limit"], fixed["colour"], strict=True)).items():
        if math.isnan(limit):
            continue
        axes.axhline(limit, color=colour, zorder=0, **LOOK)
    moving = table.assign(epoch=_column(rows, "epoch", np.nan).to_numpy(), run=_column(rows, "run", "").to_numpy())[
        table["moves"]
    ]
    # Seeds that wait for a plateau are cut at different times; those of other schedules share their course.
    courses = {
        (colour, style, tuple(of_run.groupby("epoch")["limit"].first().dropna().items()))
        for (colour, style, _), of_run in moving.groupby(["colour", "style", "run"], sort=False)
    }
    for colour, style, course in sorted(course for course in courses if course[-1]):
        axes.plot(*zip(*course, strict=True), color=colour, zorder=0, drawstyle=style, **LOOK)
    axes.set_ylim(seen)


def name_of_limit(rows: pd.DataFrame) -> str:
    """What a figure of these runs calls the limit; empty where no limit is known.

    Args:
        rows: column gamma, and those of the update rule.
    """
    factors = _factors(rows).dropna().unique()
    if not len(factors) or limits_of(rows).isna().all():
        return ""
    rate = "learning rate" if (rows["gamma"] == 1).all() else "(γ × learning rate)"
    if len(factors) > 1:
        return "stability limit of each optimizer"
    decay = factors[0] * _decays(rows).max()
    return f"{2 * factors[0]:.3g} / {rate}" + (f" - {decay:.2g}" if decay else "")


def limit_of_rate_times_eigenvalue(rows: pd.DataFrame) -> float:
    """The limit of the learning rate times the largest eigenvalue, if all runs have the same; else NaN."""
    factors = _factors(rows).unique()
    return float(2 * factors[0]) if len(factors) == 1 else math.nan


def legend_of_limit(rows: pd.DataFrame, colour: str = "black") -> list[Line2D]:
    """What ``draw_limits`` draws, as entries of a legend; none where no limit is known."""
    name = name_of_limit(rows)
    return [Line2D([], [], color=colour, label=name, **LOOK)] if name else []
