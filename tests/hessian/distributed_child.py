"""One of the processes of ``test_distributed``, with its part of the examples: ``rank world folder backend``."""

import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from sharpness import CurvatureTracker, HessianOperator, top_eigenpairs

INPUTS = torch.randn(31, 2, 4, 4, generator=torch.Generator().manual_seed(1))
CLASSES = torch.randint(0, 3, (31,), generator=torch.Generator().manual_seed(2))
CLASSES[[3, 20]] = -100
REAL = torch.randn(31, 3, generator=torch.Generator().manual_seed(3))
CPU = torch.device("cpu")


def own_loss(model, batch):
    return (model(batch["inputs"]) - batch["wanted"]).abs().pow(3).sum(), batch["wanted"].numel()


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))


def cases(rank, world, device=CPU):
    """Keyword arguments of operators, each with the part of the examples of one of several processes."""
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0], device=device))
    # Parts of different lengths.
    part = slice(0, 31) if world == 1 else (slice(0, 20) if rank == 0 else slice(20, 31))
    inputs, classes, real = (whole[part].to(device) for whole in (INPUTS, CLASSES, REAL))
    own = [{"inputs": few, "wanted": goal} for few, goal in zip(inputs.split(6), real.split(6), strict=True)]
    classified = {"data": (inputs, classes)}
    return {
        "classes": classified,
        "weights, a penalty": classified | {"loss": weighted, "l2": 0.1},
        "squares from a loader": {"data": DataLoader(TensorDataset(inputs, real), batch_size=4), "loss": nn.MSELoss()},
        "streamed": {
            "data": [(inputs[:5], real[:5]), (inputs[5:], real[5:])],
            "loss": nn.MSELoss(),
            "memory_budget": 20_000,
        },
        "a loss of one's own": {"data": own, "loss": own_loss},
        "Gauss-Newton": classified | {"curvature": "ggn"},
        "covariance": classified | {"curvature": "gradient_covariance"},
        "some parameters, preconditioned": classified
        | {"parameters": "3.*", "preconditioner": torch.linspace(0.5, 2, 39)},
    }


def measured(model, rank, world, names=None):
    """What each operator says of itself."""
    found, device = {}, next(model.parameters()).device
    for name, settings in cases(rank, world, device).items():
        if names is not None and name not in names:
            continue
        operator = HessianOperator(model, precision="float64", **settings)
        pairs = top_eigenpairs(operator, 3, tolerance=1e-9)
        found[name] = {
            "eigenvalues": pairs.eigenvalues,
            "eigenvectors": pairs.eigenvectors.cpu(),
            "value": operator.value(),
            "gradient": operator.gradient().cpu(),
            "num_examples": operator.provenance["num_examples"],
        }
    return found


def said_by(make):
    try:
        make()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def refusals(rank, world, device):
    """What each process says where one of them has something wrong."""
    model, inputs, classes = network().to(device), INPUTS.to(device), CLASSES.to(device)
    wrong = classes.clone()
    if rank == 1:
        wrong[7] = 3
    sampler = DistributedSampler(TensorDataset(INPUTS, CLASSES), num_replicas=world, rank=rank, shuffle=False)
    loader = DataLoader(TensorDataset(INPUTS, CLASSES), batch_size=8, sampler=sampler)
    torn = network().to(device)
    if rank == 0:
        torn[0].weight.data[0, 0, 0, 0] = torch.nan
    one_of = {
        "loss": {"loss": nn.CrossEntropyLoss(label_smoothing=0.1 * rank)},
        "curvature": {"curvature": ("hessian", "ggn")[rank]},
        "l2": {"l2": 0.1 * rank},
        "parameters": {"parameters": ("*", "3.*")[rank]},
        "precision": {"precision": ("float32", "float64")[rank]},
        "is_preconditioned": {"preconditioner": (None, torch.ones(96))[rank]},
        "the preconditioner": {"preconditioner": torch.full((96,), 1.0 + rank, device=device)},
    }
    settings = {
        name: said_by(lambda given=given: HessianOperator(model, inputs, classes, **given))
        for name, given in one_of.items()
    }
    return {
        "settings": settings,
        "a label": said_by(lambda: HessianOperator(model, inputs, wrong)),
        "weights": said_by(lambda: HessianOperator(network(seed=rank).to(device), inputs, classes)),
        "a sampler": said_by(lambda: HessianOperator(model, loader)),
        "not finite": said_by(lambda: HessianOperator(torn, inputs, classes)),
        "a group": said_by(lambda: HessianOperator(model, inputs, classes, process_group=True)),
    }


def tracked(rank, world, path, device=CPU):
    """A training with DistributedDataParallel, tracked on the examples of all processes."""
    model = network().to(device)
    model = model if world == 1 else DistributedDataParallel(model)
    part = slice(rank, None, world)
    inputs, classes = INPUTS[part].to(device), CLASSES[part].to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = CurvatureTracker(
        model, (inputs, classes), None, optimizer, every=2, to=path, batch_sharpness=2, batch_size=4
    )
    for _ in range(6):
        optimizer.zero_grad()
        # Gradients are averaged over processes: sums here make that the whole mean.
        (nn.functional.cross_entropy(model(inputs), classes, reduction="sum") * world / 29).backward()
        optimizer.step()
        tracker.step()
    return [record.eigenvalues for record in tracker.history], [r.batch_sharpness for r in tracker.history]


if __name__ == "__main__":
    rank, world, folder, backend = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    device = CPU
    if backend == "nccl":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    store = distributed.FileStore(str(folder / "store"), world)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timedelta(seconds=120))
    model = network().to(device)
    alone = cases(rank, world, device)["classes"]["data"]
    result = {
        "measured": measured(model, rank, world),
        "of DDP": measured(DistributedDataParallel(model), rank, world, ["classes"])["classes"],
        "alone": HessianOperator(model, *alone, process_group=False).value(),
        "refusals": refusals(rank, world, device),
        "tracked": tracked(rank, world, folder / "curvature.csv", device),
    }
    torch.save(result, folder / f"{rank}.pt")
    distributed.destroy_process_group()
