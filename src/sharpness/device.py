"""Where tensors live and how exactly: the only code that touches torch's backends."""

from __future__ import annotations

import os

import torch


def choose_device(*, threads: int) -> torch.device:
    """The GPU where there is one, else the CPU, set up so that the same job gives the same bits.

    Args:
        threads: of the CPU; a different number may give different bits.
    """
    torch.set_num_threads(threads)
    # Deterministic where torch can be, with a warning in the log where it cannot. use_deterministic_algorithms would do
    # the same and import the compiler on top: 1.5 seconds of every job.
    torch.set_deterministic_debug_mode("warn")
    # Otherwise every new tensor is filled with NaN first, which costs a pass over memory and finds nothing here.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (torch has no type for it)
    # Hessian-vector products need all of float32: TF32 keeps only 10 bits of the mantissa.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    # cuBLAS is deterministic only with a workspace of a fixed size; it reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe_device(device: torch.device) -> dict[str, str]:
    """What may change the last bits of a result: for its provenance."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "device": f"{device.type} {name}", "threads": str(torch.get_num_threads())}
