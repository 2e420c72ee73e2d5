"""What the tests share: small networks with a loss written independently of the package, a run to vary, a study."""

import copy
import fcntl
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from running import run_study
from sample_run import RUN
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils import parameters_to_vector

from benchmarks.project import copy_project
from sharpness.study.run import Run
from sharpness.training.models import GlobalAveragePool, ResidualBlock

IMAGE = (2, 6, 6)
NUM_CLASSES = 3
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, NUM_CLASSES)
    ),
    "residual": lambda: nn.Sequential(
        ResidualBlock(2, 2, stride=1, batch_norm=False),
        ResidualBlock(2, 3, stride=2, batch_norm=False),
        nn.ReLU(),
        GlobalAveragePool(),
        nn.Linear(3, NUM_CLASSES),
    ),
    "batch_norm": lambda: nn.Sequential(
        nn.Conv2d(2, 3, (2, 3)),
        nn.BatchNorm2d(3, eps=1e-3, momentum=0.2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(60, NUM_CLASSES),
    ),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, NUM_CLASSES)),
}

# How long an example takes says nothing where others are at work.
settings.register_profile("without a deadline", deadline=None)
settings.load_profile("without a deadline")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """As many as this process has cores, of which a core may have two; each worker holds half a gigabyte of torch."""
    return min(8, len(os.sched_getaffinity(0)))


# Files whose tests look at one thing that takes long to make: one worker makes it, and runs them all.
TOGETHER = {
    "tests/end_to_end/test_own.py",
    "tests/hessian/test_distributed.py",
    "tests/report/test_in_browser.py",
    "tests/runtime/test_closure.py",
    "tests/test_packaging.py",
    "tests/test_site.py",
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker one test after the other, and whole files of ``TOGETHER``."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file in TOGETHER else nodeid

    return Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    _mark_slow(items)
    _order(items)


def _order(items: list[pytest.Item]) -> None:
    """What takes long comes late: the workflow after all else, and a real Slurm last.

    A worker that needs the finished small study while another computes it would wait: one test that needs it comes
    first, and the others after those that do not.
    """
    folders = ("end_to_end", "slurm")
    of_finished = [item for item in items if "finished" in getattr(item, "fixturenames", ())]
    first = next((item for item in of_finished if not item.get_closest_marker("slow")), None)

    def place(item: pytest.Item) -> int:
        if item is first:
            return -1
        folder = item.path.parent.name
        return 2 + folders.index(folder) if folder in folders else int(item in of_finished)

    items.sort(key=place)


def _mark_slow(items: list[pytest.Item]) -> None:
    """Leave to ``make test-all`` most parameters of a test that has many: the same ones each time."""
    of_function: dict[str, list[pytest.Item]] = {}
    for item in items:
        of_function.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for group in of_function.values():
        group.sort(key=lambda item: zlib.crc32(item.nodeid.encode()))
        for item in group[max(5, len(group) // 8) :]:
            item.add_marker(pytest.mark.slow)


def _on_cpu(model: nn.Module) -> nn.Module:
    """A copy with memory of its own, in which a tensor with two names is one, as it is not after ``to_empty``."""
    memo: dict[int, Tensor] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="cpu"), parameter.requires_grad)
        for parameter in model.parameters()
    }
    memo |= {id(buffer): torch.empty_like(buffer, device="cpu") for buffer in model.buffers()}
    return copy.deepcopy(model, memo)


def _fill(model: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 1.0 if parameter.dim() < 2 else (2 / parameter[0].numel()) ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.3)
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
            elif buffer.is_floating_point():
                buffer.copy_(torch.randn(buffer.shape, generator=generator))
            else:
                buffer.zero_()


