"""Gradients and Hessian-vector products by autograd alone: what the project's own are compared with and checked by."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.jobs import CHUNK_SIZE
from benchmarks.problem import Problem
from sharpness.hessian.loss import channels_last

Product = Callable[[Tensor], Tensor]


def flat(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """One vector [P] of tensors in the order of a model's parameters, each in the order of its indices."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def parts(vector: Tensor, model: nn.Module) -> list[Tensor]:
    """The inverse of ``flat``."""
    weights = list(model.parameters())
    pieces = torch.split(vector, [weight.numel() for weight in weights])
    return [piece.view(weight.shape) for piece, weight in zip(pieces, weights, strict=True)]


def double_backward(problem: Problem) -> Product:
    """The authors' way: contiguous tensors, the gradient's graph built anew for every product."""
    model, weights, chunks = problem.model, list(problem.model.parameters()), chunks_of(problem)

    def product(vector: Tensor) -> Tensor:
        along, total = parts(vector, model), torch.zeros_like(vector)
        for inputs, targets in chunks:
            loss = functional.cross_entropy(model(inputs), targets, reduction="sum") / problem.targets.numel()
            gradients = torch.autograd.grad(loss, weights, create_graph=True)
            total += flat(torch.autograd.grad(gradients, weights, along))
        return total

    return product


def retained_double_backward(problem: Problem, *, dtype: torch.dtype = torch.float32) -> Product:
    """The same, channels last, from graphs that are kept: independent of the project's product, and faster."""
    model = copy.deepcopy(problem.model).to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = list(model.parameters())
    gradients = []
    for inputs, targets in chunks_of(problem):
        outputs = model(channels_last(inputs.to(dtype) if inputs.is_floating_point() else inputs))
        loss = functional.cross_entropy(outputs, targets, reduction="sum") / problem.targets.numel()
        gradients.append(torch.autograd.grad(loss, weights, create_graph=True))

    def product(vector: Tensor) -> Tensor:
        along, total = parts(vector, model), torch.zeros_like(vector)
        for gradient in gradients:
            total += flat(torch.autograd.grad(gradient, weights, along, retain_graph=True))
        return total

    return product


def gradient(problem: Problem) -> Tensor:
    """The gradient [P], channels last."""
    model = copy.deepcopy(problem.model).to(memory_format=torch.channels_last)
    weights = list(model.parameters())
    total = torch.zeros(problem.num_weights, device=problem.inputs.device)
    for inputs, targets in chunks_of(problem):
        loss = functional.cross_entropy(model(channels_last(inputs)), targets, reduction="sum")
        total += flat(torch.autograd.grad(loss / problem.targets.numel(), weights))
    return total


def chunks_of(problem: Problem) -> list[tuple[Tensor, Tensor]]:
    """The examples as all tools work through them."""
    return list(zip(*(torch.split(whole, CHUNK_SIZE) for whole in (problem.inputs, problem.targets)), strict=True))
