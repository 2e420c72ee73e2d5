"""The claims on variants of SGD."""

import math

import numpy as np
import pytest
from claims.invented import STRENGTHS, history_rows, rows_of, together, variant_rows, variants_of, verdict_of


@pytest.mark.parametrize(
    ("losses", "answer"),
    [((1.0, 1.1, 0.95), "holds"), ((2.0, 2.1, 1.9), "does not hold"), ((1.0, 2.0, 0.5), "undecided")],
)
def test_a_sharper_region_counts_only_at_the_same_loss(losses, answer):
    row = verdict_of(variants_of("top_removed", 1, losses=losses)(STRENGTHS["holds"]), "j")

    assert row["verdict"] == answer
    assert row["measured"].startswith("sharper: holds")
    assert f"the same loss: {answer}" in row["measured"]


def test_a_variant_is_averaged_over_the_last_quarter_where_it_was_measured_anew():
    row = verdict_of(variants_of("top_only", -1)([math.log10(2)] * 2), "i")

    # Twice, half and half: the mean is the value itself.
    assert "sgd: 10.0 ± 0.0, top_only: 5.00 ± 0.00" in row["measured"]
    assert "by the measured examples alone" in row["test"]


def test_a_variant_that_diverged_is_neither_sharper_nor_at_the_same_loss():
    tables = variants_of("top_removed", 1)([1.0, 1.1])
    lost = together(
        variant_rows("sgd", 10.0, 0.5, seed=2), variant_rows("top_removed", 1.0, 1.0, seed=2, diverged=True)
    )
    # Later in its own training this run diverged, after the switch.
    later = history_rows([1, 2], [1, 2], diverged=True, seed=0)

    row = verdict_of([*tables, ("variants", "variants", lost), ("variants", "history", later)], "j")

    assert (row["verdict"], row["seeds"], row["diverged"]) == ("undecided", 3, 1)
    assert row["effect"] == pytest.approx(np.mean([1.0, 1.1, 0.0]))
    assert "the same loss: undecided" in row["measured"]


def test_variants_without_plain_sgd_are_not_what_the_claims_are_about():
    rows = together(*(variant_rows("top_only", 1.0, 1.0, seed=seed) for seed in range(3)))

    assert rows_of([("variants", "variants", rows)], "i") == []
