"""Invented tables that look like a study's, and what a figure has drawn of them."""

import io

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sharpness.analysis.figures.style import style
from sharpness.study.records import columns_of

STEPS_PER_EPOCH = 10


EPOCHS = np.array([0, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.3, 1.6, 2, *range(3, 31)])


KS = np.array([0, 0.25, 0.5, 1, 2, 4, 8, 16])


def run_fields(seed=0, **changes):
    fields = {
        "experiment": "made up",
        "grid": "main",
        "settings": "default",
        "data": "digits",
        "num_training": 1300,
        "model": "simple_cnn",
        "learning_rate": 0.05,
        "batch_size": 32,
        "momentum": 0.0,
        "l2": 0.0,
        "gamma": 1.0,
        "gamma_outside": 1.0,
        "num_directions": 0,
        "epochs": 30,
        "plateau_patience": None,
        "seed": seed,
        **changes,
    }
    parts = ("data", "model", "learning_rate", "batch_size", "gamma", "seed")
    return {**fields, "run": "-".join(str(fields[part]) for part in parts)}


def curvature(fields, epochs=EPOCHS):
    """A rise to about 1.6 / learning_rate, later and higher for small rates and large batches, then a decay."""
    rate, batch_size = fields["learning_rate"], 1300 if fields["batch_size"] == "full" else int(fields["batch_size"])
    top = 1.6 / rate * (batch_size / 1300) ** 0.25 * fields["gamma"] ** -0.5
    peak = 0.06 / rate * (batch_size / 32) ** 0.3
    rise = np.clip(np.asarray(epochs) / peak, 0, None)
    noise = np.exp(0.06 * np.random.default_rng(fields["seed"]).normal(size=len(epochs)))
    return (4 + top * rise * np.exp(1 - rise) + 0.4 * top * rise / (3 + rise)) * noise


def spectrum_frame(runs, num_eigenvalues=2, diverge_after=None):
    rows = []
    for fields in runs:
        for epoch, largest in zip(EPOCHS, curvature(fields), strict=True):
            place = {**fields, "step": round(epoch * STEPS_PER_EPOCH), "epoch": epoch, "checkpoint": "planned"}
            place["diverged"] = diverge_after is not None and fields["seed"] == 0 and epoch > diverge_after
            if place["diverged"]:
                # One row says that nothing could be measured.
                rows.append({**place, "which": "largest", "rank": 0, "eigenvalue": np.nan, "residual": np.nan})
                continue
            for rank in range(num_eigenvalues):
                value = largest / (1 + 0.4 * rank) ** 1.2
                rows.append({**place, "which": "largest", "rank": rank, "eigenvalue": value, "residual": 1e-4})
            rows.append({**place, "which": "smallest", "rank": 0, "eigenvalue": -1.0, "residual": 1e-4})
    return pd.DataFrame(rows)


def history_frame(runs, diverge_after=None):
    rows = []
    for fields in runs:
        rng = np.random.default_rng(fields["seed"])
        for epoch in range(31):
            diverged = diverge_after is not None and fields["seed"] == 0 and epoch > diverge_after
            accuracy = 0.1 + 0.85 * (1 - np.exp(-epoch / (3 + 2 * np.log10(fields["gamma"] + 0.05) + 2)))
            accuracy += 0.008 * rng.normal()
            rows.append(
                {
                    **fields,
                    "step": epoch * STEPS_PER_EPOCH,
                    "epoch": float(epoch),
                    "training_loss": np.nan if diverged else 2.3 * np.exp(-epoch / 5),
                    "validation_accuracy": np.nan if diverged else accuracy,
                    "test_accuracy": np.nan if diverged else accuracy - 0.01,
                    "distance": epoch / 10,
                    "diverged": diverged,
                    "num_direction_products": 0,
                }
            )
    return pd.DataFrame(rows)


