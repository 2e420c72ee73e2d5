"""The figures, judged by what they have drawn."""

import io
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sharpness.analysis.figures import interactive
from sharpness.analysis.figures.agreement import agreement
from sharpness.analysis.figures.density import density
from sharpness.analysis.figures.eigenvalues import eigenvalues
from sharpness.analysis.figures.gradients import gradients
from sharpness.analysis.figures.nudged import nudged
from sharpness.analysis.figures.palette import BLUE, GREEN, GREY, ORANGE, RED
from sharpness.analysis.figures.peaks import peaks
from sharpness.analysis.figures.runs import first_seeds
from sharpness.analysis.figures.schedules import schedules
from sharpness.analysis.figures.schematic import schematic
from sharpness.analysis.figures.slices import slices, smoothed, turned
from sharpness.analysis.figures.spectrum import spectrum
from sharpness.analysis.figures.steps import steps
from sharpness.analysis.figures.style import style
from sharpness.analysis.figures.variants import variants
from sharpness.analysis.figures.widths import widths
from sharpness.stages.figure import figure as figure_stage
from sharpness.study.kinds import INTERACTIVE, KINDS

STEPS_PER_EPOCH = 10
EPOCHS = np.array([0, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.3, 1.6, 2, *range(3, 31)])
KS = np.array([0, 0.25, 0.5, 1, 2, 4, 8, 16])


def run_fields(seed=0, **changes):
    fields = {
        "experiment": "made up",
        "grid": "main",
        "settings": "default",
        "data": "digits",
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
            if diverge_after is not None and fields["seed"] == 0 and epoch > diverge_after:
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
                    "direction_products": 0,
                }
            )
    return pd.DataFrame(rows)


def density_frame(runs, diverge_after=None):
    rows = []
    for fields in runs:
        rng = np.random.default_rng(fields["seed"])
        for epoch in (0.0, 2.0, 10.0, 30.0):
            place = {**fields, "step": round(epoch * STEPS_PER_EPOCH), "epoch": epoch}
            if diverge_after is not None and fields["seed"] == 0 and epoch >= diverge_after:
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
    return pd.DataFrame(rows).reindex(columns=[*runs[0], "step", "epoch", "quantity", *columns])


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
                loss = np.nan if diverge_after is not None and epoch > diverge_after else loss
                place = {"step": round(epoch * STEPS_PER_EPOCH), "epoch": epoch, "k": k}
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
            if diverge_after is not None and fields["seed"] == 0 and epoch > diverge_after:
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
    return pd.DataFrame(rows).reindex(columns=[*runs[0], "step", "epoch", "num_eigenvalues", *columns])


