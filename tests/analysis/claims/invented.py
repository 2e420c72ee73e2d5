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


BATCHES = ("8", "64", "512")


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


def history_rows(validation, test, *, losses=None, diverged=False, **run):
    """Accuracies in per cent and training losses, by default all 0.1, at epochs 0, 1, 2, ..."""
    rows = [
        {
            "step": 10 * epoch,
            "epoch": epoch,
            "validation_accuracy": accuracy / 100,
            "test_accuracy": tested / 100,
            "training_loss": 0.1 if losses is None else losses[epoch],
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


def along(setting, values, strengths, course_of):
    """A spectrum of one run per seed and setting; ``course_of`` makes it of the strength and the setting's place."""
    parts = [
        spectrum_rows(course_of(strength, place), grid=setting, seed=seed, **{setting: value})
        for seed, strength in enumerate(strengths)
        for place, value in enumerate(values)
    ]
    return [("eigenvalues", "spectrum", together(*parts))]


def heights_along(setting, values, strengths, *, rises=False):
    """Peaks that become lower (or higher) by a decade times the strength from one setting to the next."""
    sign = 1 if rises else -1
    return along(setting, values, strengths, lambda strength, place: course(100 * 10 ** (sign * strength * place)))


def peak_time(strength, place):
    """Epochs 7, 5, 3 where the strength is near one, the other way round where it is near minus one."""
    return 5 - 2 * round(strength) * (place - 1)


def times_along(setting, values, strengths, *, rises=False):
    """Peaks that become earlier (or later) with the strength from one setting to the next."""
    sign = -1 if rises else 1
    return along(setting, values, strengths, lambda strength, place: course(100, at=peak_time(sign * strength, place)))


def second_peaks(strengths, settings=("learning_rate", "batch_size")):
    """Both eigenvalues peak lower and earlier with the strength, along the rates and from large to small batches."""
    axes = {"learning_rate": (RATES, 1), "batch_size": (BATCHES, -1)}
    return [
        table
        for setting in settings
        for table in along(
            setting,
            axes[setting][0],
            strengths,
            lambda strength, place, sign=axes[setting][1]: course(
                100 * 10 ** (-sign * strength * place), at=peak_time(sign * strength, place)
            ),
        )
    ]


def bowls(strengths):
    """In every seed four slices after epoch 2, bowls where the strength is positive; before it, there are none."""
    slope, parts = [10.0 - k for k in KS], []
    for seed, strength in enumerate(strengths):
        bowl = [1 + (1 + 0.1 * seed) * k**2 / 10 for k in KS]
        early, late = (slope, bowl) if strength > 0 else (bowl, slope)
        parts += [slice_rows(early, epoch=epoch, seed=seed) for epoch in (0, 1)]
        parts += [slice_rows(late, epoch=epoch, seed=seed) for epoch in (2, 2.5, 3, 4)]
    return [("slices", "slices", together(*parts))]


def scaled_steps(changes):
    return lambda strengths: [
        ("steps", "steps", together(*(step_rows(changes(value), seed=seed) for seed, value in enumerate(strengths))))
    ]


def parabola(best):
    """Changes in per cent along a parabola with its minimum at ``best``."""
    return {alpha: 3 * (alpha**2 - 2 * best * alpha) for alpha in (0.5, 1, 2)}


def variants_of(name, sign, *, losses=(1.0, 1.0, 1.0)):
    """A variant that is sharper or flatter than SGD by the strength, in decades."""

    def tables(strengths):
        parts = []
        for seed, strength in enumerate(strengths):
            parts.append(variant_rows("sgd", 10.0, 0.5, seed=seed))
            parts.append(variant_rows(name, 10 ** (1 + sign * strength), 0.5 * losses[seed], seed=seed))
        return [("variants", "variants", together(*parts))]

    return tables


LOSSES = [2.0, 1.0, 0.5]  # of every nudged run, at its three epochs


def nudged_norms(gammas, decades):
    """Norms at gamma 1 and at others; the one that counts is the first, at the last of three epochs."""

    def tables(strengths):
        spectra, histories = [], []
        for seed, strength in enumerate(strengths):
            for gamma in (1.0, *gammas):
                value = 20 * 10 ** decades(strength) if gamma == gammas[0] else 20.0 if gamma == 1 else 21.0
                run = {"gamma": gamma, "grid": "gamma", "seed": seed}
                spectra.append(spectrum_rows([1.0, 50.0, value], **run))
                histories.append(history_rows([9] * 3, [9] * 3, losses=LOSSES, **run))
        return [("nudged", "spectrum", together(*spectra)), ("nudged", "history", together(*histories))]

    return tables


def nudged_accuracies(*, best=lambda _: 0.0, last=lambda _: 0.0, early=lambda _: 0.0):
    """Accuracies of gamma 0.01, 0.1 and 1 over ten epochs: by validation the fourth is the best; 1 and 2 are early."""

    def tables(strengths):
        parts = []
        for seed, strength in enumerate(strengths):
            for gamma in (0.01, 0.1, 1.0):
                at_best, at_last, first = (
                    (change(strength) if gamma == 0.01 else 0.0) for change in (best, last, early)
                )
                validation = [1, 40 + seed + 2 * first, 60, 70, 90, *[90] * 6]
                test = [9] * 4 + [80 + seed + at_best] + [9] * 5 + [70 + seed + at_last]
                parts.append(history_rows(validation, test, gamma=gamma, grid="gamma", seed=seed))
        return [("nudged", "history", together(*parts))]

    return tables


def final_eigenvalues(strengths):
    """Larger rates end flatter by a decade times the strength from one to the next."""
    return along("learning_rate", RATES, strengths, lambda strength, place: [1.0, 1e3, 10 ** (-strength * place)])


def widths_along(strengths):
    """Slices that have risen by 0.1 at k = 1, so that the width is the scale."""
    vees = [1 + 0.1 * abs(k) for k in KS]
    parts = []
    for setting, values in (("learning_rate", RATES), ("batch_size", BATCHES[::-1])):
        for seed, strength in enumerate(strengths):
            for index, value in enumerate(values):
                scale = 10 ** (strength * index)
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


def ends_of_runs(*, sharpness, accuracy, losses, seeds=(0, 1, 2)):
    """Runs of some seeds with these last eigenvalues, test accuracies in per cent and training losses."""
    spectra, histories = [], []
    for seed in seeds:
        for index, (value, tested, loss) in enumerate(zip(sharpness(seed), accuracy(seed), losses, strict=True)):
            run = {"grid": "run", "learning_rate": 0.1 / 2**index, "seed": seed}
            spectra.append(spectrum_rows([1.0, value], **run))
            histories.append(history_rows([10, 10], [5, tested], losses=[2.0, loss], **run))
    return [("eigenvalues", "spectrum", together(*spectra)), ("eigenvalues", "history", together(*histories))]


def flat_runs_generalise(strengths):
    """Eight pairs of runs a seed, each of one training loss: the flatter is the better, but in one pair or in two."""
    pairs = np.repeat(np.arange(8), 2)
    is_sharper = np.tile([0, 1], 8)

    def accuracy(seed):
        follows = np.where(pairs >= 1 + (seed == 2), 1, -1) * math.copysign(1, strengths[seed])
        return 90 - 5 * pairs - follows * is_sharper

    return ends_of_runs(
        sharpness=lambda _: 10.0 + 2 * pairs + is_sharper,
        accuracy=accuracy,
        losses=0.1 + 0.1 * pairs,
        seeds=range(len(strengths)),
    )


def declining_courses(strengths):
    """Three configurations that rise tenfold, fall to half, and on by 0.1 decades times the strength an epoch."""

    def course_of(strength, place):
        peak = (10.0 + strength) * (place + 1)
        return [1.0, peak, *(0.5 * peak * 10 ** (-0.1 * strength * epoch) for epoch in range(8))]

    return along("learning_rate", RATES, strengths, course_of)


def rows_of(tables, claim):
    table = decide(collected(tables))
    return table[table["claim"] == claim].to_dict("records")


def verdict_of(tables, claim):
    (row,) = rows_of(tables, claim)
    return row


def with_seeds(tables, shift):
    """The same tables of other seeds, and runs of other names."""
    return [
        (kind, name, table.assign(seed=table["seed"] + shift, run=table["run"] + f"-shift{shift}"))
        for kind, name, table in tables
    ]


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
    holds = STRENGTHS["holds"]
    return [
        *second_peaks(holds),
        *bowls(holds),
        *widths_along(holds),
        *scaled_steps(lambda s: parabola(10 ** (-0.2 * s)))(holds),
        *variants_of("top_only", -1)(holds),
        *variants_of("top_removed", 1)(holds),
        *nudged_norms((0.1, 10.0), lambda s: s)(holds),
        *nudged_accuracies(early=lambda s: s)(holds),
        *schedules_of(holds),
        # Their rates stand for nothing but their names.
        *(("schedules", name, table) for _, name, table in flat_runs_generalise(holds)),
        *table_of_results({("sgd", 0.5): 1.0, ("sgd", 0.05): 9.0, ("gamma", 1.0): 5.0, ("gamma", 0.1): 20.0}),
    ]