def density_frame(runs, diverge_after=None):
    rows = []
    for fields in runs:
        rng = np.random.default_rng(fields["seed"])
        for epoch in (0.0, 2.0, 10.0, 30.0):
            place = {**fields, "step": round(epoch * STEPS_PER_EPOCH), "epoch": epoch}
            place["diverged"] = diverge_after is not None and fields["seed"] == 0 and epoch >= diverge_after
            if place["diverged"]:
                rows.append({**place, "quantity": "trace"})
                break
            top = float(curvature(fields, [epoch])[0])
            for probe in range(2):
                nodes = np.sort(np.append(0.05 * top * rng.normal(size=25), top * np.array([1, 0.7, 0.4, 0.3])))[::-1]
                weights = rng.dirichlet(np.where(abs(nodes) < 0.2 * top, 5, 1e-3))
                rows += [
                    {**place, "quantity": "node", "probe": probe, "value": node, "weight": weight}
                    for node, weight in zip(nodes, weights, strict=True)
                ]
            rows += [
                {**place, "quantity": "eigenvalue", "value": part * top, "residual": 1e-4} for part in (1, 0.7, 0.4)
            ]
            rows.append({**place, "quantity": "trace", "value": 3 * top, "standard_error": 0.04 * top})
            rows.append({**place, "quantity": "frobenius_norm", "value": 1.3 * top, "standard_error": 0.001 * top})
    columns = ["probe", "value", "weight", "residual", "standard_error"]
    return pd.DataFrame(rows).reindex(columns=[*runs[0], "step", "epoch", "diverged", "quantity", *columns])


def slices_frame(runs, diverge_after=None):
    rows = []
    for fields in runs:
        rng = np.random.default_rng(fields["seed"])
        for epoch, largest in zip(EPOCHS, curvature(fields), strict=True):
            scale = 0.02 + 0.1 / (1 + 0.2 * largest)
            sign = rng.choice([-1, 1])
            for k in sorted({*KS, *-KS}):
                move = sign * k * scale
                here = 0.02 + 2.3 * np.exp(-epoch / 3)
                loss = here + 0.5 * largest * move**2 / (1 + abs(move)) - move * 1.2 * np.exp(-epoch)
                diverged = diverge_after is not None and epoch > diverge_after
                loss = np.nan if diverged else loss
                place = {"step": round(epoch * STEPS_PER_EPOCH), "epoch": epoch, "diverged": diverged, "k": k}
                rows.append({**fields, **place, "loss": loss, "scale": scale, "eigenvalue": largest, "residual": 1e-4})
    return pd.DataFrame(rows)


def steps_frame(runs, diverge_after=None):
    rows = []
    for fields in runs:
        rng = np.random.default_rng(fields["seed"])
        for epoch in EPOCHS:
            before = 0.05 + 2.2 * np.exp(-epoch / 4)
            early = np.exp(-epoch)
            for direction, size in {"top": 0.04, "random": 1e-5, "full": 0.03}.items():
                for alpha in (0.5, 1.0, 2.0):
                    for batch in range(10):
                        gain = (
                            (alpha**2 - 1.1 * alpha) * (1 - early) - 0.5 * alpha * early + 0.15 * alpha * rng.normal()
                        )
                        after = before * (1 + size * gain)
                        after = np.nan if diverge_after is not None and epoch > diverge_after else after
                        place = {"step": round(epoch * STEPS_PER_EPOCH), "epoch": epoch, "direction": direction}
                        place["diverged"] = False
                        rows.append(
                            {
                                **fields,
                                **place,
                                "alpha": alpha,
                                "batch": batch,
                                "loss_before": before,
                                "loss_after": after,
                            }
                        )
    return pd.DataFrame(rows)


def variants_frame(runs, diverge_after=None):
    rows = []
    slopes = {"sgd": (-1, -0.5), "top_only": (-0.05, -1.5), "constant_top": (-0.04, -0.8), "top_removed": (-0.95, 1.5)}
    for fields in runs:
        rng = np.random.default_rng(fields["seed"])
        for variant, (loss_slope, curvature_slope) in slopes.items():
            for step in range(0, 1000, 4):
                diverged = diverge_after is not None and variant == "top_removed" and step > diverge_after
                loss = 1.2 * np.exp(loss_slope * step / 800) * np.exp(0.02 * rng.normal())
                largest = 160 * np.exp(curvature_slope * (1 - np.exp(-step / 300))) * np.exp(0.05 * rng.normal())
                rows.append(
                    {
                        **fields,
                        "settings": variant,
                        "start_step": 160,
                        "step": step,
                        "loss": loss if step % 20 == 0 and not diverged else np.nan,
                        "eigenvalue": np.nan if diverged else largest,
                        "direction_age": 0,
                        "diverged": diverged,
                    }
                )
    return pd.DataFrame(rows)