def switched(runs):
    """Each run with a rate that never changes, that changes early, and late; lists as a table on disk has them."""
    return [
        fields | {"learning_rate_epochs": epochs, "learning_rate_factor": 0.1, "run": f"{fields['run']}-{epochs}"}
        for epochs in ("[]", "[1]", "[15]")
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


def legend_labels(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


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


DRAWN = {
    "spectrum": lambda runs, end: spectrum(spectrum_frame(runs, 10, diverge_after=end)),
    "eigenvalues": lambda runs, end: eigenvalues(spectrum_frame(runs, diverge_after=end).assign(grid="learning_rate")),
    "peaks": lambda runs, end: peaks(spectrum_frame(runs, diverge_after=end).assign(grid="batch_size")),
    "density": lambda runs, end: density(density_frame(runs, diverge_after=end)),
    "slices": lambda runs, end: slices(slices_frame(runs, diverge_after=end)),
    "schematic": lambda runs, end: schematic(slices_frame(runs, diverge_after=end)),
    "widths": lambda runs, end: widths(slices_frame(runs, diverge_after=end).assign(grid="learning_rate")),
    "schedules": lambda runs, end: schedules(spectrum_frame(switched(runs), diverge_after=end)),
    "gradients": lambda runs, end: gradients(gradients_frame(runs, diverge_after=end)),
    "steps": lambda runs, end: steps(steps_frame(runs, diverge_after=end)),
    "variants": lambda runs, end: variants(variants_frame(runs, diverge_after=end)),
    "nudged": lambda runs, end: nudged(
        history_frame(runs, diverge_after=end).assign(grid="gamma"),
        spectrum_frame(runs, 5, diverge_after=end).assign(grid="gamma"),
    ),
    "agreement": lambda runs, end: agreement(
        spectrum_frame(in_both(runs), 5, diverge_after=end), history_frame(in_both(runs), diverge_after=end)
    ),
}


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize(
    ("runs", "diverge_after"),
    [
        pytest.param([run_fields()], None, id="one seed"),
        pytest.param([run_fields(0), run_fields(1)], 8, id="a diverged seed"),
        pytest.param([run_fields()], 0, id="diverged at once"),
        pytest.param(two_models(), None, id="two models"),
    ],
)
def test_every_figure_can_be_saved(name, runs, diverge_after):
    assert saved(DRAWN[name](runs, diverge_after)) > 5000


@pytest.mark.parametrize("name", DRAWN)
def test_a_run_that_was_lost_before_it_was_measured_is_a_figure_all_the_same(name):
    figure = DRAWN[name]([run_fields()], -1)

    assert saved(figure) > 1000
    if name in ("spectrum", "slices", "schematic"):
        assert "diverged before the first measurement" in titles(figure)


# The row of a run that was lost before anything of it was measured: such a table has no other column.
LOST = {
    "spectrum": {"which": "largest", "rank": 0, "checkpoint": "planned"},
    "density": {"quantity": "trace"},
    "slices": {"k": 0.0},
    "steps": {"direction": "top", "alpha": 0.5, "batch": 0},
    "variants": {"settings": "sgd", "diverged": True},
    "gradients": {"num_eigenvalues": 5},
    "history": {"training_loss": np.nan, "validation_accuracy": np.nan, "distance": 1.0, "diverged": True},
}
FRAMES = {
    "spectrum": lambda runs: spectrum_frame(runs, 3),
    "density": density_frame,
    "slices": slices_frame,
    "steps": steps_frame,
    "variants": variants_frame,
    "gradients": gradients_frame,
    "history": history_frame,
}
FUNCTIONS = {
    function: kind.measurements for kind in KINDS.values() for function in kind.figures
}  # to the tables that it is drawn from


def runs_of(function):
    """Runs in the grids that a figure shows."""
    special = {
        **dict.fromkeys(("eigenvalues", "peaks", "widths"), sweep),
        "nudged": gammas,
        "schedules": lambda: switched([run_fields(0), run_fields(1)]),
        "agreement": lambda: in_both([run_fields(0), run_fields(1)]),
    }
    return special.get(function, lambda: [run_fields(0), run_fields(1), run_fields(0, learning_rate=0.2)])()


def lost(measurement, runs):
    epoch = float(measurement == "history")
    place = {"step": round(epoch * STEPS_PER_EPOCH), "epoch": epoch}
    return pd.DataFrame([{**fields, **place, **LOST[measurement]} for fields in runs])


@pytest.mark.parametrize("which", ["all", "the first seed", "the first half"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_lost_runs_lose_no_figure(function, which):
    runs = runs_of(function)
    gone = {
        "all": runs,
        "the first seed": [fields for fields in runs if fields["seed"] == 0],
        "the first half": runs[: len(runs) // 2],
    }[which]
    kept = [fields for fields in runs if fields not in gone]
    tables = {
        measurement: pd.concat(
            [lost(measurement, gone), *([FRAMES[measurement](kept)] if kept else [])], ignore_index=True
        )
        for measurement in FUNCTIONS[function]
    }
    figure = getattr(import_module(f"sharpness.analysis.figures.{function}"), function)(**tables)
    assert saved(figure) > 1000
    if function in INTERACTIVE:
        assert getattr(interactive, function)(tables[function]).layout.height > 0


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_figure_of_runs_that_all_stopped_before_their_checkpoints_says_so(function, tmp_path):
    """As the stage draws it: a collected table has the names of its first columns alone."""
    paths = {measurement: tmp_path / f"{measurement}.csv" for measurement in FUNCTIONS[function]}
    for measurement, path in paths.items():
        path.write_text("experiment,grid,run\n")
        if measurement == "history":
            history_frame(runs_of(function)).to_csv(path, index=False)
    outputs = [tmp_path / f"figure.{ending}" for ending in ("png", "pdf")]
    figure_stage(function, list(paths), list(paths.values()), outputs)
    assert all(output.stat().st_size > 1000 for output in outputs)
    tables = {measurement: pd.read_csv(path) for measurement, path in paths.items()}
    drawn = getattr(import_module(f"sharpness.analysis.figures.{function}"), function)(**tables)
    assert "every run ended before its first checkpoint" in drawn.texts[0].get_text()


def test_a_variant_that_was_lost_before_its_checkpoint_is_named_as_diverged():
    others = variants_frame([run_fields()]).query("settings != 'sgd'")
    figure = variants(pd.concat([lost("variants", [run_fields()]), others], ignore_index=True))
    assert {"SGD (no curve)", "1 run diverged at once"} <= set(legend_labels(figure))
    assert "diverged" not in legend_labels(figure)  # there is no cross
    alone = variants(lost("variants", [run_fields()]))
    assert legend_labels(alone) == ["SGD (no curve)", "1 run diverged at once"]


@pytest.mark.parametrize(("function", "measurement"), [(steps, "steps"), (variants, "variants")])
def test_panels_of_a_model_that_was_lost_at_once_say_so_and_those_of_the_other_are_drawn(function, measurement):
    other = run_fields(model="mlp")
    for first, second in ((run_fields(), other), (other, run_fields())):
        tables = [lost(measurement, [first]), FRAMES[measurement]([second])]
        figure = function(pd.concat(tables, ignore_index=True))
        panels = np.array(figure.get_axes()).reshape(2, -1)
        for axes in panels[0]:
            assert [text.get_text() for text in axes.texts] == ["diverged before\nthe first measurement"]
            assert len(axes.get_xticks()) == len(axes.get_yticks()) == len(lines(axes)) == 0
        assert all(lines(axes) and not axes.texts for axes in panels[1])
        labels = legend_labels(figure)
        assert labels[-1] == "1 run diverged at once"
        assert "diverged" not in labels
        assert len(labels) > 3


def test_the_row_of_a_lost_run_is_a_line_of_text_among_the_slices():
    whole, gone = slices_frame([run_fields()]), lost("slices", [run_fields(learning_rate=0.2)])
    alone, both = slices(whole), slices(pd.concat([gone, whole], ignore_index=True))
    assert both.get_figheight() == pytest.approx(alone.get_figheight() + 0.4)
    assert slices(gone).get_figheight() < 1


def test_the_lowest_panel_of_each_column_of_slices_has_numbers():
    few = slices_frame([run_fields()]).query("step in [0, 1, 2, 4]")
    (row,) = slices(few).subfigs
    panels = [axes for part in row.subfigs for axes in part.axes if axes.axison and "epoch" in axes.get_title()]
    assert len(panels) == 4
    assert all(axes.xaxis.get_tick_params()["labelbottom"] for axes in panels[1:])


def test_a_run_that_was_lost_later_has_its_cross_in_every_panel_of_steps():
    """The stage writes one row where a run was lost, of one direction and alpha."""
    frame = steps_frame([run_fields()])
    end = lost("steps", [run_fields()]).assign(epoch=7.0, step=7 * STEPS_PER_EPOCH)
    figure = steps(pd.concat([frame[frame["epoch"] <= 6], end], ignore_index=True))
    for axes in figure.get_axes():
        assert [x for x, _ in crosses(axes)] == [6, 6, 6]
    assert legend_labels(figure)[-1] == "diverged"


def test_a_slice_is_drawn_no_farther_than_it_was_measured_and_turned_only_where_it_is_even():
    frame = slices_frame([run_fields()])
    near = frame[frame["k"].abs() <= 2]
    (surface,) = [axes for part in slices(near).subfigs[0].subfigs for axes in part.axes if axes.name == "3d"]
    for line in surface.get_lines():
        assert np.abs(line.get_data_3d()[0]).max() == 2
    uneven = frame[(frame["k"] >= -1) & (frame["k"] <= 8)]
    losses, _ = turned(uneven)
    measured = uneven.pivot(index="epoch", columns="k", values="loss")
    pd.testing.assert_frame_equal(losses, measured)
    even, _ = turned(frame)
    assert (even.iloc[:, 0] >= even.iloc[:, -1]).all()


def test_steps_of_any_length_and_variants_of_any_name_are_drawn():
    frame = steps_frame([run_fields()])
    longer = frame.assign(alpha=frame["alpha"].replace({0.5: 3.0}))
    assert {"α = 3", "SGD's step (α = 1)"} <= set(legend_labels(steps(longer)))
    frame = variants_frame([run_fields()])
    named = frame.assign(settings=frame["settings"].replace({"constant_top": "half_inside"}))
    figure = variants(named)
    assert {"SGD", "half_inside"} <= set(legend_labels(figure))
    assert len(lines(figure.get_axes()[0], color=GREY)) == 1


def test_figures_of_a_single_checkpoint_can_be_saved():
    runs = [run_fields(grid="gamma")]
    frames = {
        frame: frame(runs)
        for frame in (spectrum_frame, history_frame, density_frame, slices_frame, steps_frame, variants_frame)
    }
    first = {frame: rows[rows["step"] == 0] for frame, rows in frames.items()}
    in_grid = first[spectrum_frame].assign(grid="learning_rate")

    figures = [
        spectrum(in_grid),
        eigenvalues(in_grid),
        peaks(in_grid),
        density(first[density_frame]),
        slices(first[slices_frame]),
        schematic(first[slices_frame]),
        schedules(spectrum_frame(switched(runs)).query("step == 0")),
        gradients(gradients_frame(runs).query("step == 0")),
        steps(first[steps_frame]),
        variants(first[variants_frame]),
        nudged(first[history_frame], first[spectrum_frame]),
    ]

    assert all(saved(figure) > 2000 for figure in figures)


@pytest.mark.parametrize("name", DRAWN)
def test_every_panel_of_a_figure_says_what_it_shows(name):
    figure = DRAWN[name](two_models(), None)

    text = titles(figure) + "".join(axes.get_ylabel() + axes.get_title(loc="left") for axes in figure.get_axes())

    assert "simple_cnn on digits" in text
    assert "resnet32 on digits" in text


def test_the_density_of_all_panels_is_one_eigenvalue_each():
    figure = density(density_frame([run_fields()]))
    for axes in figure.get_axes():
        (curve,) = lines(axes, linestyle="-")
        assert np.trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(1, rel=1e-3)


def test_drawing_needs_neither_torch_nor_pyplot():
    names = "\n".join(f"import sharpness.analysis.figures.{name}" for name in DRAWN)
    check = f"import sys\n{names}\nassert not {{'torch', 'matplotlib.pyplot'}} & set(sys.modules)"

    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    subprocess.run([sys.executable, "-c", check], check=True, env=environment)


def test_the_style_ends_with_the_figure():
    before = matplotlib.rcParams["axes.grid"]

    figure = spectrum(spectrum_frame([run_fields()]))

    assert matplotlib.rcParams["axes.grid"] == before
    assert not figure.get_axes()[0].spines["top"].get_visible()


def test_first_seeds_keeps_one_run_of_each_configuration():
    frame = spectrum_frame([run_fields(seed, learning_rate=rate) for rate in (0.1, 0.2) for seed in (3, 1)])

    assert [part["run"].unique().tolist() for part in first_seeds(frame)] == [
        [run_fields(1, learning_rate=0.1)["run"]],
        [run_fields(1, learning_rate=0.2)["run"]],
    ]


class TestSpectrum:
    def test_draws_every_eigenvalue_in_order_from_red_to_blue(self):
        frame = spectrum_frame([run_fields()], 30)

        whole = spectrum(frame).get_axes()[0]

        drawn = lines(whole)
        assert len(drawn) == 30
        np.testing.assert_allclose(drawn[0].get_xdata(), EPOCHS)
        np.testing.assert_allclose(drawn[0].get_ydata(), curvature(run_fields()))
        assert to_hex(drawn[0].get_color()) == RED.lower()
        assert to_hex(drawn[-1].get_color()) == BLUE.lower()

    def test_the_start_is_logarithmic_around_the_peak_and_names_the_stability_limit(self):
        fields = run_fields()
        peak = EPOCHS[curvature(fields).argmax()]

        whole, start = spectrum(spectrum_frame([fields], 30)).get_axes()[:2]

        assert (whole.get_yscale(), start.get_yscale()) == ("linear", "log")
        assert whole.get_xlim() == (0, 30)
        assert start.get_xlim() == (0, pytest.approx(2 * peak))
        assert [text.get_text() for text in [*whole.texts, *start.texts]] == ["2 / learning rate = 40"]
        assert any(list(line.get_ydata()) == [40, 40] for line in start.get_lines())

    @pytest.mark.parametrize(("factor", "panel"), [(1.4, 0), (1.6, 1)])
    def test_a_limit_far_above_is_only_on_the_logarithmic_panel(self, factor, panel):
        frame = spectrum_frame([run_fields()])
        limit = 2 / frame["learning_rate"].iloc[0]
        frame["eigenvalue"] *= limit / factor / frame["eigenvalue"].max()

        panels = spectrum(frame).get_axes()[:2]

        with_limit = [any(list(line.get_ydata()) == [limit, limit] for line in axes.get_lines()) for axes in panels]
        assert with_limit == [panel == 0, True]
        assert [len(axes.texts) for axes in panels] == [panel == 0, panel == 1]

    def test_says_which_of_several_seeds_it_shows(self):
        several = spectrum(spectrum_frame([run_fields(2), run_fields(5)]))
        single = spectrum(spectrum_frame([run_fields(2)]))

        assert "seed 2 (first of 2)" in titles(several)
        assert "seed" not in titles(single)

    def test_leaves_out_checkpoints_that_were_not_planned(self):
        frame = spectrum_frame([run_fields()])
        best = frame.assign(checkpoint="best", step=7, epoch=0.7, eigenvalue=1e6)

        whole = spectrum(pd.concat([frame, best])).get_axes()[0]

        assert 0.7 not in lines(whole)[0].get_xdata()

    def test_marks_where_the_run_diverged(self):
        whole = spectrum(spectrum_frame([run_fields()], diverge_after=4)).get_axes()[0]

        assert crosses(whole) == [(4, pytest.approx(curvature(run_fields())[EPOCHS.tolist().index(4)]))]


class TestEigenvalues:
    def test_lines_are_means_over_seeds_and_bands_reach_from_smallest_to_largest(self):
        runs = [run_fields(seed, grid="learning_rate") for seed in (0, 1, 2)]
        values = np.array([curvature(fields) for fields in runs])

        axes = eigenvalues(spectrum_frame(runs)).get_axes()[0]

        (largest,) = lines(axes, linestyle="-")
        np.testing.assert_allclose(largest.get_ydata(), values.mean(axis=0))
        assert len(lines(axes, linestyle="--")) == 1
        band = axes.collections[0].get_paths()[0].vertices
        at_epoch_three = band[np.isclose(band[:, 0], 3), 1]
        index = EPOCHS.tolist().index(3)
        assert (at_epoch_three.min(), at_epoch_three.max()) == pytest.approx(
            (values[:, index].min(), values[:, index].max())
        )

    def test_one_seed_has_no_band(self):
        assert not eigenvalues(spectrum_frame(sweep(seeds=(0,)))).get_axes()[0].collections

    def test_a_panel_per_grid_with_its_values_in_order_on_stretched_logarithmic_axes(self):
        rates, sizes = eigenvalues(spectrum_frame(sweep())).get_axes()

        assert [text.get_text() for text in rates.get_legend().get_texts()] == ["0.01", "0.05", "0.2"]
        assert [text.get_text() for text in sizes.get_legend().get_texts()] == ["8", "32", "128", "full"]
        assert rates.get_legend().get_title().get_text() == "learning rate (batch size 32)"
        assert sizes.get_legend().get_title().get_text() == "batch size (learning rate 0.05)"
        for axes in (rates, sizes):
            assert (axes.get_xscale(), axes.get_yscale()) == ("symlog", "log")

    def test_marks_the_peak_of_the_largest_eigenvalue_of_every_value(self):
        fields = run_fields(grid="learning_rate")
        values = curvature(fields)

        axes = eigenvalues(spectrum_frame([fields])).get_axes()[0]

        (mark,) = (line for line in axes.get_lines() if line.get_marker() == "o")
        assert (mark.get_xdata()[0], mark.get_ydata()[0]) == pytest.approx((EPOCHS[values.argmax()], values.max()))

    def test_two_models_make_two_rows(self):
        assert len(eigenvalues(spectrum_frame(sweep((0,), ("simple_cnn", "resnet32")))).get_axes()) == 4

    def test_one_grid_makes_one_panel_and_a_short_run_an_ordinary_axis(self):
        frame = spectrum_frame([fields for fields in sweep((0,)) if fields["grid"] == "batch_size"])

        (axes,) = eigenvalues(frame[frame["epoch"] <= 2]).get_axes()

        assert axes.get_xscale() == "linear"
        assert axes.get_xlabel() == "epoch"

    def test_a_diverged_seed_is_crossed_out_and_named_in_the_legend(self):
        runs = [run_fields(seed, grid="learning_rate") for seed in (0, 1)]
        figure = eigenvalues(spectrum_frame(runs, diverge_after=4))

        assert [x for x, _ in crosses(figure.get_axes()[0])] == [4]
        assert "diverged" in legend_labels(figure)


class TestPeaks:
    def test_draws_every_seed_and_the_mean(self):
        frame = spectrum_frame(sweep())
        largest = [
            [curvature(run_fields(seed, learning_rate=rate)).max() for seed in range(3)] for rate in (0.01, 0.05, 0.2)
        ]

        height = peaks(frame).get_axes()[0]

        (mean,) = lines(height, linestyle="-")
        np.testing.assert_allclose(mean.get_ydata(), np.mean(largest, axis=1))
        (dots,) = (line for line in height.get_lines() if line.get_marker() == "o")
        np.testing.assert_allclose(sorted(dots.get_ydata()), np.sort(np.ravel(largest)))
        assert height.get_yscale() == "log"

    def test_the_titles_state_what_was_found(self):
        found = [axes.get_title() for axes in peaks(spectrum_frame(sweep())).get_axes()]

        assert found == [
            "falls with learning rate: yes, 3 of 3 seeds",
            "rises with batch size: yes, 3 of 3 seeds",
            "earlier with learning rate: yes, 3 of 3 seeds",
            "later with batch size: yes, 3 of 3 seeds",
        ]

    def test_the_titles_say_no_and_partly_where_it_is_so(self):
        frame = spectrum_frame([fields for fields in sweep() if fields["grid"] == "learning_rate"])
        upside_down = frame.assign(eigenvalue=frame["eigenvalue"] * frame["learning_rate"] ** 2)
        mixed = frame.assign(eigenvalue=frame["eigenvalue"].where(frame["seed"] > 0, upside_down["eigenvalue"]))

        assert peaks(upside_down).get_axes()[0].get_title() == "falls with learning rate: no, 0 of 3 seeds"
        assert peaks(mixed).get_axes()[0].get_title() == "falls with learning rate: partly, 2 of 3 seeds"

    def test_a_single_value_claims_nothing(self):
        figure = peaks(spectrum_frame([run_fields(grid="learning_rate")]))

        assert figure.get_axes()[0].get_title() == "falls with learning rate: one value only"

    def test_a_diverged_run_is_crossed_out_and_not_in_the_mean(self):
        frame = spectrum_frame(sweep(seeds=(0, 1)), diverge_after=8)

        height = peaks(frame).get_axes()[0]

        (mean,) = lines(height, linestyle="-")
        expected = [curvature(run_fields(1, learning_rate=rate)).max() for rate in (0.01, 0.05, 0.2)]
        np.testing.assert_allclose(mean.get_ydata(), expected)
        assert crosses(height)


class TestSlices:
    def test_the_surface_keeps_to_eight_steps_and_below_its_ceiling(self):
        frame = slices_frame([run_fields()])
        at_rest = frame.loc[frame["k"] == 0, "loss"].max()

        figure = slices(frame.assign(loss=frame["loss"].where(frame["k"].abs() < 8, 1e9)))

        surface = next(axes for axes in figure.get_axes() if axes.name == "3d")
        assert surface.get_zlim()[1] < 1.6 * at_rest
        assert surface.get_xlim()[1] < 10

    @given(losses=arrays(float, (2, 9), elements=st.floats(0, 5, width=16)), overflow=st.booleans())
    def test_the_surface_goes_through_every_measurement_and_has_no_minimum_of_its_own(self, losses, overflow):
        steps = np.array([-8.0, -4, -2, -1, 0, 1, 2, 4, 8])
        losses[0, 0] = np.inf if overflow else losses[0, 0]
        fine = np.linspace(-8, 8, 97)

        curves = smoothed(pd.DataFrame(losses, columns=steps), fine, 4.0)

        np.testing.assert_allclose(curves[:, np.isin(fine, steps)], losses.clip(max=4), atol=1e-9)
        right = np.searchsorted(steps, fine).clip(1)
        low, high = (pick(losses[:, right - 1], losses[:, right]).clip(max=4) for pick in (np.minimum, np.maximum))
        assert ((curves >= low - 1e-9) & (curves <= high + 1e-9)).all()

    def test_curves_are_the_losses_with_the_higher_end_on_the_left(self):
        frame = slices_frame([run_fields()])
        figure = slices(frame)

        panels = [axes for axes in figure.get_axes() if axes.get_title().startswith("epoch")]

        assert panels[0].get_title() == "epoch 0"
        assert panels[-1].get_title() == "epoch 30"
        start = frame[(frame["epoch"] == 0) & (frame["k"].abs() <= 8)]
        for axes in panels:
            drawn = lines(axes)[0].get_ydata()
            assert drawn[0] >= drawn[-1]
        np.testing.assert_allclose(np.sort(lines(panels[0])[0].get_ydata()), np.sort(start["loss"]))

    def test_steep_slices_leave_the_flat_ones_their_room(self):
        frame = slices_frame([run_fields()])

        figure = slices(frame.assign(loss=frame["loss"].where(frame["k"].abs() < 8, 1e3)))

        panels = [axes for axes in figure.get_axes() if axes.get_title().startswith("epoch")]
        bottom, top = panels[0].get_ylim()
        assert -0.1 * top < bottom < 0

    def test_what_is_earlier_hides_what_is_later_in_the_surface(self):
        figure = slices(slices_frame([run_fields()]))

        surface = next(axes for axes in figure.get_axes() if axes.name == "3d")
        curves = [(line.get_data_3d()[1][0], line.get_zorder()) for line in surface.get_lines()]
        strips = [strip.get_zorder() for strip in surface.collections]
        assert not surface.computed_zorder
        assert [order for _, order in sorted(curves)] == sorted((order for _, order in curves), reverse=True)
        assert len(set(strips)) == len(strips) == len(EPOCHS) - 1
        assert min(order for _, order in curves) < min(strips)
        assert max(order for _, order in curves) > max(strips)

    def test_the_title_says_when_the_run_diverged(self):
        assert "diverged after epoch 6" in titles(slices(slices_frame([run_fields()], diverge_after=6)))


class TestSchematic:
    def test_shows_the_start_the_peak_and_the_end_from_their_own_loss_on(self):
        fields = run_fields()
        frame = slices_frame([fields])
        peak = curvature(fields).argmax()

        panels = schematic(frame).get_axes()

        assert [axes.get_title().split("\n")[0] for axes in panels] == [
            "start",
            "early",
            "peak of the curvature",
            "end",
        ]
        assert f"epoch {EPOCHS[peak]:.3g}, $\\lambda_1$ = {curvature(fields)[peak]:.3g}" in panels[2].get_title()
        (curve,) = (line for line in panels[2].get_lines() if line.get_linewidth() == 2)
        at_peak = frame[frame["epoch"] == EPOCHS[peak]].set_index("k")
        assert np.interp(0, curve.get_xdata(), curve.get_ydata()) == 0
        assert curve.get_xdata().max() == pytest.approx(16 * at_peak["scale"].iloc[0])
        np.testing.assert_allclose(np.sort(curve.get_ydata()), np.sort(at_peak["loss"] - at_peak.loc[0.0, "loss"]))

    def test_two_points_to_each_side_are_in_sight_where_the_steps_grew(self):
        frame = slices_frame([run_fields()])
        peak = EPOCHS[curvature(run_fields()).argmax()]
        grown = frame.assign(scale=frame["scale"].where(frame["epoch"] != peak, 100 * frame["scale"]))

        panels = schematic(grown).get_axes()

        (curve,) = (line for line in panels[2].get_lines() if line.get_linewidth() == 2)
        left, right = panels[2].get_xlim()
        distance, change = curve.get_xdata(), curve.get_ydata()
        assert ((distance > 0) & (distance < right)).sum() == ((distance < 0) & (distance > left)).sum() == 2
        assert panels[2].get_ylim()[1] > change[(distance > left) & (distance < right)].max()

    @pytest.mark.parametrize("lost", [[EPOCHS[-1]], EPOCHS])
    def test_steps_without_a_length_leave_the_frame_to_the_others(self, lost):
        frame = slices_frame([run_fields()])

        figure = schematic(frame.assign(scale=frame["scale"].mask(frame["epoch"].isin(lost))))

        assert saved(figure) > 2000

    def test_a_peak_at_the_end_is_shown_once(self):
        frame = slices_frame([run_fields(learning_rate=0.001)], diverge_after=10)

        panels = schematic(frame).get_axes()

        assert [axes.get_title().split("\n")[0] for axes in panels] == ["start", "early", "peak of the curvature"]


class TestSteps:
    def test_points_are_mean_changes_in_percent_and_bars_their_standard_errors(self):
        fields = {**run_fields(), "step": 0, "epoch": 0.0, "direction": "top", "alpha": 2.0, "loss_before": 2.0}
        frame = pd.DataFrame([{**fields, "batch": 0, "loss_after": 2.2}, {**fields, "batch": 1, "loss_after": 2.6}])

        axes = steps(frame).get_axes()[0]

        points, _, (bars,) = axes.containers[0]
        # Changes of 10 and 30 %: mean 20, deviation 20 / sqrt 2, standard error 10.
        np.testing.assert_allclose(points.get_ydata().astype(float), [20])
        np.testing.assert_allclose(bars.get_segments()[0][:, 1], [10, 30])

    def test_blue_is_half_green_the_step_itself_and_red_its_double(self):
        figure = steps(steps_frame([run_fields()]))

        colours = [container[0].get_color() for container in figure.get_axes()[0].containers]

        assert colours == [BLUE, GREEN, RED]
        assert legend_labels(figure) == ["half the step (α = 0.5)", "SGD's step (α = 1)", "twice the step (α = 2)"]
        assert [axes.get_title() for axes in figure.get_axes()] == [
            "along the top eigenvector",
            "along a random direction",
            "full step",
        ]

    def test_an_outlier_makes_the_axis_symmetric_logarithmic(self):
        frame = steps_frame([run_fields()])
        outlier = frame["loss_after"].where(frame["epoch"] > 0, 50 * frame["loss_after"])

        assert steps(frame).get_axes()[0].get_yscale() == "linear"
        assert steps(frame.assign(loss_after=outlier)).get_axes()[0].get_yscale() == "symlog"

    def test_a_diverged_run_ends_in_a_cross(self):
        figure = steps(steps_frame([run_fields()], diverge_after=6))

        assert [x for x, _ in crosses(figure.get_axes()[0])] == [6, 6, 6]
        assert legend_labels(figure)[-1] == "diverged"


class TestVariants:
    def test_every_variant_has_the_posters_colour_in_both_panels(self):
        left, right = variants(variants_frame([run_fields()])).get_axes()

        for axes in (left, right):
            assert [line.get_color() for line in lines(axes)] == [BLUE, ORANGE, GREEN, RED]
        assert right.get_yscale() == "log"

    def test_lines_are_means_over_seeds_of_what_was_measured(self):
        frame = variants_frame([run_fields(0), run_fields(1)])
        sgd = frame[frame["settings"] == "sgd"]

        left, right = variants(frame).get_axes()

        measured = sgd[sgd["step"] % 20 == 0]
        np.testing.assert_allclose(lines(left)[0].get_ydata(), measured.groupby("step")["loss"].mean())
        np.testing.assert_allclose(lines(right)[0].get_ydata(), measured.groupby("step")["eigenvalue"].mean())
        assert left.collections

    def test_divergence_is_marked_and_a_step_that_was_not_measured_is_not(self):
        figure = variants(variants_frame([run_fields()], diverge_after=400))

        for axes in figure.get_axes():
            assert [x for x, _ in crosses(axes)] == [400]
        assert not any(crosses(axes) for axes in variants(variants_frame([run_fields()])).get_axes())


class TestNudged:
    def test_norms_and_accuracies_are_means_over_seeds(self):
        runs = gammas()
        history, eigenvalue = history_frame(runs), spectrum_frame(runs, 5)

        left, right = nudged(history, eigenvalue).get_axes()

        smallest = history[history["gamma"] == 0.01].groupby("epoch")["validation_accuracy"].mean()
        np.testing.assert_allclose(lines(left)[0].get_ydata(), 100 * smallest)
        values = np.array([curvature(fields) for fields in runs if fields["gamma"] == 0.01])
        np.testing.assert_allclose(lines(right, linestyle="-")[0].get_ydata(), values.mean(axis=0))
        factor = np.sqrt(sum((1 + 0.4 * rank) ** -2.4 for rank in range(5)))
        np.testing.assert_allclose(lines(right, linestyle="--")[0].get_ydata(), factor * values.mean(axis=0))
        assert "Frobenius norm of 5 eigenvalues" in right.get_title(loc="left")
        assert right.get_yscale() == "log"

    def test_the_frobenius_norm_uses_the_number_of_eigenvalues_that_every_checkpoint_has(self):
        runs = gammas(seeds=(0,))
        eigenvalue = spectrum_frame(runs, 5)
        fewer = eigenvalue[(eigenvalue["epoch"] > 0) | (eigenvalue["rank"] < 3)]

        right = nudged(history_frame(runs), fewer).get_axes()[1]

        assert "Frobenius norm of 3 eigenvalues" in right.get_title(loc="left")

    def test_the_rates_of_plain_sgd_stay_out(self):
        runs = [*gammas(seeds=(0,)), run_fields(grid="sgd", learning_rate=0.1)]

        figure = nudged(history_frame(runs), spectrum_frame(runs))

        assert legend_labels(figure) == ["γ = 0.01", "γ = 0.1", "γ = 1 (SGD)", "γ = 5", "2 / learning rate"]
        assert len(lines(figure.get_axes()[0])) == 4

    def test_a_diverged_seed_is_marked(self):
        runs = gammas(seeds=(0, 1))
        figure = nudged(history_frame(runs, diverge_after=15), spectrum_frame(runs, 5, diverge_after=15))

        left, right = figure.get_axes()
        assert [x for x, _ in crosses(left)] == [15] * 4
        assert legend_labels(figure)[-1] == "diverged"
        assert "Frobenius norm of 5 eigenvalues" in right.get_title(loc="left")

    def test_runs_that_diverged_before_the_first_measurement_leave_the_norms_empty(self):
        runs = gammas(seeds=(0,))
        figure = nudged(history_frame(runs, diverge_after=0), spectrum_frame(runs, 5, diverge_after=-1))

        assert "diverged" in legend_labels(figure)


class TestAgreement:
    def test_the_reference_is_named_and_the_other_way_has_its_differences(self):
        runs = in_both([run_fields(0), run_fields(1)])
        upper, lower = agreement(spectrum_frame(runs), history_frame(runs)).get_axes()
        labels = [entry.get_text() for entry in lower.get_legend().get_texts()]
        # The frames are the same in both precisions.
        assert labels == ["precision float32: reference", "precision bfloat16: 0.0, 0.0"]
        assert upper.get_yscale() == "log"
        assert [len(axes.get_lines()) for axes in (upper, lower)] == [2, 2]


def test_a_line_of_a_changed_rate_starts_to_differ_at_its_mark():
    figure = schedules(spectrum_frame(switched([run_fields(0), run_fields(1)])))

    (axes,) = figure.get_axes()
    upright = [line for line in axes.get_lines() if len(set(line.get_xdata())) == 1]
    marks = {line.get_color(): line.get_xdata()[0] for line in upright}
    assert sorted(marks.values()) == [1, 15]
    assert set(marks) < {line.get_color() for line in lines(axes, linestyle="-")}
    level = [line for line in axes.get_lines() if len(line.get_ydata()) == 2 and line not in upright]
    assert sorted(line.get_ydata()[0] for line in level) == pytest.approx([2 / 0.05, 2 / 0.005])
    assert [entry.get_text() for entry in axes.get_legend().get_texts()] == ["after epoch 1", "after epoch 15", "never"]


def test_the_panels_of_the_gradients_show_their_columns():
    frame = gradients_frame(sweep(seeds=(0,)))
    figure = gradients(frame)

    drawn = [(axes.get_title(), lines(axes, linestyle="-")) for axes in figure.get_axes()]
    assert any("overlap of the top 5" in title for title, _ in drawn)
    sharpness = next(found for title, found in drawn if "Batch Sharpness" in title)
    rates = sorted(frame["learning_rate"].unique())
    first = frame[frame["learning_rate"] == rates[0]]
    assert sharpness[0].get_ydata() == pytest.approx(rates[0] * first["batch_sharpness"].to_numpy())
    assert {len(found) for _, found in drawn} == {3, 4}


def test_every_figure_has_a_page_that_names_its_tables():
    pages = (Path(__file__).parents[2] / "docs" / "figures.md").read_text().split("\n## ")

    for kind in KINDS.values():
        for function in kind.figures:
            (page,) = [page for page in pages if page.startswith(f"{function}\n")]
            assert f"sharpness.analysis.figures.{function}" in page
            assert all(f"tables/NAME_{measurement}.csv" in page for measurement in kind.measurements)
