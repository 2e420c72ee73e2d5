"""The claims on Nudged SGD."""

import math

import numpy as np
import pytest
from claims.invented import STRENGTHS, nudged_accuracies, nudged_norms, verdict_of
from scipy import stats


@pytest.mark.parametrize(
    ("numbers", "answer"),
    [([0.2, -0.1, 0.1], "holds"), ([3.0, 3.1, 2.9], "does not hold"), ([2.0, -0.5, 0.3], "undecided")],
)
def test_test_accuracies_are_alike_where_they_are_within_a_point(numbers, answer):
    row = verdict_of(nudged_accuracies(tested=lambda s: s)(numbers), "m")

    assert row["verdict"] == answer
    # The rate falls during training; the run's own is that of its beginning.
    assert row["configuration"] == "learning rate 0.1, batch size 32"
    assert row["effect"] == pytest.approx(np.mean(numbers))
    assert row["low"] == pytest.approx(stats.ttest_1samp(numbers, 0).confidence_interval().low)
    # The test accuracy is that at the best validation accuracy.
    assert "gamma 0.01: 8" in row["measured"]


def test_nudging_says_whether_it_is_sharper_at_all():
    row = verdict_of(nudged_norms((0.1,), lambda s: s)([0.5, 0.55, 0.45]), "k")

    assert row["verdict"] == "does not hold"  # a factor of 1.6 is not about ten
    assert "gamma 0.1 sharper at all: holds" in row["measured"]
    assert verdict_of(nudged_norms((0.1,), lambda s: s)([0.5, 0.55, 0.45]), "l")["verdict"] == "undecided"


def test_the_norm_is_that_of_the_tracked_eigenvalues_at_the_last_checkpoint():
    row = verdict_of(nudged_norms((0.1,), lambda s: s)([0.0, 0.0]), "k")

    assert f"gamma 0.1: {20 * math.sqrt(1.25):.1f} ± 0.0" in row["measured"]


def test_of_two_settings_that_measured_the_same_runs_the_one_with_more_eigenvalues_counts():
    (_, _, rows), *_ = nudged_norms((0.1,), lambda s: s)([2.0, 2.1])
    fewer = rows[(rows["which"] == "largest") & (rows["rank"] == 0)].assign(settings="fewer", eigenvalue=1.0)

    both = [("nudged", "spectrum", fewer), ("nudged", "spectrum", rows)]
    assert verdict_of(both, "k") == verdict_of([("nudged", "spectrum", rows)], "k")


def test_an_early_epoch_that_no_history_has_leaves_speed_undecided():
    row = verdict_of(nudged_accuracies(early=lambda s: s)(STRENGTHS["holds"]), "n", validation_epoch=50)

    assert (row["verdict"], row["seeds"]) == ("undecided", 0)
    assert "50 epochs" in row["would_decide"]
