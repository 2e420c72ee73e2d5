"""The figure ``schedules``, judged by what it has drawn."""

import numpy as np
import pytest
from figures.invented import EPOCHS, crosses, curvature, levels, run_fields, spectrum_frame, switched

from sharpness.analysis.figures.schedules import schedules


def test_the_change_is_drawn_and_the_line_around_it_is_only_hinted_at():
    runs = [run_fields(0), run_fields(1)]
    (axes,) = schedules(spectrum_frame(switched(runs))).get_axes()

    upright = [line for line in axes.get_lines() if list(line.get_ydata()) == [0, 1]]
    assert sorted(line.get_xdata()[0] for line in upright) == [1, 15]
    means = dict(zip(EPOCHS, np.mean([curvature(fields) for fields in runs], axis=0), strict=True))
    for mark in upright:
        change, colour = mark.get_xdata()[0], mark.get_color()
        before, after = EPOCHS[change >= EPOCHS], EPOCHS[change < EPOCHS]
        same = [line for line in axes.get_lines() if line.get_color() == colour and line is not mark]
        whole = [line for line in same if line.get_linestyle() == "-"]
        # A mark at each checkpoint, and no whole line from one side of the change to the other.
        assert [list(line.get_xdata()) for line in whole] == [list(before), list(after)]
        assert {line.get_marker() for line in whole} == {"."}
        (hint,) = (line for line in same if line.get_linestyle() == ":")
        assert list(hint.get_xdata()) == [before[-1], after[0]]
        assert list(hint.get_ydata()) == pytest.approx([means[before[-1]], means[after[0]]])
    assert list(levels(axes).values()) == [pytest.approx(2 / 0.005)]  # the later one of two in black
    assert [entry.get_text() for entry in axes.get_legend().get_texts()] == ["after epoch 1", "after epoch 15", "never"]


@pytest.mark.parametrize(("end", "places"), [(0.5, [0.4] * 3), (8, [8] * 3)])
def test_a_lost_run_has_one_cross_wherever_it_was_lost(end, places):
    (axes,) = schedules(spectrum_frame(switched([run_fields(0), run_fields(1)]), diverge_after=end)).get_axes()

    assert sorted(x for x, _ in crosses(axes)) == places
