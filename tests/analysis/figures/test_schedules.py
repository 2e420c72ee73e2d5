"""The figure ``schedules``, judged by what it has drawn."""

import pytest
from figures.invented import lines, run_fields, spectrum_frame, switched

from sharpness.analysis.figures.schedules import schedules


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
