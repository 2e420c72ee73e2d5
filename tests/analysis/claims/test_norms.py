"""Norms at equal training loss, on courses whose norm is a known function of the loss."""

import math

import numpy as np
import pandas as pd
import pytest
from claims.invented import history_rows, spectrum_rows, together
from hypothesis import given
from hypothesis import strategies as st

from sharpness.analysis.claims.collected import collected
from sharpness.analysis.claims.norms import at_equal_loss, norms_of, with_losses


def course(log_losses, log_norms):
    return pd.DataFrame({"log_loss": log_losses, "log_norm": log_norms})


@given(
    st.lists(st.floats(0.05, 1), min_size=1, max_size=6),
    st.lists(st.floats(0.05, 1), min_size=1, max_size=6),
    st.floats(-2, 2),
    st.floats(-2, 2),
)
def test_power_laws_of_the_loss_differ_by_their_factors(falls, others, exponent, decades):
    """log F = exponent * log L + constant: at any common loss, the difference is that of the constants."""
    one, other = (np.concatenate([[1.0], 1 - np.cumsum(steps)]) for steps in (falls, others))

    found, level = at_equal_loss(course(one, exponent * one + decades), course(other, exponent * other))

    assert found == pytest.approx(decades, abs=1e-9)
    # The lowest that both reach.
    assert level == pytest.approx(max(one.min(), other.min()))
    back, _ = at_equal_loss(course(other, exponent * other), course(one, exponent * one + decades))
    assert back == pytest.approx(-decades, abs=1e-9)


def test_the_first_time_at_a_loss_counts():
    """A run whose loss comes back up has been there before."""
    one = course([1, 0, 0.5, 0], [0, 1, 9, 9])
    assert at_equal_loss(one, course([1, 0], [0, 0])) == (1, 0)


def test_runs_that_share_no_loss_are_not_compared():
    assert math.isnan(at_equal_loss(course([0.0, -1], [0, 0]), course([2, 1], [0, 0]))[0])
    assert math.isnan(at_equal_loss(course([1.0], [0]), course([2, 1], [0, 0]))[0])
    assert math.isnan(at_equal_loss(course([1.0, np.nan], [0, 0]), course([2, 1], [0, 0]))[0])


def test_the_loss_between_two_epochs_of_the_history_falls_by_equal_factors():
    tables = [
        ("nudged", "spectrum", together(spectrum_rows([1.0, 4.0], epochs=[0, 1.5]))),
        ("nudged", "history", history_rows([1, 1, 1], [1, 1, 1], losses=[2.0, 1.0, 0.25])),
    ]
    study = collected(tables)
    found = with_losses(norms_of(study, "nudged"), study.rows("history", "nudged"))

    assert found["log_loss"].tolist() == pytest.approx([math.log10(2), math.log10(0.5)])
    # The second eigenvalue is half the first.
    assert found["log_norm"].tolist() == pytest.approx([math.log10(math.hypot(v, v / 2)) for v in (1.0, 4.0)])
