"""Invented tables of measurements, in which the seeds show a claim as strongly as one wants."""

import math

import numpy as np
import pandas as pd

from sharpness.analysis.claims.collected import collected
from sharpness.analysis.claims.deciding import decide

RUN = {
    "experiment": "invented",
    "grid": "run",
    "data": "digits",
    "num_training": 1300,
    "augment": False,
    "model": "simple_cnn",
    "padding": "alternating",
    "init_scale": np.nan,
    "learning_rate": 0.1,
    "learning_rate_epochs": "",
    "learning_rate_factor": 0.0,
    "batch_size": "32",
    "momentum": 0.0,
    "l2": 0.0,
    "precision": "float32",
    "gamma": 1.0,
    "gamma_outside": 1.0,
    "epochs": 10,
    "seed": 0,
}


RATES = (0.1, 0.2, 0.4)


BATCHES = ("full", "128", "8")  # from the largest to the smallest


KS = (-8, -4, -2, -1, 0, 1, 2, 4, 8)


LETTERS = list("abcdefghijklmnopqrst")


ANSWERS = ("holds", "does not hold", "undecided")


# How strongly each seed shows a claim: a positive number is what the poster says.
STRENGTHS = {"holds": [1.0, 1.1, 0.9], "does not hold": [-1.0, -1.1, -0.9], "undecided": [1.0, -1.0, 0.2]}


def fields(**changed):
    run = {**RUN, **changed}
    named = {key: value for key, value in changed.items() if key not in ("grid", "experiment", "epochs")}
    return run | {"run": "-".join(f"{key}{value}" for key, value in sorted(named.items())) or "run"}


def spectrum_rows(largest, *, epochs=None, share=0.5, checkpoint="planned", settings="leading", **run):
    """The largest eigenvalue at some epochs, by default 0, 1, 2, ...; the second is a share of it, the smallest -1."""
    rows = []
    for epoch, value in zip(range(len(largest)) if epochs is None else epochs, largest, strict=True):
        place = {"settings": settings, "checkpoint": checkpoint, "step": round(10 * epoch), "epoch": float(epoch)}
        values = [("largest", 0, value)]
        # Where a run diverged, its table has one row.
        place["diverged"] = not np.isfinite(value)
        values += [] if place["diverged"] else [("largest", 1, share * value), ("smallest", 0, -1.0)]
        rows += [{**place, "which": which, "rank": rank, "eigenvalue": number} for which, rank, number in values]
    return pd.DataFrame([fields(**run) | row for row in rows])


def history_rows(validation, test, *, diverged=False, **run):
    """Accuracies in per cent at epochs 0, 1, 2, ..."""
    rows = [
        {
            "step": 10 * epoch,
            "epoch": epoch,
            "validation_accuracy": accuracy / 100,
            "test_accuracy": tested / 100,
            "training_loss": 0.1,
            "diverged": diverged and epoch == len(test) - 1,
        }
        for epoch, (accuracy, tested) in enumerate(zip(validation, test, strict=True))
    ]
    return pd.DataFrame([fields(**run) | row for row in rows])


def slice_rows(losses, *, epoch, ks=KS, scale=1.0, **run):
    place = {"settings": "top", "checkpoint": "planned", "step": round(10 * epoch), "epoch": float(epoch)}
    place["diverged"] = not all(np.isfinite(loss) for k, loss in zip(ks, losses, strict=True) if k == 0)
    rows = [{**place, "k": k, "loss": loss, "scale": scale} for k, loss in zip(ks, losses, strict=True)]
    return pd.DataFrame([fields(**run) | row for row in rows])


def step_rows(changes, **run):
    """Changes in per cent by alpha, as the mean over two checkpoints and two batches; other directions say else."""
    rows = [
        {
            "step": 10 * epoch,
            "epoch": float(epoch),
            "settings": "scaled",
            "checkpoint": "planned",
            "direction": direction,
            "alpha": alpha,
            "batch": batch,
            "diverged": False,
            "loss_before": 2.0,
            "loss_after": 2 * (1 + (change + offset) / 100) if direction == "top" else 77.0,
        }
        for alpha, change in changes.items()
        for direction in ("random", "top", "full")
        for epoch, batch, offset in ((1, 0, -3.0), (1, 1, 1.0), (2, 0, 0.5), (2, 1, 1.5))
    ]
    return pd.DataFrame([fields(**run) | row for row in rows])


