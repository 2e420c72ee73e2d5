"""The setting of glibc's malloc, in processes of their own: it is made once, and not against the user's will."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sharpness.runtime import allocator

SOURCE = Path(__file__).parents[2] / "src"
COUNTING = """
from sharpness.runtime import allocator

calls = []
mallopt = allocator._mallopt
allocator._mallopt = lambda *given: calls.append((*given, mallopt(*given))) or True
"""
FAULTS = """
import resource, torch
from torch import nn
from sharpness import HessianOperator

model = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(64 * 32 * 32, 2))
operator = HessianOperator(model, torch.zeros(200, 1, 32, 32), torch.zeros(200, dtype=torch.int64))
torch.set_num_threads(1)
vector = torch.ones(operator.shape[0])
operator @ vector
faults = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    operator @ vector
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))
"""


FREED = """
import re, torch
from pathlib import Path
from torch import nn
from sharpness import HessianOperator
from sharpness.runtime import allocator

def resident():
    return int(re.findall(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[0]) // 1024

allocator.map_large_tensors()
# On the heap, below what stays: glibc returns none of it by itself.
blocks = [torch.zeros(2**18) for _ in range(600)]
last = [torch.zeros(100) for _ in range(10_000)]
del blocks
before = resident()
model = nn.Linear(4096, 2100)
operator = HessianOperator(model, torch.ones(2, 4096), torch.zeros(2, dtype=torch.int64))
print(before - resident())
"""


def run(script, **variables):
    """What a script prints, in an environment in which nobody has said anything of malloc."""
    names = ("LD_PRELOAD", "GLIBC_TUNABLES")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_") and name not in names}
    environment = {**plain, "PYTHONPATH": str(SOURCE), **variables}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_operators_keep_freed_memory_by_one_setting_per_process():
    script = """
import torch
from torch import nn
from sharpness import HessianOperator
for _ in range(3):
    HessianOperator(nn.Linear(3, 2), torch.ones(4, 3), torch.zeros(4, dtype=torch.int64))
print(calls)
"""
    # malloc.h: M_MMAP_MAX is -4, M_TRIM_THRESHOLD is -1, an int.
    assert run(COUNTING + script) == f"[(-4, 0, True), (-1, {2**31 - 1}, True)]"


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"MALLOC_MMAP_MAX_": "65536"},
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"MALLOC_MMAP_THRESHOLD_": "131072"},
        {"MALLOC_ARENA_MAX": "2"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"},
    ],
)
def test_what_the_user_has_set_is_left_alone(variables):
    assert run(f"{COUNTING}\nallocator.keep_freed_memory()\nprint(calls)", **variables) == "[]"


def test_variables_of_other_things_do_not_count():
    assert not allocator.is_tuned({"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F", "OMP_NUM_THREADS": "1"})
    assert allocator.is_tuned({"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"})


@pytest.mark.parametrize("answer", [None, "musl 1.2", ValueError, AttributeError, OSError])
def test_without_glibc_nothing_happens(monkeypatch, answer):
    def confstr(name):
        if isinstance(answer, type):
            raise answer
        return answer

    monkeypatch.setattr(allocator.os, "confstr", confstr)
    monkeypatch.setattr(allocator.os, "environ", {})
    monkeypatch.setattr(allocator, "_mallopt", None)
    allocator.keep_freed_memory.__wrapped__()


@pytest.mark.slow
def test_products_hardly_take_new_pages_from_the_system():
    # 50 MB a tensor; each page of 4 kB that is taken anew is a fault. The fewest of some products: a kernel that is
    # short of memory takes pages of a process that waits.
    kept = int(run(FAULTS))
    given_back = int(run(FAULTS, MALLOC_MMAP_THRESHOLD_="131072"))
    assert kept < given_back / 10
    assert given_back > 50e6 / resource.getpagesize()


@pytest.mark.slow
def test_an_operator_on_long_vectors_leaves_no_freed_memory_beside_them():
    # Of 600 MiB that are free, at least half are back, though the operator has some vectors of 33 MiB.
    assert int(run(FREED)) > 300
