"""The figure ``spectrum``, judged by what it has drawn."""

import numpy as np
import pandas as pd
import pytest
from figures.invented import EPOCHS, crosses, curvature, legend_labels, lines, run_fields, spectrum_frame, titles
from matplotlib.colors import to_hex

from sharpness.analysis.figures.palette import BLUE, RED
from sharpness.analysis.figures.spectrum import spectrum


def test_draws_every_eigenvalue_in_order_from_red_to_blue():
    frame = spectrum_frame([run_fields()], 30)

    whole = spectrum(frame).get_axes()[0]

    drawn = lines(whole)
    assert len(drawn) == 30
    np.testing.assert_allclose(drawn[0].get_xdata(), EPOCHS)
    np.testing.assert_allclose(drawn[0].get_ydata(), curvature(run_fields()))
    assert to_hex(drawn[0].get_color()) == RED.lower()
    assert to_hex(drawn[-1].get_color()) == BLUE.lower()


def test_the_start_is_logarithmic_around_the_peak_and_names_the_stability_limit():
    fields = run_fields()
    peak = EPOCHS[curvature(fields).argmax()]

    whole, start = spectrum(spectrum_frame([fields], 30)).get_axes()[:2]

    assert (whole.get_yscale(), start.get_yscale()) == ("linear", "log")
    assert whole.get_xlim() == (0, 30)
    assert start.get_xlim() == (0, pytest.approx(2 * peak))
    assert [text.get_text() for text in [*whole.texts, *start.texts]] == ["2 / learning rate = 40"]
    assert any(list(line.get_ydata()) == [40, 40] for line in start.get_lines())


@pytest.mark.parametrize("last", [0.8, 1.6, 2.0, 5, 10, 30])
def test_no_two_panels_show_the_same_time(last):
    frame = spectrum_frame([run_fields()], 5)
    frame = frame[frame["epoch"] <= last]
    panels = [axes for axes in spectrum(frame).get_axes() if axes.get_xlabel() == "epoch"]

    titles_of = [axes.get_title() for axes in panels]
    assert titles_of in (["whole run", "start, log scale"], ["whole run, log scale"])
    assert panels[0].get_xlim() == (0, pytest.approx(last))
    if len(panels) == 2:
        assert panels[1].get_xlim()[1] < 0.75 * last
    assert any("2 / learning rate" in text.get_text() for axes in panels for text in axes.texts)
    assert len({len(lines(axes)) for axes in panels}) == 1
    assert len(lines(panels[0])) == 5


@pytest.mark.parametrize(("factor", "panel"), [(1.4, 0), (1.6, 1)])
def test_a_limit_far_above_is_only_on_the_logarithmic_panel(factor, panel):
    frame = spectrum_frame([run_fields()])
    limit = 2 / frame["learning_rate"].iloc[0]
    frame["eigenvalue"] *= limit / factor / frame["eigenvalue"].max()

    panels = spectrum(frame).get_axes()[:2]

    with_limit = [any(list(line.get_ydata()) == [limit, limit] for line in axes.get_lines()) for axes in panels]
    assert with_limit == [panel == 0, True]
    assert [len(axes.texts) for axes in panels] == [panel == 0, panel == 1]


def test_says_which_of_several_seeds_it_shows():
    several = spectrum(spectrum_frame([run_fields(2), run_fields(5)]))
    single = spectrum(spectrum_frame([run_fields(2)]))

    assert "seed 2 (first of 2)" in titles(several)
    assert titles(single) == "SimpleCNN, digits, 1,300 images\nlearning rate 0.05, batch size 32, seed 2"


def test_the_bracket_is_that_of_the_leading_pair():
    frame = spectrum_frame([run_fields()], 5)
    elsewhere = (0.5 * frame["eigenvalue"]).where(frame["which"] == "largest")
    figure = spectrum(frame.assign(elsewhere=elsewhere))
    leading = curvature(run_fields())
    for axes in figure.get_axes()[:2]:
        (band,) = (each for each in axes.collections if each.get_hatch())
        corners = band.get_paths()[0].vertices
        for epoch, value in zip(EPOCHS, leading, strict=True):
            heights = corners[np.isclose(corners[:, 0], epoch), 1]
            assert heights.max() == pytest.approx(value)
            assert heights.min() == pytest.approx(max(value / 2, axes.get_ylim()[0]))
    assert legend_labels(figure) == ["down to the curvature on other images"]
    assert not legend_labels(spectrum(frame))


def test_leaves_out_checkpoints_that_were_not_planned():
    frame = spectrum_frame([run_fields()])
    best = frame.assign(checkpoint="best", step=7, epoch=0.7, eigenvalue=1e6)

    whole = spectrum(pd.concat([frame, best])).get_axes()[0]

    assert 0.7 not in lines(whole)[0].get_xdata()


def test_marks_where_the_run_diverged():
    whole = spectrum(spectrum_frame([run_fields()], diverge_after=4)).get_axes()[0]

    assert crosses(whole) == [(4, pytest.approx(curvature(run_fields())[EPOCHS.tolist().index(4)]))]
