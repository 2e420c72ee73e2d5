"""One of the processes of ``test_parts``, with its part of the examples: ``rank world folder``."""

import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, nn

from sharpness import CurvatureTracker

INPUTS = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
CLASSES = torch.randint(0, 3, (24,), generator=torch.Generator().manual_seed(2))
CLASSES[[1, 9, 20]] = -100
REAL = torch.randn(24, 3, generator=torch.Generator().manual_seed(3))
SIZES = (3, 8, 24)  # of mini-batches: often without an example of the smaller part, larger than it, and all


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def part(rank, world):
    """Of very different lengths."""
    return slice(0, 24) if world == 1 else (slice(0, 4) if rank == 0 else slice(4, 24))


def measured(rank, world):
    """Batch Sharpness and its standard error by loss and size of the mini-batches."""
    here, found = part(rank, world), {}
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]))
    for name, loss, targets in (("classes", weighted, CLASSES), ("squares", nn.MSELoss(), REAL)):
        for size in SIZES:
            tracker = CurvatureTracker(
                network(),
                (INPUTS[here], targets[here]),
                loss,
                batch_sharpness=6,
                batch_size=size,
                precision="float64",
            )
            record = tracker.measure()
            found[name, size] = record.batch_sharpness, record.batch_sharpness_error
    return found


def said_by(**settings):
    try:
        CurvatureTracker(network(), **settings)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def refusals(rank, world, folder):
    """What each process says where one of them, or both, have something wrong."""
    here = part(rank, world)
    data = INPUTS[here], CLASSES[here]
    path = folder / "curvature.csv"
    path.touch()
    return {
        "too many": said_by(data=data, batch_sharpness=2, batch_size=25),
        "a setting": said_by(data=data, batch_sharpness=2, batch_size=25 if rank else 4),
        "a file": said_by(data=data, to=path),
    }


if __name__ == "__main__":
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    store = distributed.FileStore(str(folder / "store"), world)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    result = {"measured": measured(rank, world), "refusals": refusals(rank, world, folder)}
    torch.save(result, folder / f"{rank}.pt")
    distributed.destroy_process_group()
