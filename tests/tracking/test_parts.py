"""Batch Sharpness over two processes with unequal parts: of the same mini-batches as in one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sharpness
from tests.tracking import parts_child as child


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes found, one after the other in the list."""
    folder = tmp_path_factory.mktemp("parts")
    environment = {**os.environ, "PYTHONPATH": str(Path(sharpness.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", child.__file__]
    running = [
        subprocess.Popen([*command, str(rank), "2", str(folder)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=200)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.slow
def test_mini_batches_are_drawn_from_the_parts_of_all_processes(found):
    one = child.measured(0, 1)
    assert found[0]["measured"] == found[1]["measured"]
    for case, (value, error) in found[0]["measured"].items():
        assert value == pytest.approx(one[case][0], rel=1e-9), case
        assert error == pytest.approx(one[case][1], rel=1e-9, abs=1e-12), case


@pytest.mark.slow
def test_what_is_wrong_in_one_process_is_said_in_both(found):
    first, second = (process["refusals"] for process in found)
    other = "RuntimeError: the tracker could not be made in 1 of 2 processes, which say why"
    assert first["too many"] == second["too many"]
    assert first["too many"] == "ValueError: batch_size must be at most 24, the examples in the data, got 25"
    assert (first["a setting"], second["a setting"]) == (other, first["too many"])
    assert first["a file"].startswith("FileExistsError")
    assert second["a file"] == other
