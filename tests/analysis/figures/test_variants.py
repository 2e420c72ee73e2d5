"""The figure ``variants``, judged by what it has drawn."""

import numpy as np
import pandas as pd
from figures.invented import crosses, legend_labels, lines, lost, run_fields, variants_frame

from sharpness.analysis.figures.palette import BLUE, GREEN, GREY, ORANGE, RED
from sharpness.analysis.figures.variants import variants


def test_a_variant_that_was_lost_before_its_checkpoint_is_named_as_diverged():
    others = variants_frame([run_fields()]).query("settings != 'sgd'")
    figure = variants(pd.concat([lost("variants", [run_fields()]), others], ignore_index=True))
    assert {"SGD (no curve)", "1 run diverged at once"} <= set(legend_labels(figure))
    assert "diverged" not in legend_labels(figure)  # there is no cross
    alone = variants(lost("variants", [run_fields()]))
    assert legend_labels(alone) == ["SGD (no curve)", "1 run diverged at once"]


def test_every_variant_has_the_posters_colour_in_both_panels():
    left, right = variants(variants_frame([run_fields()])).get_axes()

    for axes in (left, right):
        assert [line.get_color() for line in lines(axes)] == [BLUE, ORANGE, GREEN, RED]
    assert right.get_yscale() == "log"


def test_lines_are_means_over_seeds_of_what_was_measured():
    frame = variants_frame([run_fields(0), run_fields(1)])
    sgd = frame[frame["settings"] == "sgd"]

    left, right = variants(frame).get_axes()

    measured = sgd[sgd["step"] % 20 == 0]
    np.testing.assert_allclose(lines(left)[0].get_ydata(), measured.groupby("step")["loss"].mean())
    np.testing.assert_allclose(lines(right)[0].get_ydata(), measured.groupby("step")["eigenvalue"].mean())
    assert left.collections


def test_every_checkpoint_from_which_variants_start_has_its_line():
    first = variants_frame([run_fields(0), run_fields(1)])
    later = first.assign(start_step=first["start_step"] + 1000, loss=first["loss"] + 3)

    left, right = variants(pd.concat([first, later], ignore_index=True)).get_axes()

    alone, _ = variants(first).get_axes()
    for one, (early, late) in zip(lines(alone), zip(lines(left)[::2], lines(left)[1::2], strict=True), strict=True):
        np.testing.assert_allclose(early.get_ydata(), one.get_ydata())
        np.testing.assert_allclose(late.get_ydata(), one.get_ydata() + 3)
        assert early.get_color() == late.get_color() == one.get_color()
    assert len(lines(right)) == 2 * len(lines(alone))


def test_divergence_is_marked_and_a_step_that_was_not_measured_is_not():
    figure = variants(variants_frame([run_fields()], diverge_after=400))

    for axes in figure.get_axes():
        assert [x for x, _ in crosses(axes)] == [400]
    assert not any(crosses(axes) for axes in variants(variants_frame([run_fields()])).get_axes())


def test_variants_of_any_name_are_drawn():
    frame = variants_frame([run_fields()])
    named = frame.assign(settings=frame["settings"].replace({"constant_top": "half_inside"}))
    figure = variants(named)
    assert {"SGD", "half_inside"} <= set(legend_labels(figure))
    assert len(lines(figure.get_axes()[0], color=GREY)) == 1