def gradients_frame(runs, diverge_after=None):
    rows = []
    for fields in runs:
        rng = np.random.default_rng(fields["seed"])
        before = np.nan
        for epoch, largest in zip(EPOCHS, curvature(fields), strict=True):
            place = {**fields, "step": round(epoch * STEPS_PER_EPOCH), "epoch": epoch, "num_eigenvalues": 5}
            place["diverged"] = diverge_after is not None and fields["seed"] == 0 and epoch > diverge_after
            if place["diverged"]:
                rows.append(place)
                break
            measured = {
                "learning_rate_now": fields["learning_rate"],
                "eigenvalue": largest,
                "rate_times_eigenvalue": fields["learning_rate"] * largest,
                "fraction_inside": rng.uniform(0.3, 0.8),
                "overlap": np.nan if np.isnan(before) else rng.uniform(0.5, 1),
                "batch_sharpness": 1.2 * largest,
                "noise_largest": 0.1 * largest,
                "noise_trace": 0.4 * largest,
            }
            rows.append({**place, **measured})
            before = largest
    columns = ["rate_times_eigenvalue", "fraction_inside", "overlap", "noise_largest", "noise_trace", "eigenvalue"]
    columns += ["learning_rate_now", "batch_sharpness"]
    return pd.DataFrame(rows).reindex(columns=[*runs[0], "step", "epoch", "diverged", "num_eigenvalues", *columns])


def columns_frame(measurement):
    """A frame in which a measurement has some positive number in each of its columns."""

    def frame(runs, diverge_after=None):
        rows = []
        for fields in runs:
            rng = np.random.default_rng(fields["seed"])
            for epoch in EPOCHS:
                diverged = diverge_after is not None and fields["seed"] == 0 and epoch > diverge_after
                place = {"step": round(epoch * STEPS_PER_EPOCH), "epoch": epoch, "diverged": diverged}
                values = {column: np.nan if diverged else rng.uniform(0.1, 1) for column in columns_of(measurement)}
                rows.append({**fields, **place, **values})
        return pd.DataFrame(rows)

    return frame


def switched(runs):
    """Each run with a rate that never changes, that changes early, and late; lists as a table on disk has them."""
    return [
        fields | {"learning_rate_epochs": epochs, "learning_rate_factor": 0.1, "run": f"{fields['run']}-{epochs}"}
        for epochs in ("", "1", "15")
        for fields in runs
    ]


def sweep(seeds=(0, 1, 2), models=("simple_cnn",)):
    """The runs of the poster's two grids; the rate 0.05 with the batch 32 is in both."""
    rates = [{"grid": "learning_rate", "learning_rate": rate} for rate in (0.01, 0.05, 0.2)]
    sizes = [{"grid": "batch_size", "batch_size": size} for size in ("8", "32", "128", "full")]
    rates = [{**changes, "batch_size": "32"} for changes in rates]
    return [
        run_fields(seed=seed, model=model, **changes) for model in models for changes in rates + sizes for seed in seeds
    ]


def gammas(seeds=(0, 1, 2)):
    return [run_fields(seed=seed, grid="gamma", gamma=gamma) for gamma in (0.01, 0.1, 1.0, 5.0) for seed in seeds]


def two_models(seeds=(0,)):
    return [run_fields(seed=seed, model=model) for model in ("simple_cnn", "resnet32") for seed in seeds]


def lines(axes: Axes, **properties) -> list[Line2D]:
    """The lines of some style with more than one point."""
    drawn = [line for line in axes.get_lines() if len(line.get_xdata()) > 2]
    return [
        line for line in drawn if all(getattr(line, f"get_{name}")() == value for name, value in properties.items())
    ]


def crosses(axes: Axes) -> list[tuple[float, float]]:
    return [
        (float(line.get_xdata()[-1]), float(line.get_ydata()[-1]))
        for line in axes.get_lines()
        if line.get_marker() == "X"
    ]


