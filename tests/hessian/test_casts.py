"""Casts inside a network leave its products in the precision that they are worked in."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from sharpness.hessian.double_backward.casts import working_in
from sharpness.hessian.double_backward.differentiable import twice_differentiable
from sharpness.hessian.double_backward.product import DoubleBackward
from sharpness.hessian.operator import HessianOperator
from sharpness.hessian.r_operator.product import ROperator

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")

SINGLE = torch.float32


class Network(nn.Module):
    """Two dense layers, a scale, and what is between them."""

    def __init__(self, function, *, listed=True):
        super().__init__()
        self.first, self.last, self.scale = nn.Linear(5, 6), nn.Linear(6, 3), nn.Parameter(torch.ones(6))
        self.function, self.listed = function, listed

    def forward(self, inputs):
        if not self.listed and inputs.sum() > 1e9:
            return inputs
        return self.function(self, inputs)


def rms(x, scale, cast, back):
    """As in LLaMA."""
    kind, x = x.dtype, cast(x)
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
    return scale * back(x, kind)


def in_autocast(m, x):
    with torch.autocast("cpu", torch.bfloat16):
        return m.last(m.first(x).tanh()).float()


def standard(x, *normed):
    return functional.layer_norm(x, (6,), *normed)


# What a network does with casts, and the same without.
CASES = {
    "norm in float32": (
        lambda m, x: m.last(rms(m.first(x), m.scale, lambda x: x.to(SINGLE), lambda x, kind: x.to(kind)).sin()),
        lambda m, x: m.last(rms(m.first(x), m.scale, lambda x: x, lambda x, _: x).sin()),
    ),
    "norm in half precision": (
        lambda m, x: m.last(rms(m.first(x), m.scale, lambda x: x.half(), lambda x, kind: x.type(kind)).sin()),
        lambda m, x: m.last(rms(m.first(x), m.scale, lambda x: x, lambda x, _: x).sin()),
    ),
    "logits in float32": (lambda m, x: m.last(m.first(x).tanh()).float(), lambda m, x: m.last(m.first(x).tanh())),
    "logits by keyword": (
        lambda m, x: m.last(m.first(x).tanh()).to(dtype=SINGLE, copy=True),
        lambda m, x: m.last(m.first(x).tanh()),
    ),
    "logits by the name of their type": (
        lambda m, x: m.last(m.first(x).tanh()).type("torch.FloatTensor"),
        lambda m, x: m.last(m.first(x).tanh()),
    ),
    "logits as a tensor": (
        lambda m, x: torch.as_tensor(m.last(m.first(x).tanh()), dtype=SINGLE),
        lambda m, x: m.last(m.first(x).tanh()),
    ),
    "double": (
        lambda m, x: m.last(m.first(x).double().sin().type_as(x)),
        lambda m, x: m.last(m.first(x).sin()),
    ),
    "softmax in float32": (
        lambda m, x: m.last(functional.softmax(m.first(x), -1, dtype=SINGLE).to(x.dtype) * m.scale),
        lambda m, x: m.last(m.first(x).softmax(-1) * m.scale),
    ),
    "softmax by position": (
        lambda m, x: m.last(m.first(x).softmax(-1, SINGLE).to(x)),
        lambda m, x: m.last(m.first(x).softmax(-1)),
    ),
    "sum in float32": (
        lambda m, x: m.last(m.first(x) / torch.sum(m.first(x).square(), -1, keepdim=True, dtype=SINGLE).sqrt()),
        lambda m, x: m.last(m.first(x) / m.first(x).square().sum(-1, keepdim=True).sqrt()),
    ),
    "weights in float32": (
        lambda m, x: m.last(standard(m.first(x).float(), m.scale.float(), m.scale.float()).type_as(x).sin()),
        lambda m, x: m.last(standard(m.first(x), m.scale, m.scale).sin()),
    ),
    "autocast": (in_autocast, lambda m, x: m.last(m.first(x).tanh())),
    "in place on a copy": (
        lambda m, x: m.last(m.first(x) + (h := m.first(x)).half().mul_(2).to(h.dtype).sin() + h.sin()),
        lambda m, x: m.last(m.first(x) + (2 * m.first(x)).sin() + m.first(x).sin()),
    ),
    "whole numbers and truth values": (
        lambda m, x: m.last(m.first(x) * (m.first(x) > 0).float() * (3 * x).long().sum(1, keepdim=True).to(x.dtype)),
        lambda m, x: m.last(m.first(x).relu() * (3 * x).trunc().sum(1, keepdim=True)),
    ),
}


def problem(function, *, listed, generator):
    with torch.random.fork_rng(devices=[]):
        model = Network(function, listed=listed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model, torch.randn(7, 5, generator=generator), torch.arange(7) % 3


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
@pytest.mark.parametrize(("function", "plain"), CASES.values(), ids=CASES)
def test_the_product_is_that_of_the_network_without_casts(function, plain, listed, generator):
    model, inputs, targets = problem(function, listed=listed, generator=generator)
    uncast = copy.deepcopy(model).double()
    uncast.function = plain
    weights = list(uncast.parameters())
    parts = [torch.randn(weight.shape, generator=generator, dtype=torch.float64) for weight in weights]
    loss = functional.cross_entropy(uncast(inputs.double()), targets)
    gradients = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
    slope = sum((gradient * part).sum() for gradient, part in zip(gradients, parts, strict=True))
    expected = torch.cat([part.flatten() for part in torch.autograd.grad(slope, weights, materialize_grads=True)])
    vector = torch.cat([part.flatten() for part in parts])

    for precision, tolerance in (("float64", 1e-10), ("float32", 1e-4), ("bfloat16", 0.3)):
        operator = HessianOperator(model, inputs, targets, precision=precision, chunk_size=3)
        assert (operator @ vector - expected).norm() < tolerance * expected.norm()
        if precision != "bfloat16":  # in which what is cast to float32 does not fit the weights
            is_listed = listed and not {"mul_", "as_tensor"} & set(function.__code__.co_names)
            assert isinstance(operator._product._form, ROperator if is_listed else DoubleBackward)


def test_casts_are_what_they_are_elsewhere(generator):
    x = torch.randn(3, generator=generator, dtype=torch.float64)
    with working_in(torch.float64), twice_differentiable():
        assert x.float().dtype == x.half().dtype == x.to(SINGLE).dtype == torch.float64
        assert x.to(torch.complex64).dtype == torch.complex128
        assert x.long().dtype == x.to(torch.int64).dtype == torch.int64
        assert x.bool().dtype == x.to(torch.bool).dtype == torch.bool
        assert x.to(torch.float8_e4m3fn).dtype == torch.float8_e4m3fn
        assert x.type() == "torch.DoubleTensor"
        assert x.long().float().dtype == torch.float32
        assert x.float() is x
        with torch.autocast("cpu", torch.bfloat16):
            assert not torch.is_autocast_enabled("cpu")
        assert not torch.is_autocast_enabled("cpu")
    with twice_differentiable():
        assert x.float().dtype == torch.float32
        with working_in(torch.bfloat16):
            assert x.float().dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")
    assert x.float().dtype == torch.float32
