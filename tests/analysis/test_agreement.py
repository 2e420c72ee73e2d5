"""What cheaper settings change: the numbers against plain numpy on tables made up here."""

import numpy as np
import pandas as pd
import pytest

from sharpness.analysis.agreement import QUANTITIES, compare, label_ways

STEPS = (0, 10, 20)
FIELDS = {"data": "digits", "model": "simple_cnn", "learning_rate": 0.1, "batch_size": 32, "settings": "leading"}


def frames(values, *, field="precision", grid="passes", diverged=(), gamma=1.0):
    """History and spectrum of runs: from (way, seed) to log10 of the largest eigenvalue at the three steps.

    The test accuracy at the last epoch is the last of them over ten, and log10 of the training loss its opposite.
    """
    history, spectrum = [], []
    for (way, seed), logs in values.items():
        run = FIELDS | {"grid": grid, "run": f"{grid}-{way}-{seed}", "seed": seed, "gamma": gamma, field: way}
        for epoch, (step, log) in enumerate(zip(STEPS, logs, strict=True)):
            place = run | {"step": step, "epoch": float(epoch)}
            lost = (way, seed) in diverged and epoch > 0
            value = np.nan if lost else 10.0**log
            ranks = [{"rank": rank, "eigenvalue": value * factor} for rank, factor in ((0, 1.0), (1, 0.75))]
            place["diverged"] = lost
            spectrum += [place | rank | {"which": "largest", "checkpoint": "planned"} for rank in ranks]
            spectrum.append(place | {"rank": 0, "eigenvalue": -9.0, "which": "smallest", "checkpoint": "planned"})
            outcome = {
                "test_accuracy": log / 10,
                "training_loss": 10.0**-log,
                "num_direction_products": 7 * (epoch > 0),
            }
            history.append(place | outcome)
    return pd.DataFrame(history), pd.DataFrame(spectrum)


VALUES = {
    ("float32", 0): (1.0, 2.0, 3.0),
    ("float32", 1): (1.0, 2.2, 3.4),
    ("bfloat16", 0): (1.0, 2.1, 3.3),
    ("bfloat16", 1): (1.0, 2.5, 3.7),
}


def test_differences_and_spreads_are_those_of_numpy():
    table = compare(*frames(VALUES)).set_index("quantity")
    assert list(table.index) == list(QUANTITIES)
    ours = np.array([VALUES["float32", seed][1:] for seed in (0, 1)])
    theirs = np.array([VALUES["bfloat16", seed][1:] for seed in (0, 1)])
    differences = theirs.mean(axis=0) - ours.mean(axis=0)
    variances = (ours.var(axis=0, ddof=1) + theirs.var(axis=0, ddof=1)) / 2
    largest = table.loc["largest eigenvalue"]
    assert largest["difference"] == pytest.approx(np.sqrt((differences**2).mean()))
    assert largest["spread"] == pytest.approx(np.sqrt(variances.mean()))
    assert largest["ratio"] == pytest.approx(largest["difference"] / largest["spread"])
    # At the last step, with a sign; both eigenvalues have one factor, which does not change differences of logarithms.
    for quantity, factor in (("frobenius norm", 1.0), ("test accuracy", 0.1), ("training loss", -1.0)):
        assert table.loc[quantity, "difference"] == pytest.approx(factor * differences[-1])
        assert table.loc[quantity, "spread"] == pytest.approx(abs(factor) * np.sqrt(variances[-1]))
    assert (table["reference"] == "precision float32").all()
    assert (table["way"] == "precision bfloat16").all()
    assert (table["seeds"] == 2).all()
    assert (table["products"] == 7).all()


def test_a_way_agrees_where_it_differs_by_no_more_than_the_spread():
    moved = {key: logs if key[0] == "float32" else tuple(log + 1 for log in logs) for key, logs in VALUES.items()}
    assert not compare(*frames(moved))["agrees"].any()
    same = {(way, seed): VALUES["float32", seed] for way, seed in VALUES}
    table = compare(*frames(same))
    assert table["agrees"].all()
    assert (table["difference"] == 0).all()


def test_a_diverged_seed_has_no_part_in_the_means_and_is_counted():
    more = VALUES | {("bfloat16", 2): (9.0, 9.0, 9.0)}
    without, with_one = compare(*frames(VALUES)), compare(*frames(more, diverged=[("bfloat16", 2)]))
    columns = ["difference", "spread", "ratio", "agrees"]
    pd.testing.assert_frame_equal(with_one[columns], without[columns])
    assert (with_one["diverged"] == 1).all()
    assert (with_one["seeds"] == 3).all()


def test_each_grid_is_compared_with_its_own_first_way():
    tables = [frames(VALUES), frames(VALUES, grid="directions", field="direction_tolerance", gamma=0.1)]
    with_numbers = [
        pd.concat([one, other.replace({"direction_tolerance": {"float32": 0.01, "bfloat16": 0.3}})], ignore_index=True)
        for one, other in zip(*tables, strict=True)
    ]
    table = compare(*with_numbers)
    assert list(table["grid"].unique()) == ["passes", "directions"]
    assert set(table.loc[table["grid"] == "directions", "way"]) == {"tolerance 0.3"}
    assert set(table.loc[table["grid"] == "directions", "reference"]) == {"tolerance 0.01"}


def test_a_grid_of_one_way_has_nothing_to_compare():
    history, spectrum = frames({key: logs for key, logs in VALUES.items() if key[0] == "float32"})
    assert set(label_ways(spectrum)["way"]) == {"all"}
    assert compare(history, spectrum).empty


def test_plain_sgd_beside_nudged_runs_is_told_apart_by_its_precision():
    rows = [
        {"data": "digits", "model": "simple_cnn", "grid": "ways", "run": f"{gamma}-{precision}", "gamma": gamma}
        | {"precision": precision}
        for gamma, precision in ((0.1, "float32"), (1.0, "float32"), (1.0, "bfloat16"))
    ]
    ways = label_ways(pd.DataFrame(rows))
    assert list(ways["way"]) == ["gamma 0.1", "SGD, precision float32", "SGD, precision bfloat16"]


def test_runs_that_all_stopped_before_their_checkpoints_compare_nothing():
    table = compare(
        pd.DataFrame({"run": ["one"], "grid": ["ways"]}), pd.DataFrame(columns=["experiment", "grid", "run"])
    )
    assert table.empty
    assert {"way", "quantity", "agrees", "products"} <= set(table)
