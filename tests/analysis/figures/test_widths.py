"""The figure ``widths``, judged by what it has drawn."""

import numpy as np
import pandas as pd
import pytest
from figures.invented import crosses, legend_labels, run_fields, saved
from matplotlib.colors import to_hex

from sharpness.analysis.figures.palette import colour_of
from sharpness.analysis.figures.widths import widths, widths_of_runs


def bowls(halves, *, by="distance", epochs=(0.0, 2.0, 4.0, 6.0)):
    """Slices of loss 1 + c d^2, c the half of the curvature, by rate, seed and epoch; at 0, 0.01, ..., 0.5."""
    rows = []
    for (rate, seed), of_epochs in halves.items():
        for epoch, half in zip(epochs, of_epochs, strict=True):
            for place in np.linspace(-0.5, 0.5, 101):
                fields = {
                    **run_fields(seed, grid="learning_rate", learning_rate=rate),
                    "step": epoch * 10,
                    "epoch": epoch,
                }
                rows.append(
                    {**fields, "k": place / 0.02, "scale": 0.02, "loss": 1 + half * place**2, "eigenvalue": 2 * half}
                )
    table = pd.DataFrame(rows).assign(diverged=False)
    return table.assign(distance=table["k"] * table["scale"]) if by == "distance" else table


# 0.1 is reached at the root of 0.1 / c: 0.1, 0.2, 0.25 and not at all. The slice at epoch 0 does not count.
HALVES = {
    (0.01, 0): [1e9, 10, 10, 10],
    (0.01, 1): [1e9, 10, 2.5, 1.6],
    (0.05, 0): [1e9, 2.5, 0.1, 0.1],  # two of three are open
    (0.05, 1): [1e9, 2.5, 2.5, 0.1],
}


@pytest.mark.parametrize("by", ["distance", "steps"])
def test_the_width_of_a_run_is_the_median_distance_at_which_the_loss_has_risen(by):
    table = widths_of_runs(bowls(HALVES, by=by)).set_index(["learning_rate", "seed"])

    assert table["width"].to_dict() == {
        (0.01, 0): pytest.approx(0.1, rel=1e-2),
        (0.01, 1): pytest.approx(0.2, rel=1e-2),
        (0.05, 0): np.inf,
        (0.05, 1): pytest.approx(0.2, rel=1e-2),
    }
    assert table["is_bound"].to_dict() == {key: key == (0.05, 0) for key in HALVES}


def test_the_loss_rises_by_an_amount_and_not_by_a_share():
    table = bowls(HALVES)
    # A loss that is ten times as high at the bottom has the same bowl.
    raised = table.assign(loss=table["loss"] + 9)
    np.testing.assert_allclose(widths_of_runs(raised)["width"], widths_of_runs(table)["width"])


def dots(axes, *, is_open):
    return sorted(
        (to_hex(line.get_color()), float(x), float(y))
        for line in axes.get_lines()
        if line.get_marker() == "o" and (line.get_fillstyle() == "none") == is_open
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    )


def test_a_width_beyond_the_grid_is_an_open_dot_at_the_upper_edge():
    figure = widths(bowls(HALVES))
    (axes,) = figure.get_axes()

    slow, fast = (colour_of("learning_rate", rate) for rate in (0.01, 0.05))
    assert [(colour, x) for colour, x, _ in dots(axes, is_open=False)] == sorted([(slow, 0), (slow, 0), (fast, 1)])
    ((colour, x, y),) = dots(axes, is_open=True)
    assert (colour, x) == (fast, 1)
    assert y == axes.get_ylim()[1] > 0.2
    (line,) = (line for line in axes.get_lines() if line.get_marker() == "None")
    assert list(line.get_ydata()) == pytest.approx([0.15, (0.2 + y) / 2], rel=1e-2)
    assert "wider than was measured" in legend_labels(figure)
    assert saved(figure) > 5000


def test_widths_that_are_all_known_have_no_open_dot_and_none_known_only_open_ones():
    known = widths(bowls({key: [10] * 4 for key in HALVES}))
    assert not dots(known.get_axes()[0], is_open=True)
    assert "wider than was measured" not in legend_labels(known)
    beyond = widths(bowls({key: [0.1] * 4 for key in HALVES}))
    assert len(dots(beyond.get_axes()[0], is_open=True)) == 4
    assert saved(beyond) > 5000


def test_a_diverged_run_is_a_cross():
    table = bowls(HALVES)
    lost = (table["seed"] == 1) & (table["epoch"] == 6)
    table = table.assign(diverged=lost, loss=table["loss"].mask(lost))

    (axes,) = widths(table).get_axes()

    assert len(crosses(axes)) == 1
    assert len(dots(axes, is_open=False)) == 1
