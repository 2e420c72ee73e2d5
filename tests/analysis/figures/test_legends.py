"""No legend is cut, however long its words are and however narrow its figure."""

import pytest
from figures.invented import gammas, in_both, run_fields, spectrum_frame, sweep, two_models
from figures.test_every_figure import DRAWN
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sharpness.analysis.figures.eigenvalues import eigenvalues
from sharpness.analysis.figures.legends import legend_above, legend_below, legend_under
from sharpness.analysis.figures.style import style

LABELS = st.lists(st.text("abc dW-,%λ", min_size=1, max_size=90).filter(str.strip), min_size=1, max_size=7)


def legends_of(part):
    yield from part.legends
    yield from (legend for axes in part.axes if (legend := axes.get_legend()) is not None)
    for inner in part.subfigs:
        yield from legends_of(inner)


def assert_not_cut(figure, *, sides_only=False):
    with style():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        for legend in legends_of(figure):
            box = legend.get_window_extent(canvas.get_renderer())
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.width
            assert sides_only or box.y0 >= 0


def handles(labels):
    return [Line2D([], [], label=label) for label in labels]


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(LABELS, st.sampled_from([2.0, 4.2, 7.0]))
def test_a_legend_below_is_never_wider_than_its_figure(labels, width):
    with style():
        figure = Figure(figsize=(width, 3), layout="constrained")
        figure.subplots()
        legend_below(figure, handles(labels))

    assert_not_cut(figure)
    shown = [text.get_text() for legend in legends_of(figure) for text in legend.get_texts()]
    assert [" ".join(text.split()) for text in shown] == [" ".join(label.split()) for label in labels]


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(LABELS, st.text("abc d", min_size=1, max_size=90), st.sampled_from([legend_above, legend_under]), st.booleans())
def test_nor_is_that_of_a_panel_or_its_title(labels, title, add, has_two):
    with style():
        figure = Figure(figsize=(4.2, 5), layout="constrained")
        panels = figure.subplots(1, 1 + has_two, squeeze=False)[0]
        for axes in panels:
            add(axes, handles(labels), title=title, num_panels=len(panels))

    assert_not_cut(figure, sides_only=True)


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize(
    "runs",
    [
        pytest.param([run_fields(0), run_fields(1)], id="one grid"),
        pytest.param(two_models(), id="two models"),
        pytest.param(gammas((0,)), id="factors"),
    ],
)
def test_no_figure_cuts_its_legend(name, runs):
    assert_not_cut(DRAWN[name](runs, 8))


@pytest.mark.parametrize("grid", ["learning_rate", "batch_size"])
def test_a_single_grid_has_room_for_every_entry(grid):
    runs = [fields for fields in sweep(seeds=(0, 1)) if fields["grid"] == grid]
    table = spectrum_frame(runs, diverge_after=8)

    assert_not_cut(eigenvalues(table.assign(elsewhere=table["eigenvalue"] / 2)))


def test_ways_of_agreement_with_long_names_are_not_cut():
    runs = [
        fields | {"num_directions": 12, "direction_examples": 5000, "direction_tolerance": 0.125, "gamma": 0.01}
        for fields in [run_fields(0), run_fields(1)]
    ]
    assert_not_cut(DRAWN["agreement"](in_both(runs), None))