def variant_rows(name, eigenvalue, loss, *, diverged=False, **run):
    """Measured anew at every tenth of a hundred steps: over the last quarter the values are means, before it 99."""
    place = {"settings": name, "checkpoint": "planned", "start_step": 40, "epoch": 4.0, "diverged": False}
    factors = {80: 2.0, 90: 0.5, 100: 0.5}
    rows = [
        {
            **place,
            "step": step,
            "eigenvalue": eigenvalue * factors[step] if step > 75 else 99.0,
            "loss": loss * factors[step] if step > 75 else 99.0,
        }
        for step in range(0, 101, 10)
    ]
    # In between the eigenvector is followed, and the loss is not looked at.
    rows += [{**place, "step": 85, "eigenvalue": 1e6, "loss": np.nan}]
    if diverged:
        rows = [*rows[:3], {**place, "step": 31, "eigenvalue": np.nan, "loss": np.nan, "diverged": True}]
    return pd.DataFrame([fields(**run) | row for row in rows])


def together(*parts):
    return pd.concat(parts, ignore_index=True)


def course(height, *, at=3, num=11):
    """From a fifth of the peak to it, at the epoch ``at``, and to a third of it."""
    return [0.2 * height if epoch == 0 else height if epoch == at else 0.3 * height for epoch in range(num)]


def peaks_along(setting, values, strengths, *, quantity):
    """Peaks that become lower, or earlier, by the strength from one setting to the next, in both eigenvalues."""
    parts = []
    for seed, strength in enumerate(strengths):
        for index, value in enumerate(values):
            height = 100 * math.exp(-strength * index) if "height" in quantity else 100
            at = 5 - 2 * round(strength) * index if "time" in quantity else 3
            parts.append(spectrum_rows(course(height, at=at), grid=setting, seed=seed, **{setting: value}))
    return [("eigenvalues", "spectrum", together(*parts))]


def second_peaks(strengths):
    parts = []
    for setting, values in (("learning_rate", RATES), ("batch_size", BATCHES)):
        parts += peaks_along(setting, values, strengths, quantity=("height", "time"))
    return parts


def bowls(strengths):
    """In every seed four slices after epoch 2, bowls where the strength is positive; before it, there are none."""
    bowl, slope = [k**2 for k in KS], [-k for k in KS]
    return [
        (
            "slices",
            "slices",
            together(
                *(slice_rows(slope if strength > 0 else bowl, epoch=epoch, seed=seed) for epoch in (0, 1)),
                *(slice_rows(bowl if strength > 0 else slope, epoch=epoch, seed=seed) for epoch in (2, 2.5, 3, 4)),
            ),
        )
        for seed, strength in enumerate(strengths)
    ]


def scaled_steps(changes):
    return lambda strengths: [
        ("steps", "steps", together(*(step_rows(changes(value), seed=seed) for seed, value in enumerate(strengths))))
    ]


def variants_of(name, sign, *, losses=(1.0, 1.0, 1.0)):
    def tables(strengths):
        parts = []
        for seed, strength in enumerate(strengths):
            parts.append(variant_rows("sgd", 10.0, 0.5, seed=seed))
            parts.append(variant_rows(name, 10 * math.exp(sign * strength), 0.5 * losses[seed], seed=seed))
        return [("variants", "variants", together(*parts))]

    return tables


def nudged_norms(gammas, log_ratio):
    """Norms at gamma 1 and at others; the one that counts is the first, at the last of three epochs."""

    def tables(strengths):
        parts = []
        for seed, strength in enumerate(strengths):
            parts.append(spectrum_rows([1.0, 50.0, 20.0], gamma=1.0, grid="gamma", seed=seed))
            for gamma in gammas:
                value = 20 * math.exp(log_ratio(strength)) if gamma == gammas[0] else 21.0
                parts.append(spectrum_rows([1.0, 3.0, value], gamma=gamma, grid="gamma", seed=seed))
        return [("nudged", "spectrum", together(*parts))]

    return tables


def nudged_accuracies(*, tested=lambda _: 0.0, early=lambda _: 0.0):
    """Accuracies of gamma 0.01, 0.1 and 1; the best validation accuracy is in the middle, the early one at epoch 1."""

    def tables(strengths):
        parts = []
        for seed, strength in enumerate(strengths):
            for gamma in (0.01, 0.1, 1.0):
                test = 80 + seed + (tested(strength) if gamma == 0.01 else 0)
                first = 50 + seed + (early(strength) if gamma == 0.01 else 0)
                rows = history_rows([9, first, 90, 90], [9, 9, test, 1], gamma=gamma, grid="gamma", seed=seed)
                parts.append(rows)
        return [("nudged", "history", together(*parts))]

    return tables


def final_eigenvalues(strengths):
    """The largest rate ends below the flattest of the others by the strength."""
    parts = []
    for seed, strength in enumerate(strengths):
        for rate, value in zip(RATES, (12.0, 10.0, 10 * math.exp(-strength)), strict=True):
            parts.append(spectrum_rows([1.0, 100.0, value], grid="learning_rate", learning_rate=rate, seed=seed))
    return [("eigenvalues", "spectrum", together(*parts))]


