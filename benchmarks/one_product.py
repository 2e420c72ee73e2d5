"""One product by each library, beside a gradient, and the memory of a training step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.problem import Problem
from benchmarks.products import chunks_of, flat, parts
from sharpness.hessian.operator import HessianOperator
from sharpness.runtime.streams import stream

_REPETITIONS = 3


@contextmanager
def attention_for(tool: str) -> Iterator[None]:
    """Give other libraries torch's own formula for attention: its fused kernels have no second derivative."""
    with nullcontext() if tool.startswith("ours") else sdpa_kernel(SDPBackend.MATH):
        yield


def training_step(problem: Problem) -> None:
    """Make one step of plain SGD on all examples, as one writes it."""
    problem.model.train()
    optimizer = torch.optim.SGD(problem.model.parameters(), lr=1e-3)
    loss = functional.cross_entropy(problem.model(problem.inputs), problem.targets)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def product_row(problem: Problem, tool: str) -> dict[str, Any]:
    """CPU seconds of a product by a tool and of a gradient, both the fastest of a few."""
    refused = _refusal(problem, tool)
    with attention_for(tool):
        product = _PRODUCTS[tool](problem)
        vector = torch.randn(problem.num_weights, generator=stream(0, "vector"))
        seconds = _fastest(lambda: product(vector))
    return {
        "product_cpu_seconds": seconds,
        "gradient_cpu_seconds": _fastest(lambda: _gradient(problem)),
        "refused": refused,
    }


def _refusal(problem: Problem, tool: str) -> str | None:
    """What a tool says of a few examples with torch's own choice of kernels; None if it computes."""
    few = Problem(problem.model, problem.inputs[:1], problem.targets[:1])
    vector = torch.ones(problem.num_weights)
    try:
        _PRODUCTS[tool](few)(vector)
    except Exception as error:  # whatever another library raises
        return " ".join(str(error).split()).partition(". ")[0]
    return None


def _gradient(problem: Problem) -> Tensor:
    loss = functional.cross_entropy(problem.model(problem.inputs), problem.targets)
    return flat(torch.autograd.grad(loss, list(problem.model.parameters())))


Product = Callable[[Tensor], Any]


def _ours(problem: Problem) -> Product:
    operator = HessianOperator(problem.model, problem.inputs, problem.targets)
    return lambda vector: operator @ vector


def _curvlinops(problem: Problem) -> Product:
    from curvlinops import HessianLinearOperator

    weights = list(problem.model.parameters())
    operator = HessianLinearOperator(problem.model, nn.CrossEntropyLoss(), weights, chunks_of(problem))
    return lambda vector: operator @ vector


def _eigenthings(problem: Problem) -> Product:
    from hessian_eigenthings.loss_fns.standard import supervised_loss
    from hessian_eigenthings.operators.hessian import HessianOperator as TheirOperator

    operator = TheirOperator(problem.model, chunks_of(problem), supervised_loss(nn.CrossEntropyLoss()))
    return lambda vector: operator.matvec(vector)


def _pyhessian(problem: Problem) -> Product:
    from pyhessian import hessian

    theirs = hessian(problem.model, nn.CrossEntropyLoss(), dataloader=chunks_of(problem), cuda=False)
    return lambda vector: theirs.dataloader_hv_product(parts(vector, problem.model))


_PRODUCTS: dict[str, Callable[[Problem], Product]] = {
    "ours float32": _ours,
    "curvlinops": _curvlinops,
    "eigenthings": _eigenthings,
    "pyhessian": _pyhessian,
}


def _fastest(function: Callable[[], object]) -> float:
    times = []
    for _ in range(_REPETITIONS + 1):
        begin = time.process_time()
        function()
        times.append(time.process_time() - begin)
    return min(times[1:])