@dataclass(frozen=True)
class Problem:
    """A network on examples. Its loss is the plain module, torch's mean cross-entropy and the L2 term, by autograd."""

    model: nn.Module
    inputs: Tensor  # [N, 2, 6, 6]
    targets: Tensor  # [N]
    l2: float
    channels_last: bool = True  # flat vectors are as ``Loss`` takes them; else in torch's own order

    @property
    def in_torchs_order(self) -> "Problem":
        """The same, with flat vectors as a user has them: those of ``parameters_to_vector``."""
        return replace(self, channels_last=False)

    @property
    def weights(self) -> Tensor:
        """The model's own, [P]."""
        return self.flat({name: parameter.detach() for name, parameter in self.model.named_parameters()})

    @property
    def kernels(self) -> set[str]:
        """The names of the parameters that are regularised: those of layers that multiply, not of those that scale."""
        layers = self.model.named_modules()
        kernels = {f"{name}.weight" for name, layer in layers if isinstance(layer, nn.Conv2d | nn.Linear)}
        return kernels & {name for name, _ in self.model.named_parameters()}

    def flat(self, tensors: dict[str, Tensor]) -> Tensor:
        """One value per weight in the flat order, where channels are last: kernels as [out, height, width, in]."""
        if not self.channels_last:
            return parameters_to_vector(tensor.contiguous() for tensor in tensors.values())
        rows = [torch.einsum("oihw->ohwi", t) if t.dim() == 4 else t for t in tensors.values()]
        return torch.cat([row.flatten() for row in rows])

    def state(self, weights: Tensor) -> dict[str, Tensor]:
        """The named parameters that lie in ``weights`` [P]."""
        shapes = {name: parameter.shape for name, parameter in self.model.named_parameters()}
        # Where each entry of each parameter lies in the flat order: the inverse of a permutation.
        ends = torch.tensor([shape.numel() for shape in shapes.values()]).cumsum(0).tolist()
        numbers = {
            name: torch.arange(end - shape.numel(), end).view(shape)
            for (name, shape), end in zip(shapes.items(), ends, strict=True)
        }
        order = self.flat(numbers)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        return {name: weights[place[number]] for name, number in numbers.items()}

    def loss(self, weights: Tensor) -> Tensor:
        """L(weights), differentiable; batch norm as the model's mode says."""
        state = self.state(weights)
        outputs = functional_call(self.model, state, (self.inputs,))
        penalty = sum(state[name].square().sum() for name in self.kernels)
        return functional.cross_entropy(outputs, self.targets) + self.l2 * penalty

    def gradient(self, weights: Tensor) -> Tensor:
        """[P]."""
        leaf = weights.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(leaf), leaf)
        return gradient

    def hessian(self, weights: Tensor) -> Tensor:
        """[P, P], row by row by differentiating twice backwards."""
        leaf = weights.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(leaf), leaf, create_graph=True)
        rows = [torch.autograd.grad(entry, leaf, retain_graph=True)[0] for entry in gradient]
        return torch.stack(rows)

    def product(self, weights: Tensor, vector: Tensor) -> Tensor:
        """The Hessian times one vector, by differentiating the gradient's product with it."""
        leaf = weights.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(leaf), leaf, create_graph=True)
        (product,) = torch.autograd.grad(gradient @ vector, leaf)
        return product

    def part(self, *, inputs: Tensor, targets: Tensor) -> "Problem":
        """The same network on other examples."""
        return replace(self, inputs=inputs, targets=targets)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def fill() -> Callable[[nn.Module, torch.Generator], None]:
    """Gives every weight and moving statistic of a model a value of its own; none is zero."""
    return _fill


@pytest.fixture(scope="session")
def problem() -> Callable[..., Problem]:
    """Makes a ``Problem`` of one of ``NETWORKS``, or of what a function builds, in evaluation mode."""

    def make(
        network: str | Callable[[], nn.Module],
        *,
        l2: float = 0.0,
        num_examples: int = 7,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        image: tuple[int, ...] = IMAGE,
    ) -> Problem:
        generator = torch.Generator().manual_seed(seed)
        # On the meta device nothing is drawn from the global generator.
        with torch.device("meta"):
            model = NETWORKS[network]() if isinstance(network, str) else network()
        model = _on_cpu(model)
        _fill(model, generator)
        inputs = torch.randn(num_examples, *image, generator=generator)
        targets = torch.randint(NUM_CLASSES, (num_examples,), generator=generator)
        return Problem(model.to(dtype).eval(), inputs.to(dtype), targets, l2)

    return make


@pytest.fixture
def unmoved_global_generator() -> Iterator[None]:
    """Fails a test that draws from torch's global generator."""
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator has moved"


@pytest.fixture(scope="session")
def run() -> Run:
    """Plain SGD for three epochs of five steps; two of the 22 examples are left over."""
    return replace(
        RUN,
        data="digits",
        num_training=22,
        learning_rate=0.05,
        batch_size=4,
        num_directions=0,
        direction_examples=0,
        direction_tolerance=0.0,
        direction_products=0,
        epochs=3,
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the small study has run once, undisturbed: once for all workers.

    Calls of pytest that have the same folder SHARED_BY_TESTS share it too.
    """
    own = tmp_path_factory.getbasetemp()
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    shared = Path(os.environ.get("SHARED_BY_TESTS", folder)) / "small study"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "results" / "small" / "report.html").exists():
            shutil.rmtree(shared, ignore_errors=True)
            run_study(copy_project(shared))
    return shutil.copytree(shared, own / "finished", symlinks=True)


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a study, of whose modules none is left imported."""
    monkeypatch.setenv("SHARPNESS_STUDY_FOLDER", str(tmp_path))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
