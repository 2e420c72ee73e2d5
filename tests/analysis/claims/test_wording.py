"""How numbers and settings are written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpness.analysis.claims import wording


@given(st.floats(1e-300, 1e300), st.integers(-20, 20))
def test_a_rounded_value_forgets_what_the_order_of_a_sum_changes(value, ulps):
    rounded = wording.rounded(value)

    assert rounded == pytest.approx(value, rel=1e-11)
    assert wording.rounded(rounded * (1 + ulps * 2.0**-52)) == rounded


@given(st.floats(-1e300, 1e300))
def test_a_number_is_written_with_three_digits(value):
    text = wording.number(value)

    assert float(text.replace(",", "")) == pytest.approx(value, rel=5.1e-3, abs=0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (np.False_, "false"), ("SGD(0.1)", "SGD(0.1)"), (0.05, "0.05"), (128.0, "128"), (np.inf, "full")],
)
def test_a_setting_is_written_as_in_the_config_and_a_name_as_it_is(value, text):
    assert wording.setting_text(value) == text
