"""Which runs a claim compares with one another."""

import re

import numpy as np
import pandas as pd
import pytest
from claims.invented import RATES, STRENGTHS, bowls, heights_along, nudged_norms, rows_of, together, verdict_of

from sharpness.analysis.claims.collected import collected
from sharpness.analysis.claims.deciding import decide
from sharpness.analysis.claims.subjects import over_settings


def test_models_and_what_is_fixed_make_rows_of_their_own():
    tables = []
    for model, answer in (("simple_cnn", "holds"), ("resnet8", "does not hold")):
        made = heights_along("learning_rate", RATES, STRENGTHS[answer])
        tables += [(kind, name, table.assign(model=model, run=model + table["run"])) for kind, name, table in made]
    made = heights_along("learning_rate", RATES, STRENGTHS["undecided"])
    tables += [(kind, name, table.assign(momentum=0.9, run="m" + table["run"])) for kind, name, table in made]

    rows = {(row["model"], row["configuration"]): row["verdict"] for row in rows_of(tables, "b")}

    assert rows == {
        ("simple_cnn", "momentum 0, batch size 32"): "holds",
        ("resnet8", "batch size 32"): "does not hold",
        ("simple_cnn", "momentum 0.9, batch size 32"): "undecided",
    }


def two_settings(name, factor):
    """The tables of claim b, and the same runs measured again: eigenvalues times a factor that turns their order."""
    (first,) = heights_along("learning_rate", RATES, STRENGTHS["holds"])
    again = first[2].assign(settings=name)
    again["eigenvalue"] *= again["learning_rate"].map(dict(zip(RATES, factor, strict=True)))
    return [first, (*first[:2], again)]


@pytest.mark.parametrize("order", [1, -1])
def test_a_block_of_the_hessian_decides_no_claim_on_its_largest_eigenvalue(order):
    whole = {"num_examples": 65, "resample": False, "augment": False, "parameters": "*"}
    known = {"leading": whole, "first_layer": {**whole, "parameters": "0.*"}}
    tables = two_settings("first_layer", (1, 100, 10_000))[::order]
    table = decide(collected(tables, known))
    (row,) = table[table["claim"] == "b"].to_dict("records")
    (alone,) = rows_of(two_settings("first_layer", (1, 1, 1))[:1], "b")
    assert (row["verdict"], row["measured"], row["configuration"]) == ("holds", alone["measured"], "batch size 32")


@pytest.mark.parametrize("order", [1, -1])
def test_runs_that_were_measured_twice_are_judged_twice(order):
    rows = rows_of(two_settings("resampled", (1, 100, 10_000))[::order], "b")
    assert {row["configuration"]: row["verdict"] for row in rows} == {
        "settings leading, batch size 32": "holds",
        "settings resampled, batch size 32": "does not hold",
    }


def test_runs_of_two_lengths_are_judged_apart_where_a_seed_has_both():
    (short,) = heights_along("learning_rate", RATES, STRENGTHS["holds"])
    (long,) = heights_along("learning_rate", RATES, STRENGTHS["does not hold"])
    longer = long[2].assign(epochs=20, run=long[2]["run"] + "-e20")
    rows = rows_of([short, ("eigenvalues", "spectrum", longer)], "b")
    assert {row["configuration"]: row["verdict"] for row in rows} == {
        "batch size 32, epochs 10": "holds",
        "batch size 32, epochs 20": "does not hold",
    }
    # A length that goes with the setting is no reason to compare nothing.
    mixed = short[2].assign(epochs=np.where(short[2]["learning_rate"] == RATES[0], 20, 10))
    assert verdict_of([("eigenvalues", "spectrum", mixed)], "b")["verdict"] == "holds"


def test_nudged_runs_of_other_directions_are_judged_apart_beside_the_same_sgd():
    (_, _, rows), (_, _, history) = nudged_norms((0.01,), lambda s: 0.5 + s)(STRENGTHS["holds"])
    rows = rows.assign(num_directions=np.where(rows["gamma"] == 1, 0, 5))
    nudged_more = rows[rows["gamma"] != 1]
    more = nudged_more.assign(
        num_directions=10, run=nudged_more["run"] + "-K10", eigenvalue=1.0 + 0.1 * nudged_more["seed"]
    )
    histories = [history, history.assign(run=history["run"] + "-K10")]
    found = rows_of([("nudged", "spectrum", together(rows, more)), ("nudged", "history", together(*histories))], "k")
    words = {re.search(r"num directions (\d+)", row["configuration"]).group(1): row["verdict"] for row in found}
    assert words == {"5": "holds", "10": "does not hold"}


def test_bowls_of_two_rates_are_not_averaged():
    parts = [table for _, _, table in bowls(STRENGTHS["holds"])]
    faster = [table for _, _, table in bowls(STRENGTHS["does not hold"])]
    faster = [table.assign(learning_rate=0.7, run=table["run"] + "-faster") for table in faster]
    rows = rows_of([("slices", "slices", together(*parts, *faster))], "f")
    assert {row["configuration"]: row["verdict"] for row in rows} == {
        "learning rate 0.1": "holds",
        "learning rate 0.7": "does not hold",
    }


def test_a_diverged_run_of_one_setting_is_no_number_and_of_two_no_difference():
    rows = pd.DataFrame(
        [(0, 0.1, 1.0, False), (0, 1.0, 3.0, False), (1, 0.1, 2.0, False), (1, 1.0, np.nan, True)],
        columns=["seed", "gamma", "value", "lost"],
    )
    cells = over_settings(rows, "gamma", "value")
    assert cells.less(1.0, 0.1).tolist() == [2.0, 0.0]
    assert cells.less(1.0, 0.1, when_lost=np.inf).tolist() == [2.0, np.inf]
    assert cells.in_words("gamma", logs=False) == "gamma 0.1: 1.50 ± 0.71, 1: 3.00 (1 diverged)"


@pytest.mark.parametrize("rises", [True, False])
def test_in_an_order_a_diverged_run_lies_beyond_what_was_not_seen(rises):
    # The second seed's first run peaks at or after the end, at whichever end that is; its last one diverged.
    beyond = -np.inf if rises else np.inf
    rows = pd.DataFrame(
        [(0, 1, 1.0), (0, 2, 2.0), (0, 3, 2.0), (1, 1, beyond), (1, 2, 0.9), (1, 3, np.nan)],
        columns=["seed", "batch_size", "value"],
    ).assign(lost=[False] * 5 + [True])
    ranks = over_settings(rows, "batch_size", "value").against(rises=rises)
    assert ranks.loc[0].tolist() == [1.0, 2.5, 2.5]
    order = ranks.loc[1].rank().tolist()
    assert order == ([2.0, 3.0, 1.0] if rises else [2.0, 1.0, 3.0])


def test_settings_with_neither_a_value_nor_a_diverged_run_are_left_out():
    rows = pd.DataFrame([(0, 0.1, 1.0, False), (0, 1.0, np.nan, False)], columns=["seed", "gamma", "value", "lost"])
    assert list(over_settings(rows, "gamma", "value").values) == [0.1]
