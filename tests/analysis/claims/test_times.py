"""Planned times fall on steps of each batch size, and are one for all of them."""

import numpy as np
import pandas as pd
import pytest

from sharpness.analysis.claims.times import planned_times

STEPS_PER_EPOCH = {8: 625, 32: 157, 128: 40, 1024: 5}
AT_EPOCHS = [0.5, 0.75, 1, 1.25, 1.5, 2.5, 5, 15.25]


def planned():
    """Checkpoints of each batch size: by doubling through the first epoch, and at epochs."""
    rows = []
    for batch_size, per_epoch in STEPS_PER_EPOCH.items():
        doubling = [0, *(2**power for power in range(10) if 2**power < per_epoch)]
        steps = sorted({*doubling, *(round(epoch * per_epoch) for epoch in AT_EPOCHS)})
        rows += [
            {"run": f"bs{batch_size}", "step": step, "epoch": step / per_epoch, "settings": "leading"} for step in steps
        ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("epoch", AT_EPOCHS)
def test_a_planned_epoch_is_one_time_for_all_batch_sizes(epoch):
    rows = planned()
    found = rows.assign(time=planned_times(rows)).set_index(["run", "step"])["time"]
    # Of five steps an epoch, no step is near 0.75: the step 4 is that of 0.8.
    sizes = [size for size in STEPS_PER_EPOCH if size < 1024 or epoch >= 1]
    times = {found[f"bs{size}", round(epoch * STEPS_PER_EPOCH[size])] for size in sizes}
    assert times == {round(epoch * 625) / 625}


def test_the_order_of_a_runs_own_checkpoints_stays():
    rows = planned()
    times = planned_times(rows)
    for run, of_run in rows.assign(time=times).groupby("run"):
        assert of_run["time"].is_monotonic_increasing
        assert of_run["time"].is_unique
        half_steps = 0.5 / STEPS_PER_EPOCH[int(run[2:])] + 0.5 / 625
        assert (of_run["time"] - of_run["epoch"]).abs().max() <= half_steps * (1 + 1e-9)


def test_a_run_that_was_lost_moves_no_time():
    rows = planned()
    lost = rows[rows["run"] == "bs32"].head(1).assign(run="lost")
    both = pd.concat([rows, lost], ignore_index=True)
    np.testing.assert_array_equal(planned_times(both)[: len(rows)], planned_times(rows))


def test_runs_of_one_batch_size_keep_their_epochs():
    rows = pd.concat([planned().query("run == 'bs32'").assign(run=name) for name in "abc"], ignore_index=True)
    np.testing.assert_array_equal(planned_times(rows), rows["epoch"])
