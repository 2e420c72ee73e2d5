"""Examples over two processes: the same pairs, losses and gradients, to rounding, as in one."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import distributed_child as child
import pytest
import torch

import sharpness

NCCL = pytest.param(
    "nccl",
    marks=pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs: NCCL gives each process one"),
)


@pytest.fixture(scope="module", params=["gloo", NCCL])
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory, backend):
    return tmp_path_factory.mktemp(backend)


@pytest.fixture(scope="module")
def found(folder, backend):
    """What two processes found, one after the other in the list."""
    source = str(Path(sharpness.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", child.__file__]
    running = [
        subprocess.Popen(
            [*command, str(rank), "2", str(folder), backend], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    return child.measured(child.network(), 0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("case", child.cases(0, 1))
def test_two_processes_find_what_one_finds(found, alone, case):
    one = alone[case]
    for each in (process["measured"][case] for process in found):
        torch.testing.assert_close(each["eigenvalues"], one["eigenvalues"], rtol=1e-8, atol=1e-10)
        cosines = (each["eigenvectors"] * one["eigenvectors"]).sum(dim=1).abs()
        torch.testing.assert_close(cosines, torch.ones(3, dtype=torch.float64))
        assert each["value"] == pytest.approx(one["value"], rel=1e-10)
        torch.testing.assert_close(each["gradient"], one["gradient"], rtol=1e-8, atol=1e-10)
        assert each["num_examples"] == 31


@pytest.mark.slow
def test_both_processes_have_the_same_bits(found):
    for case in child.cases(0, 1):
        one, other = (process["measured"][case] for process in found)
        assert torch.equal(one["eigenvectors"], other["eigenvectors"])


@pytest.mark.slow
def test_a_model_in_ddp_is_taken_as_it_is(found):
    for process in found:
        assert torch.equal(process["of DDP"]["eigenvectors"], process["measured"]["classes"]["eigenvectors"])


@pytest.mark.slow
def test_a_process_may_measure_alone(found):
    for rank, process in enumerate(found):
        operator = sharpness.HessianOperator(child.network(), *child.cases(rank, 2)["classes"]["data"])
        assert process["alone"] == pytest.approx(operator.value(), rel=1e-5)
    assert found[0]["alone"] != found[1]["alone"]


@pytest.mark.slow
def test_no_process_goes_on_where_another_fails(found):
    one, other = (process["refusals"] for process in found)
    assert other["a label"].startswith("ValueError: targets[7] is 3")
    assert one["a label"] == "RuntimeError: the operator could not be built in 1 of 2 processes, which say why"
    assert one["not finite"].startswith("FloatingPointError: 0.weight is not finite")
    assert other["not finite"].startswith("FloatingPointError: the operator could not be built in 1 of 2")
    for said in (one, other):
        assert said["weights"].startswith("ValueError: the weights differ between the processes")
        assert said["a sampler"].startswith("ValueError: the DistributedSampler repeats 1 of 31 examples")
        assert said["a group"].startswith("TypeError: process_group must be None, False")


@pytest.mark.slow
def test_operators_of_other_settings_are_never_added_up(found):
    for process in found:
        said = process["refusals"]["settings"]
        assert len(said) == 7
        for name, words in said.items():
            assert words.startswith(f"ValueError: {name} differs between the processes: give the same")


@pytest.mark.slow
def test_a_training_over_processes_is_tracked_and_written_once(found, folder, tmp_path):
    values, sharpnesses = child.tracked(0, 1, tmp_path / "curvature.csv")
    for process in found:
        for each, one in zip(process["tracked"][0], values, strict=True):
            assert each == pytest.approx(one, rel=0.05)
    assert found[0]["tracked"] == found[1]["tracked"]
    assert all(sharpness > 0 for sharpness in sharpnesses)
    with (folder / "curvature.csv").open(encoding="utf-8") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4", "6"]
