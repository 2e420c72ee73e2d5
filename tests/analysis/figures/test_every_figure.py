"""What holds for every figure."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figures.invented import (
    columns_frame,
    density_frame,
    gammas,
    gradients_frame,
    history_frame,
    in_both,
    legend_labels,
    lines,
    lost,
    run_fields,
    saved,
    slices_frame,
    spectrum_frame,
    steps_frame,
    sweep,
    switched,
    titles,
    two_models,
    variants_frame,
)

from sharpness.analysis.figures import interactive
from sharpness.analysis.figures.agreement import agreement
from sharpness.analysis.figures.density import density
from sharpness.analysis.figures.eigenvalues import eigenvalues
from sharpness.analysis.figures.gradients import gradients
from sharpness.analysis.figures.nudged import nudged
from sharpness.analysis.figures.palette import colour_of
from sharpness.analysis.figures.peaks import peaks
from sharpness.analysis.figures.schedules import schedules
from sharpness.analysis.figures.schematic import schematic
from sharpness.analysis.figures.slices import slices
from sharpness.analysis.figures.spectrum import spectrum
from sharpness.analysis.figures.steps import steps
from sharpness.analysis.figures.variants import variants
from sharpness.analysis.figures.widths import widths
from sharpness.analysis.reading import planned_runs, read_measured
from sharpness.stages.figure import figure as figure_stage
from sharpness.study.kinds import KINDS
from sharpness.study.registry import MEASUREMENTS
from sharpness.study.runs import FIELDS

# A measurement that is not here has some number in each of its columns.
FRAMES = {name: columns_frame(name) for name in MEASUREMENTS} | {
    "spectrum": spectrum_frame,
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


def drawn_from_frames(function):
    """How a figure is drawn that shows its tables as they are."""
    draw = getattr(import_module(f"sharpness.analysis.figures.{function}"), function)
    return lambda runs, end: draw(**{name: FRAMES[name](runs, diverge_after=end) for name in FUNCTIONS[function]})


DRAWN = {function: drawn_from_frames(function) for function in FUNCTIONS} | {
    "spectrum": lambda runs, end: spectrum(spectrum_frame(runs, 10, diverge_after=end)),
    "eigenvalues": lambda runs, end: eigenvalues(spectrum_frame(runs, diverge_after=end).assign(grid="learning_rate")),
    "peaks": lambda runs, end: peaks(spectrum_frame(runs, diverge_after=end).assign(grid="batch_size")),
    "widths": lambda runs, end: widths(slices_frame(runs, diverge_after=end).assign(grid="learning_rate")),
    "schedules": lambda runs, end: schedules(spectrum_frame(switched(runs), diverge_after=end)),
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


def runs_of(function):
    """Runs in the grids that a figure shows."""
    special = {
        **dict.fromkeys(("eigenvalues", "peaks", "widths"), sweep),
        "nudged": gammas,
        "schedules": lambda: switched([run_fields(0), run_fields(1)]),
        "agreement": lambda: in_both([run_fields(0), run_fields(1)]),
    }
    return special.get(function, lambda: [run_fields(0), run_fields(1), run_fields(0, learning_rate=0.2)])()


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
    if any(function in kind.interactive for kind in KINDS.values()):
        assert getattr(interactive, function)(tables[function]).layout.height > 0


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_figure_of_runs_that_all_stopped_before_their_checkpoints_says_so(function, tmp_path):
    """As the stage draws it: a collected table has the names of its first columns alone."""
    paths = {measurement: tmp_path / f"{measurement}.csv" for measurement in FUNCTIONS[function]}
    for measurement, path in paths.items():
        path.write_text("experiment,grid,run,diverged\n")
        if measurement == "history":
            history_frame(runs_of(function)).drop(columns=list(FIELDS), errors="ignore").to_csv(path, index=False)
    of_runs = pd.DataFrame(runs_of(function)).drop_duplicates("run").reindex(columns=["run", *FIELDS])
    trained = of_runs.to_csv(index=False)
    outputs = [tmp_path / f"figure.{ending}" for ending in ("png", "pdf")]
    figure_stage(function, list(paths), list(paths.values()), trained, outputs)
    assert all(output.stat().st_size > 1000 for output in outputs)
    of_study = planned_runs(trained)
    tables = {measurement: read_measured(path, measurement, of_study) for measurement, path in paths.items()}
    drawn = getattr(import_module(f"sharpness.analysis.figures.{function}"), function)(**tables)
    assert "every run ended before its first checkpoint" in drawn.texts[0].get_text()


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


@pytest.mark.slow
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

    assert "SimpleCNN, digits, 1,300 images" in text
    assert "ResNet-32, digits, 1,300 images" in text
    assert not {"simple_cnn", "resnet32"} & set(re.split(r"\W+", text))


@pytest.mark.parametrize("name", DRAWN)
def test_no_legend_is_wider_than_its_figure(name):
    """One grid, so that there is one panel where a figure has a panel for each; wide values and a lost seed."""
    runs = [run_fields(seed, learning_rate=rate) for seed in (0, 1) for rate in (0.0005, 0.00125, 0.0333)]
    figure = DRAWN[name](runs, 8)
    saved(figure)
    parts = [figure, *figure.subfigs]
    legends = [legend for part in parts for legend in part.legends]
    legends += [legend for axes in figure.get_axes() if (legend := axes.get_legend()) is not None]
    for legend in legends:
        box = legend.get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
    assert legends or name in ("spectrum", "slices", "schematic")


def test_a_value_of_a_setting_has_one_colour_in_all_figures():
    runs = sweep(seeds=(0, 1))
    figures = [
        eigenvalues(spectrum_frame(runs)),
        gradients(gradients_frame(runs)),
        gradients(gradients_frame(runs[:6])),
    ]
    for setting, values in {"learning_rate": (0.01, 0.05, 0.2), "batch_size": ("8", "32", "128", "full")}.items():
        for value in values:
            labels = {str(value), f"{setting.replace('_', ' ')} {value}"}
            entries = [
                line
                for figure in figures
                for owner in [*figure.subfigs, *figure.get_axes()]
                for legend in (owner.legends if hasattr(owner, "legends") else [owner.get_legend()])
                for line in (legend.get_lines() if legend is not None else [])
                if line.get_label() in labels
            ]
            assert len(entries) >= 2
            assert {line.get_color() for line in entries} == {colour_of(setting, value)}


@pytest.mark.slow
def test_drawing_needs_neither_torch_nor_pyplot():
    names = "\n".join(f"import sharpness.analysis.figures.{name}" for name in DRAWN)
    check = f"import sys\n{names}\nassert not {{'torch', 'matplotlib.pyplot'}} & set(sys.modules)"

    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    subprocess.run([sys.executable, "-c", check], check=True, env=environment)


def test_every_figure_has_a_page_that_names_its_tables():
    pages = (Path(__file__).parents[3] / "docs" / "figures.md").read_text().split("\n## ")

    for name, kind in KINDS.items():
        for function in kind.figures:
            (page,) = [page for page in pages if page.startswith(f"{function}\n")]
            assert f"- Kind `{name}`, figure `NAME{f'_{function}' if function in kind.figures[1:] else ''}`" in page
            assert f"sharpness.analysis.figures.{function}`" in page
            assert all(f"tables/NAME_{measurement}.csv" in page for measurement in kind.measurements)
