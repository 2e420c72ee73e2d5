"""Figures of grids of any name follow what the runs differ in, also inside the optimizer or the network's arguments."""

import json

import pytest
from figures.invented import history_frame, legend_labels, run_fields, spectrum_frame

from sharpness.analysis.figures.eigenvalues import eigenvalues
from sharpness.analysis.figures.nudged import nudged
from sharpness.analysis.figures.palette import colour_of, colours_of
from sharpness.analysis.figures.peaks import peaks
from sharpness.analysis.figures.schedules import schedules
from sharpness.analysis.figures.spectrum import spectrum
from sharpness.report.overview import panels

ADAM = {"name": "adam"}
AXES = {
    "beta2": ("optimizer", [json.dumps(ADAM | {"beta2": beta}) for beta in (0.9, 0.99)], ["0.9", "0.99"]),
    "optimizer": ("optimizer", ["{}", json.dumps(ADAM)], ["sgd", "adam"]),
    "width": ("model_args", ['{"width": 8}', '{"width": 16}'], ["8", "16"]),
    "schedule": ("schedule", ["{}", '{"name": "cosine"}'], ["constant", "cosine"]),
    "augment": ("augment", [False, True], ["false", "true"]),
    "l2": ("l2", [0.0, 0.001], ["0", "0.001"]),
}


@pytest.fixture(params=AXES)
def case(request):
    """Runs of a grid with a name of its own, the words of its axis, and its values in words."""
    field, values, words = AXES[request.param]
    neutral = {
        "optimizer": "{}",
        "schedule": "{}",
        "model_args": "{}",
        "augment": False,
        "learning_rate_epochs": "",
        "learning_rate_factor": 0.0,
    }
    runs = []
    for number, value in enumerate(values):
        for seed in (0, 1):
            run = run_fields(seed, **{**neutral, field: value}, grid="anything")
            runs.append({**run, "run": f"{run['run']}-{number}"})
    return runs, request.param, words


def test_curves_have_a_colour_for_each_value(case):
    runs, axis, words = case
    figure = eigenvalues(spectrum_frame(runs))
    (panel,) = [axes for axes in figure.get_axes() if axes.get_legend()]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == words
    assert panel.get_legend().get_title().get_text().startswith(axis)
    assert len({line.get_color() for line in panel.get_legend().get_lines()}) == 2


def test_peaks_stand_against_the_values(case):
    runs, axis, words = case
    lower = peaks(spectrum_frame(runs)).get_axes()[-1]
    assert [label.get_text() for label in lower.get_xticklabels()] == words
    assert lower.get_xlabel().startswith(axis)


def test_nudged_runs_are_told_apart_by_what_differs(case):
    runs, axis, words = case
    figure = nudged(history_frame(runs), spectrum_frame(runs))
    assert legend_labels(figure)[:2] == [f"{axis} = {word}" for word in words]


def test_schedules_are_told_apart_by_what_differs(case):
    runs, axis, words = case
    panel = schedules(spectrum_frame(runs)).get_axes()[0]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == words
    assert panel.get_legend().get_title().get_text() == axis


def test_single_runs_say_in_their_titles_what_differs(case):
    runs, axis, words = case
    titles = [part.get_suptitle() for part in spectrum(spectrum_frame(runs)).subfigs]
    assert [f"{axis} {word}" in title for title, word in zip(titles, words, strict=True)] == [True, True]


def test_the_report_begins_with_what_differs(case):
    runs, axis, words = case
    (panel,) = panels([spectrum_frame(runs)])
    assert (panel.title, [line["label"] for line in panel.lines]) == (axis, words)


def test_rates_that_are_near_one_another_have_colours_to_tell():
    near, far = [0.2, 0.4, 0.8], [0.01, 0.1]
    assert colours_of("learning_rate", far) == {rate: colour_of("learning_rate", rate) for rate in far}
    assert len(set(colours_of("learning_rate", near).values())) == 3
    assert colours_of("learning_rate", near) != {rate: colour_of("learning_rate", rate) for rate in near}
