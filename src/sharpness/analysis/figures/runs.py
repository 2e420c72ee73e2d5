"""Which runs of a table a panel shows, and what it calls them."""

import json
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sharpness.analysis.axes import differing_in_words, in_text
from sharpness.analysis.tables import CONFIGURATION
from sharpness.data.catalogue import FACTS
from sharpness.study.naming import subject
from sharpness.study.nested import EMPTY
from sharpness.study.varied import Axis


def models(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each model on its data, in order of appearance."""
    return [of_model for _, of_model in rows.groupby(["data", "model"], sort=False)]


def first_seeds(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of the first seed of each configuration, in order of appearance."""
    fields = [field for field in CONFIGURATION if field in rows]
    groups = rows.groupby(fields, sort=False, dropna=False)
    return [same[same["seed"] == same["seed"].min()] for _, same in groups]


def name_of(rows: pd.DataFrame) -> str:
    """``SimpleCNN, Fashion-MNIST, 5,000 images``: without the images where the runs differ in their number."""
    sizes = rows["num_training"].unique()
    return subject(rows["model"].iloc[0], rows["data"].iloc[0], sizes[0] if len(sizes) == 1 else None)


def title_of(run: pd.DataFrame, table: pd.DataFrame) -> str:
    """One run of a table, its name in one line, learning rate, batch size and seed in another."""
    several = table["seed"].nunique()
    seed = f"seed {run['seed'].iloc[0]}" + (f" (first of {several})" if several > 1 else "")
    others = differing_in_words(run, table, beside=("learning_rate", "batch_size"))
    settings = settings_in_words(run, "learning_rate", "batch_size")
    return f"{name_of(run)}\n{', '.join(filter(None, [settings, others, seed]))}"


def settings_in_words(rows: pd.DataFrame, *fields: str) -> str:
    """``learning rate 0.005, batch size 128``: those of the fields that have one value in all rows."""
    return ", ".join(f"{words(field)} {text(rows[field].iloc[0])}" for field in fields if rows[field].nunique() == 1)


def fixed_in_words(rows: pd.DataFrame, axis: Axis) -> str:
    """Learning rate and batch size, where they are no axis, as far as they have one value in all rows."""
    return settings_in_words(rows, *(field for field in ("learning_rate", "batch_size") if field != axis.field))


def epoch_in_words(epoch: float) -> str:
    """An epoch as the time of a measurement, which falls on a step near it: 0.26, 1.5, 30."""
    return f"{epoch:.{2 if epoch < 10 else 3}g}"


def divergence_in_words(run: pd.DataFrame) -> str:
    """When a run diverged, as the end of a title; nothing where it did not.

    Args:
        run: columns epoch, diverged.
    """
    reached = run.loc[~run["diverged"], "epoch"]
    if reached.empty:
        return f", {LOST}"
    return "" if len(reached) == len(run) else f", diverged after epoch {epoch_in_words(reached.max())}"


def optimizer_in_words(rows: pd.DataFrame, *, several: str) -> str:
    """``SGD``, ``adam``: what all of the runs are trained with; ``several``, where it is not one."""
    found = rows["optimizer"].unique() if "optimizer" in rows else [EMPTY]
    names = {json.loads(told).get("name", "SGD") for told in found}
    return str(*names) if len(names) == 1 else several


def examples_in_words(rows: pd.DataFrame) -> str:
    """``images``, or ``examples`` where data are the user's own."""
    is_own = "data" in rows and any(data not in FACTS for data in rows["data"].unique())
    return "examples" if is_own else "images"


def eigenvalue_in_words(rows: pd.DataFrame) -> str:
    """Of what the eigenvalues of a spectrum are, for an axis."""
    is_preconditioned = "preconditioner" in rows and bool(rows["preconditioner"].eq("optimizer").all())
    return "eigenvalue of the\npreconditioned Hessian" if is_preconditioned else "eigenvalue of the Hessian"


LOST = "diverged before the first measurement"


def say_lost(*panels: Axes) -> None:
    """Empty panels of runs of which nothing was measured: the words in place of axes that would show nothing."""
    for axes in panels:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, LOST.replace(" the ", "\nthe "), ha="center", va="center", transform=axes.transAxes)


def is_measured(values: pd.Series) -> bool:
    """Whether there is anything to draw of a run."""
    return bool(np.isfinite(values).any())


def words(field: str) -> str:
    """A column's name as an axis label."""
    return field.replace("_", " ")


def text(value: Any) -> str:
    """A setting's value as it is written in the config."""
    return in_text(value)