def widths_along(strengths):
    """Slices that have risen by half at k = 1, so that the width is the expected step."""
    vees = [1 + 0.5 * abs(k) for k in KS]
    parts = []
    for setting, values in (("learning_rate", RATES), ("batch_size", BATCHES)):
        for seed, strength in enumerate(strengths):
            for index, value in enumerate(values):
                scale = math.exp(strength * index)
                run = {"grid": setting, "seed": seed, "learning_rate": 0.3, setting: value}
                parts += [slice_rows(vees, epoch=epoch, scale=scale, **run) for epoch in (2, 3)]
                parts.append(slice_rows(vees, epoch=1, scale=100.0, **run))
    return [("widths", "slices", together(*parts))]


def schedules_of(strengths, *, factor=10.0, late=2.0):
    """A change at 1 or at 7 of 10 epochs: for three epochs the eigenvalue is off by 2 + strength, and by 2 decades."""
    parts = []
    for seed, strength in enumerate(strengths):
        run = {"seed": seed, "learning_rate_factor": factor}
        parts.append(spectrum_rows([10.0] * 11, seed=seed))
        away = {1: late + strength, 7: late}
        for change, decades in away.items():
            sign = 1 if seed % 2 else -1
            courses = [
                10.0 if epoch <= change else 10.0 ** (1 + sign * decades) if epoch <= change + 3 else 1e30
                for epoch in range(11)
            ]
            parts.append(spectrum_rows(courses, learning_rate_epochs=f"{change}", **run))
    return [("schedules", "spectrum", together(*parts))]


def ends_of_runs(accuracies):
    """Twelve runs of two seeds whose last eigenvalue doubles from run to run, with the given test accuracies."""
    spectra, histories = [], []
    for index, accuracy in enumerate(accuracies):
        run = {"grid": "learning_rate", "learning_rate": 0.1 / 2 ** (index // 2), "seed": index % 2}
        spectra.append(spectrum_rows([1.0, 2.0**index], **run))
        histories.append(history_rows([10, 10], [5, accuracy], **run))
    return [("eigenvalues", "spectrum", together(*spectra)), ("eigenvalues", "history", together(*histories))]


def runs_of_courses(courses):
    """A run for each course of the largest eigenvalue, at three learning rates in turn, and two seeds."""
    parts = [
        spectrum_rows(values, grid="learning_rate", learning_rate=RATES[index % 3] * (1 + index // 6), seed=index % 2)
        for index, values in enumerate(courses)
    ]
    return [("eigenvalues", "spectrum", together(*parts))]


FOLLOWS = [1.0, 4.0, 3.0, 2.0, 2.0]


def rows_of(tables, claim, *, validation_epoch=1):
    table = decide(collected(tables), validation_epoch=validation_epoch)
    return table[table["claim"] == claim].to_dict("records")


def verdict_of(tables, claim, **settings):
    (row,) = rows_of(tables, claim, **settings)
    return row


ABOUT_TEN = math.log(10) / 2


def table_of_results(ends, seeds=(0, 1, 2)):
    """Norms of plain SGD at three rates and of three gammas, at the last checkpoint of a table of results."""
    parts = []
    for seed in seeds:
        for (grid, setting), value in ends.items():
            run = {"grid": grid, "learning_rate": setting} if grid == "sgd" else {"grid": grid, "gamma": setting}
            value = value * (1 + 0.01 * seed * (1 + setting))
            parts += [
                spectrum_rows([99.0], epochs=[2], checkpoint="best", seed=seed, **run),
                spectrum_rows([value], epochs=[8], checkpoint="last", seed=seed, **run),
            ]
    return [("table", "spectrum", together(*parts))]


def whole_study():
    return [
        *peaks_along("learning_rate", RATES, STRENGTHS["holds"], quantity=("height", "time")),
        *peaks_along("batch_size", BATCHES, STRENGTHS["holds"], quantity=("height", "time")),
        *bowls(STRENGTHS["holds"]),
        *widths_along(STRENGTHS["holds"]),
        *scaled_steps(lambda s: {0.5: -s, 1: -0.5, 2: s})(STRENGTHS["holds"]),
        *variants_of("top_only", -1)(STRENGTHS["holds"]),
        *variants_of("top_removed", 1)(STRENGTHS["holds"]),
        *nudged_norms((0.1, 10.0), lambda s: 2 * s)(STRENGTHS["holds"]),
        *nudged_accuracies(early=lambda s: s)(STRENGTHS["holds"]),
        *schedules_of(STRENGTHS["holds"]),
        *ends_of_runs(np.linspace(90, 60, 12)),
        *table_of_results({("sgd", 0.5): 1.0, ("sgd", 0.05): 9.0, ("gamma", 1.0): 5.0, ("gamma", 0.1): 20.0}),
    ]