def levels(axes: Axes) -> dict[str, float]:
    """The height of each line from one side of the panel to the other, by its colour."""
    return {
        line.get_color(): float(line.get_ydata()[0])
        for line in axes.get_lines()
        if list(line.get_xdata()) == [0, 1] and len(set(line.get_ydata())) == 1
    }


def legend_labels(figure: Figure) -> list[str]:
    """The entries of the legends of a figure and of its parts."""
    legends = [legend for part in [figure, *figure.subfigs] for legend in part.legends]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def titles(figure: Figure) -> str:
    parts = [*figure.subfigs, *(inner for part in figure.subfigs for inner in part.subfigs)]
    return "\n".join(part.get_suptitle() for part in parts)


def saved(figure: Figure) -> int:
    """The size of the figure as a PNG: drawing it in full would raise any warning."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=50)
    return len(buffer.getvalue())


def in_both(runs):
    """The runs in float32 and in bfloat16."""
    return [
        fields | {"precision": precision, "run": f"{fields['run']}-{precision}"}
        for precision in ("float32", "bfloat16")
        for fields in runs
    ]


# The row of a run that was lost before anything of it was measured: such a table has no other column.
LOST = {
    "spectrum": {"which": "largest", "rank": 0, "checkpoint": "planned"},
    "density": {"quantity": "trace"},
    "slices": {"k": 0.0},
    "steps": {"direction": "top", "alpha": 0.5, "batch": 0},
    "variants": {"settings": "sgd"},
    "gradients": {"num_eigenvalues": 5},
    "history": {"training_loss": np.nan, "validation_accuracy": np.nan, "distance": 1.0},
}


def lost(measurement, runs):
    epoch = float(measurement == "history")
    place = {"step": round(epoch * STEPS_PER_EPOCH), "epoch": epoch, "diverged": True}
    return pd.DataFrame([{**fields, **place, **LOST.get(measurement, {})} for fields in runs])


def spectrum_table(learning_rates=(0.1,), seeds=(0,), num_ranks=3, lost_from=None):
    rows = [
        {
            "grid": "run",
            "run": f"lr{rate}-seed{seed}",
            "data": "digits",
            "num_training": 1300,
            "model": "simple_cnn",
            "learning_rate": rate,
            "batch_size": 32,
            "gamma": 1.0,
            "seed": seed,
            "which": "largest",
            "checkpoint": "planned",
            "step": 10 * epoch,
            "epoch": float(epoch),
            "diverged": lost_from is not None and epoch >= lost_from,
            "rank": rank,
            "eigenvalue": np.nan if lost_from is not None and epoch >= lost_from else (epoch + 1 - rank) / rate,
            "residual": 1e-4 * (rank + 1),
        }
        for rate in learning_rates
        for seed in seeds
        for epoch in range(5)
        for rank in range(num_ranks)
    ]
    return pd.DataFrame(rows)


def slices_table(models=("simple_cnn",), lost_from=None):
    ks = [-16, -8, -2, 0, 2, 8, 16]
    rows = [
        {
            "run": model,
            "data": "digits",
            "num_training": 1300,
            "model": model,
            "learning_rate": 0.1,
            "batch_size": 32,
            "seed": 0,
            "step": 10 * epoch,
            "epoch": float(epoch),
            "diverged": lost_from is not None and epoch >= lost_from,
            "k": k,
            "loss": np.nan if lost_from is not None and epoch >= lost_from else 2 + 0.01 * (k + 1) ** 2 / (epoch + 1),
            "eigenvalue": 5.0 + epoch,
        }
        for model in models
        for epoch in range(4)
        for k in ks
    ]
    return pd.DataFrame(rows)


def frame_of(curves):
    """The largest eigenvalue of runs by rate and seed, at epochs 0, 1, 2, ..."""
    rows = [
        {
            **run_fields(seed, grid="learning_rate", learning_rate=rate),
            **{"which": "largest", "checkpoint": "planned", "rank": 0, "diverged": False, "residual": 1e-4},
            **{"step": 10 * epoch, "epoch": float(epoch), "eigenvalue": float(value)},
        }
        for (rate, seed), curve in curves.items()
        for epoch, value in enumerate(curve)
    ]
    return pd.DataFrame(rows)
