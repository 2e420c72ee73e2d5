"""What one product takes, and the least it could: its floating-point operations at the rate of a convolution."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.jobs import CHUNK_SIZE, PRODUCTS, RATES
from benchmarks.problem import Problem
from benchmarks.products import double_backward, gradient
from sharpness.hessian.loss import channels_last
from sharpness.hessian.operator import HessianOperator
from sharpness.runtime.streams import stream

_REPETITIONS = 7
_MOST_SECONDS = 10.0  # no more repetitions then: where a processor has no bfloat16, matrices take a minute
MATRIX_SIZE = 2048  # rows and columns of the matrices whose product has the highest rate
_PRECISIONS = {"ours float32": torch.float32, "ours bfloat16": torch.bfloat16}


def costs(problem: Problem) -> list[dict[str, Any]]:
    """Rows of the table: seconds of a gradient and of each kind of product on one chunk, and rates of the machine."""
    chunk = replace(problem, inputs=problem.inputs[:CHUNK_SIZE], targets=problem.targets[:CHUNK_SIZE])
    products = [{"part": "product", "tool": kind, "seconds": _time_product(chunk, kind)} for kind in PRODUCTS]
    return [*products, *({"part": "rate", "tool": kind, **_rates(problem, kind)} for kind in RATES)]


def _time_product(problem: Problem, kind: str) -> float:
    """Seconds of one gradient or one product of a ``kind`` of ``jobs.PRODUCTS``, the fastest of a few."""
    vector = torch.randn(problem.num_weights, generator=stream(0, "vector"))
    if kind == "gradient":
        return _fastest(lambda: gradient(problem))
    if kind == "double backward":
        product = double_backward(problem)
        return _fastest(lambda: product(vector))
    precision = "bfloat16" if kind == "ours bfloat16" else "float32"
    operator = HessianOperator(problem.model, problem.inputs, problem.targets, precision=precision)  # type: ignore[arg-type]
    return _fastest(lambda: operator @ vector)


def _rates(problem: Problem, kind: str) -> dict[str, float]:
    """Floating-point operations per second: of the largest convolution, of all layers, and of a product of matrices."""
    dtype = _PRECISIONS[kind]
    one, other = torch.ones(2, MATRIX_SIZE, MATRIX_SIZE, dtype=dtype)
    return {
        "operations_per_second": _convolution_rate(problem, dtype),
        "layer_operations_per_second": CHUNK_SIZE
        * step_operations(problem)
        / _fastest(layers_alone(problem, CHUNK_SIZE, dtype)),
        "matrix_operations_per_second": 2 * MATRIX_SIZE**3 / _fastest(lambda: torch.mm(one, other)),
        "operations_per_product": product_operations(problem),
    }


def _convolution_rate(problem: Problem, dtype: torch.dtype) -> float:
    """Floating-point operations per second in the network's largest convolution, its two derivatives included."""
    layers = _layers(problem)
    layer, inputs, outputs, _ = max((entry for entry in layers if isinstance(entry[0], nn.Conv2d)), key=_operations)
    assert isinstance(layer, nn.Conv2d)
    generator = stream(0, "convolution")

    def random(shape: torch.Size, count: int) -> Tensor:
        tensor = torch.randn(count, *shape[1:], generator=generator).to(dtype)
        return channels_last(tensor)

    weight = random(layer.weight.shape, len(layer.weight))
    some, adjoint = random(inputs, CHUNK_SIZE), random(outputs, CHUNK_SIZE)

    with torch.no_grad():
        seconds = _fastest(lambda: _three_convolutions(layer, weight, some, adjoint, wanted=[True, True, False]))
    return 3 * CHUNK_SIZE * _operations((layer, inputs, outputs, False)) / seconds


def product_operations(problem: Problem) -> int:
    """Floating-point operations of a product on one example: six times a layer's own, twice for the first layer."""
    return sum((2 if entry[3] else 6) * _operations(entry) for entry in _layers(problem))


def step_operations(problem: Problem) -> int:
    """Floating-point operations of a gradient on one example: three times a layer's own, twice for the first layer."""
    return sum((2 if entry[3] else 3) * _operations(entry) for entry in _layers(problem))


def layers_alone(problem: Problem, batch_size: int, dtype: torch.dtype = torch.float32) -> Callable[[], None]:
    """Does a gradient's multiplications alone, one layer after the other, on so many examples."""
    work: list[Callable[[], object]] = []
    for layer, inputs, outputs, is_first in _layers(problem):
        some, adjoint = (channels_last(torch.ones(batch_size, *shape[1:], dtype=dtype)) for shape in (inputs, outputs))
        weight = channels_last(layer.weight.detach().to(dtype))
        if isinstance(layer, nn.Conv2d):
            wanted = [not is_first, True, False]
            work.append(partial(_three_convolutions, layer, weight, some, adjoint, wanted=wanted))
        else:
            work += [partial(torch.mm, some, weight.T), partial(torch.mm, adjoint.T, some)]
            work += [] if is_first else [partial(torch.mm, adjoint, weight)]

    @torch.no_grad()
    def all_layers() -> None:
        for task in work:
            task()

    return all_layers


def _three_convolutions(
    layer: nn.Conv2d, weight: Tensor, inputs: Tensor, adjoint: Tensor, *, wanted: list[bool]
) -> None:
    settings = (list(layer.stride), _padding(layer), list(layer.dilation), False, [0, 0], layer.groups)
    torch.ops.aten.convolution(inputs, weight, None, *settings)
    torch.ops.aten.convolution_backward(adjoint, inputs, weight, None, *settings, wanted)


def _padding(layer: nn.Conv2d) -> list[int]:
    if isinstance(layer.padding, str):
        return [size // 2 if layer.padding == "same" else 0 for size in layer.kernel_size]
    return list(layer.padding)


_Layer = tuple[nn.Conv2d | nn.Linear, torch.Size, torch.Size, bool]


def _layers(problem: Problem) -> list[_Layer]:
    """Each layer with weights, the shapes of its input and output for one example, and whether it is the first."""
    found: list[_Layer] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        found.append((layer, inputs[0].shape, outputs.shape, not found))

    layers = [layer for layer in problem.model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        problem.model(problem.inputs[:1])
    for hook in hooks:
        hook.remove()
    return found


def _operations(entry: _Layer) -> int:
    layer, _, outputs, _ = entry
    return 2 * outputs.numel() * layer.weight[0].numel()


def _fastest(function: Callable[[], object]) -> float:
    function()
    times = []
    for _ in range(_REPETITIONS):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
        if sum(times) > _MOST_SECONDS:
            break
    return min(times)
