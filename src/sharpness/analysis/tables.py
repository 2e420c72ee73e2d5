"""Tables made of tables: peaks of the curvature, Frobenius norms, and the poster's table of results as numbers."""

import json
from typing import Any

import numpy as np
import pandas as pd

from sharpness.analysis.axes import grid_axes, in_text, with_axis
from sharpness.study.measurement import required
from sharpness.study.nested import EMPTY, MAPPINGS
from sharpness.study.records import columns_of
from sharpness.study.runs import FIELDS
from sharpness.study.varied import Axis

# Equal in all of these, two runs are seeds of one configuration.
CONFIGURATION = [field for field in FIELDS if field != "seed"]
RUN = ["data", "model", "grid", "run", "learning_rate", "batch_size", "gamma", "seed"]
QUANTITIES = [
    "frobenius_best",
    "frobenius_last",
    "test_accuracy",
    "validation_accuracy",
    "training_loss",
    "distance",
]
# Where the whole norm was estimated too.
WHOLE_NORMS = ["whole_frobenius_best", "whole_frobenius_last"]


def with_columns(measurement: str, table: pd.DataFrame) -> pd.DataFrame:
    """The table with every column that none may lack: where all runs were lost, it has none of what was measured."""
    absent = [column for column in required(columns_of(measurement)) if column not in table]
    return table.assign(**dict.fromkeys(absent, np.nan))


def trajectory(spectrum: pd.DataFrame) -> pd.DataFrame:
    """The largest eigenvalues at the planned checkpoints, each once per grid and run; NaN where one is not finite.

    Raises:
        ValueError: nothing was measured at a planned checkpoint.
    """
    planned = spectrum[(spectrum["which"] == "largest") & (spectrum["checkpoint"] == "planned")]
    if planned.empty:
        raise ValueError(f"no largest eigenvalue at a planned checkpoint among {len(spectrum)} rows of the spectrum")
    finite = planned.assign(eigenvalue=planned["eigenvalue"].where(np.isfinite(planned["eigenvalue"])))
    return finite.drop_duplicates(["grid", "run", "step", "rank"]).sort_values(["step", "rank"], kind="stable")


def distances_of(slices: pd.DataFrame) -> pd.Series:
    """How far each place of a slice is from the weights, downhill positive; an older table tells it by its factors.

    Args:
        slices: columns k, scale, and distance if it was measured.
    """
    by_steps: pd.Series = slices["k"] * slices["scale"]
    return slices["distance"].fillna(by_steps) if "distance" in slices else by_steps


def first_change(epochs: str) -> float:
    """The epoch after which a learning rate changes, from a run's list of them in the table of runs; NaN for never."""
    return float(min(map(int, epochs.split()), default=np.nan))


def batch_order(batch_size: str | float) -> float:
    """A batch size as a number to sort by: the full batch is the largest."""
    return float("inf") if batch_size == "full" else float(batch_size)


def with_fields_of(table: pd.DataFrame, source: pd.DataFrame) -> pd.DataFrame:
    """A table of runs, with those fields of each run that only ``source`` has.

    Args:
        table: column run.
        source: columns run and the fields of each.
    """
    missing = [field for field in FIELDS if field in source and field not in table]
    return table.merge(source.drop_duplicates("run")[["run", *missing]], on="run")


def frobenius(spectrum: pd.DataFrame) -> pd.DataFrame:
    """Frobenius norm from the tracked largest eigenvalues, and how many these are.

    A lower bound of the Hessian's norm: the root of the sum of ``num_eigenvalues`` squares. One row per grid, run,
    settings and checkpoint; both are NaN where the run has diverged.
    """
    largest = spectrum[spectrum["which"] == "largest"]
    keys = [*RUN, "settings", "checkpoint", "step", "epoch"]
    squares = largest.drop_duplicates([*keys, "rank"]).assign(frobenius=lambda rows: rows["eigenvalue"] ** 2)
    norms = squares.groupby(keys, sort=False, dropna=False).agg(
        frobenius=("frobenius", lambda values: np.sqrt(values.sum(skipna=False))),
        num_eigenvalues=("frobenius", "size"),
        diverged=("diverged", "any"),
    )
    return norms.assign(num_eigenvalues=norms["num_eigenvalues"].where(~norms["diverged"])).reset_index()


def results_table(history: pd.DataFrame, spectrum: pd.DataFrame, *, validation_epoch: float) -> pd.DataFrame:
    """The poster's table: mean and standard deviation over seeds for each gamma, each rate, or what a grid varies.

    Args:
        history: one row per epoch of the runs.
        spectrum: their eigenvalues at the checkpoints "best" and "last", and the Frobenius norm of the whole Hessian
            there, if it was estimated.
        validation_epoch: the early epoch whose validation accuracy is shown.

    Returns:
        One row per data, model and label, with ``<quantity>_mean`` and ``<quantity>_std``; of a stochastic estimate
        ``<quantity>_error`` too, the largest standard error among the seeds. Diverged runs are counted in
        ``num_seeds`` and ``num_diverged`` but in no mean.
    """
    history, spectrum = with_columns("history", history), with_columns("spectrum", spectrum)
    runs = _measured_runs(history, validation_epoch).merge(_end_norms(spectrum), how="left", on=["grid", "run"])
    quantities, errors = QUANTITIES, []
    if "frobenius_norm" in spectrum:
        runs = runs.merge(_whole_norms(spectrum), how="left", on=["grid", "run"])
        quantities, errors = [*QUANTITIES, *WHOLE_NORMS], [f"{name}_error" for name in WHOLE_NORMS]
    runs.loc[runs["diverged"], [*quantities, *errors]] = np.nan
    groups = runs.groupby(["data", "model", "grid", "label"], sort=False)
    means, deviations = groups[quantities].mean(), groups[quantities].std()
    counts = groups.agg(
        setting=("setting", "first"),
        is_gamma=("is_gamma", "first"),
        is_rate=("is_rate", "first"),
        num_eigenvalues=("num_eigenvalues", "min"),
        num_seeds=("seed", "nunique"),
        num_diverged=("diverged", "sum"),
    )
    table = counts.join(means.add_suffix("_mean")).join(deviations.add_suffix("_std"))
    if errors:
        table = table.join(groups[errors].max())
    table = table.reset_index()
    table.insert(3, "grid", table.pop("grid"))
    return _poster_order(table).assign(validation_epoch=validation_epoch)


