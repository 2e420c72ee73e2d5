"""The width of brackets, by hand."""

import numpy as np
import pandas as pd
import pytest

from sharpness.analysis.brackets import in_words, widths_of

PLACE = {"run": "a", "settings": "leading", "which": "largest", "rank": 0, "checkpoint": "planned"}
# Of 100: 90 - 5 elsewhere, 60 - 5, 40 - 10; all images measured; one other image; nothing known.
ROWS = [
    {**PLACE, "step": 0, "eigenvalue": 100.0, "elsewhere": 90.0, "elsewhere_error": 5.0, "num_elsewhere": 250},
    {**PLACE, "step": 1, "eigenvalue": 100.0, "elsewhere": 60.0, "elsewhere_error": 5.0, "num_elsewhere": 250},
    {**PLACE, "step": 2, "eigenvalue": 100.0, "elsewhere": 40.0, "elsewhere_error": 10.0, "num_elsewhere": 250},
    {**PLACE, "step": 3, "eigenvalue": 100.0, "num_elsewhere": 0},
    {**PLACE, "step": 4, "eigenvalue": 100.0, "elsewhere": 99.0, "num_elsewhere": 1},
    {**PLACE, "step": 5, "eigenvalue": 100.0},
    {**PLACE, "step": 6, "eigenvalue": np.nan},
    {
        **PLACE,
        "step": 0,
        "rank": 1,
        "eigenvalue": 50.0,
        "elsewhere": 49.0,
        "elsewhere_error": 0.0,
        "num_elsewhere": 250,
    },
    {**PLACE, "step": 0, "which": "smallest", "eigenvalue": -2.0, "num_elsewhere": 250},
]


def test_the_width_is_the_distance_to_the_lower_end_less_a_standard_error():
    widths = widths_of(pd.DataFrame(ROWS))

    assert widths.index.get_level_values("step").tolist() == [0, 1, 2, 3, 4]
    assert widths.tolist() == pytest.approx([0.15, 0.45, 0.7, 0, np.inf])


def test_a_checkpoint_of_two_tables_counts_once():
    table = pd.DataFrame(ROWS)
    other = table.assign(run="b")
    told = in_words([table, table.assign(experiment="again"), other])
    assert "within 20 % of the measured one in 4 of 10 checkpoints" in told
    assert "within 50 % in 6" in told


def test_the_bracket_of_a_negative_eigenvalue_has_a_positive_width():
    row = {**ROWS[0], "eigenvalue": -10.0, "elsewhere": -12.0, "elsewhere_error": 1.0}
    assert widths_of(pd.DataFrame([row])).tolist() == pytest.approx([0.3])


def test_tables_of_an_older_version_say_nothing():
    older = pd.DataFrame(ROWS).drop(columns=["elsewhere", "elsewhere_error", "num_elsewhere"])
    assert in_words([older]) == in_words([]) == ""
