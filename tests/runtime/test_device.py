"""What chose the kernels that computed a result stands beside it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sharpness
from sharpness.runtime.device import environment

CHOOSING = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "MKL_DYNAMIC": "FALSE",
    "ATEN_CPU_CAPABILITY": "avx2",
    "OPENBLAS_CORETYPE": "Haswell",
    "OMP_SCHEDULE": "static",
    "KMP_DETERMINISTIC_REDUCTION": "1",
    "NVIDIA_TF32_OVERRIDE": "1",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":16:8",
    "CUDNN_CONV_WSCAP_DBG": "1",
}
NOT_CHOOSING = {
    "OMP_NUM_THREADS": "2",
    "MKL_NUM_THREADS": "2",
    "MKL_VERBOSE": "0",
    "ONEDNN_VERBOSE": "0",
    "OMP_DISPLAY_ENV": "FALSE",
    "KMP_VERBOSE": "0",
    "HOME": "/",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # that of every job
    "MY_MKL_CBWR": "AVX2",
}


@pytest.fixture
def kernels(monkeypatch):
    """What is recorded of these variables, with no others set."""

    def of(**variables):
        for name in list(os.environ):
            if name in CHOOSING or name.startswith(("OPENBLAS_", "OMP_", "MKL_", "CUBLAS_", "KMP_")):
                monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return environment(["sharpness.stages.collect"], torch.device("cpu"))["kernels"]

    return of


@pytest.mark.parametrize("name", CHOOSING)
def test_a_variable_that_chooses_kernels_is_recorded_with_its_value(kernels, name):
    assert kernels(**{name: CHOOSING[name]}) == f"{name}={CHOOSING[name]}"


@pytest.mark.parametrize("name", NOT_CHOOSING)
def test_other_variables_are_not(kernels, name):
    assert kernels(**{name: NOT_CHOOSING[name]}) == ""


PROGRAM = """
import torch
from sharpness.runtime.device import choose_device, environment
device = choose_device(threads=1)
generator = torch.Generator().manual_seed(0)
inputs, kernel = (torch.randn(shape, generator=generator) for shape in ((64, 16, 16, 16), (32, 16, 3, 3)))
bits = torch.nn.functional.conv2d(inputs, kernel).numpy().tobytes()
print(hash(bits), environment(["sharpness.stages.collect"], device)["kernels"].split())
"""


@pytest.mark.slow
def test_other_bits_come_with_another_record():
    said = []
    for variables in ({}, {"ONEDNN_MAX_CPU_ISA": "SSE41"}):
        source = str(Path(sharpness.__file__).parents[1])
        own = {**os.environ, "PYTHONPATH": source, "PYTHONHASHSEED": "0", "CUDA_VISIBLE_DEVICES": "", **variables}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=own, capture_output=True, text=True, check=True)
        said.append(done.stdout.split(maxsplit=1))
    assert said[0][0] != said[1][0]
    assert "ONEDNN_MAX_CPU_ISA=SSE41" in said[1][1]
    assert "ONEDNN_MAX_CPU_ISA" not in said[0][1]