def _measured_runs(history: pd.DataFrame, validation_epoch: float) -> pd.DataFrame:
    # Where all runs ended before, there is no value; where they did not, it is none of the epochs looked at.
    if not np.isclose(history["epoch"], validation_epoch).any() and history["epoch"].max() > validation_epoch:
        raise ValueError(
            f"validation_epoch must be an epoch of the history, got {validation_epoch}; "
            f"the history ends at {history['epoch'].max():g}"
        )
    ours, axes = history.drop_duplicates(["grid", "run", "epoch"]), grid_axes(history)
    shown = [with_axis(ours[ours["grid"] == grid], axis) for grid, axis in axes.items()]
    return pd.DataFrame(
        [
            _measured(run.sort_values("epoch"), axis, validation_epoch)
            for of_grid, axis in zip(shown, axes.values(), strict=True)
            for _, run in of_grid.groupby("run")
        ]
    )


def _measured(run: pd.DataFrame, axis: Axis, validation_epoch: float) -> dict[str, Any]:
    first, last = run.iloc[0], run.iloc[-1]
    # argmax takes the first of equals, as the checkpoint "best" does: it is kept on an improvement only.
    best = run.iloc[_best(run)]
    early = run.loc[np.isclose(run["epoch"], validation_epoch), "validation_accuracy"]
    setting = first[axis.column]
    return {
        **{field: first[field] for field in RUN},
        "setting": setting,
        "is_gamma": axis.field == "gamma",
        "is_rate": axis.field == "learning_rate",
        "label": _label(first, axis),
        "test_accuracy": best["test_accuracy"],
        "validation_accuracy": early.iloc[0] if len(early) else np.nan,
        "training_loss": last["training_loss"],
        "distance": best["distance"],
        "diverged": bool(run["diverged"].any()),
    }


def _label(run: pd.Series, axis: Axis) -> str:
    """``0.1`` for a gamma, ``SGD(0.05)`` for a learning rate, ``beta2 0.9`` for anything else."""
    value = in_text(run[axis.column])
    if axis.field == "gamma":
        return value
    if axis.field != "learning_rate":
        return value if axis.field in MAPPINGS else f"{axis.words} {value}"
    name = json.loads(run.get("optimizer", EMPTY)).get("name", "SGD")
    return f"{name}({value})" if run["gamma"] == 1 else f"γ {run['gamma']:g}, {name}({value})"


def _best(run: pd.DataFrame) -> int:
    """The row of the best validation accuracy; of the lowest validation loss, where the loss has no accuracy."""
    if run["validation_accuracy"].notna().any() or "validation_loss" not in run:
        return int(run["validation_accuracy"].fillna(-1).to_numpy().argmax())
    return int(run["validation_loss"].fillna(np.inf).to_numpy().argmin())


def _end_norms(spectrum: pd.DataFrame) -> pd.DataFrame:
    norms = frobenius(spectrum).sort_values("num_eigenvalues")
    # Of two settings that looked at the same checkpoint, the one with more eigenvalues is nearer to the norm.
    ends = norms.drop_duplicates(["grid", "run", "checkpoint"], keep="last").set_index(["grid", "run"])
    best, last = ends[ends["checkpoint"] == "best"], ends[ends["checkpoint"] == "last"]
    return pd.DataFrame(
        {
            "frobenius_best": best["frobenius"],
            "frobenius_last": last["frobenius"],
            "num_eigenvalues": best["num_eigenvalues"],
        }
    ).reset_index()


def _whole_norms(spectrum: pd.DataFrame) -> pd.DataFrame:
    norms = spectrum.dropna(subset="frobenius_norm").drop_duplicates(["grid", "run", "checkpoint"])
    ends = norms.set_index(["grid", "run", "checkpoint"])[["frobenius_norm", "frobenius_error"]].unstack("checkpoint")
    columns = {
        f"whole_frobenius_{end}{suffix}": ends.get((column, end), np.nan)
        for end in ("best", "last")
        for column, suffix in (("frobenius_norm", ""), ("frobenius_error", "_error"))
    }
    return pd.DataFrame(columns, index=ends.index).reset_index()


def _poster_order(table: pd.DataFrame) -> pd.DataFrame:
    # Gammas ascending, then the grids of plain SGD: the largest rate, and the others ascending.
    parts = []
    for _, of_grid in table.assign(after=~table["is_gamma"]).groupby(["data", "model", "after", "grid"]):
        if pd.api.types.is_numeric_dtype(numbers := of_grid["setting"].infer_objects()):
            is_first = of_grid["is_rate"] & (numbers == numbers.max())
            of_grid = of_grid.assign(later=~is_first, setting=numbers).sort_values(["later", "setting"])
        parts.append(of_grid)
    ordered = pd.concat(parts).assign(setting=lambda rows: rows["setting"].infer_objects())
    return ordered[[column for column in table if column not in ("is_gamma", "is_rate")]].reset_index(drop=True)
