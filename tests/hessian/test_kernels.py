"""L2 pulls on what multiplies, decided by the kind of module and not by how many axes a tensor has."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, parametrizations, parametrize

from sharpness.hessian.kernels import kernels_of
from sharpness.hessian.loss import Loss
from sharpness.hessian.operator import HessianOperator
from sharpness.training import models

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


class LayerNorm2d(nn.Module):
    """A norm that torch does not have, with scales of three axes."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3, 4))


class Block(nn.Module):
    """Tensors of its own: a kernel, a bias, and a scale with more axes than it has entries for."""

    def __init__(self):
        super().__init__()
        self.mixing, self.bias = nn.Parameter(torch.ones(2, 3, 2, 2)), nn.Parameter(torch.ones(3, 2))
        self.layer_scale = nn.Parameter(torch.ones(3, 1, 1))


class Tied(nn.Module):
    """One tensor with two names."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(5, 3), nn.Linear(3, 5)
        self.head.weight = self.table.weight


class Doubled(nn.Module):
    """A parametrisation by one tensor."""

    def forward(self, values):
        return 2 * values


def doubled(module, name):
    return lambda: parametrize.register_parametrization(module(), name, Doubled())


ATTENTION = {"in_proj_weight", "out_proj.weight"}
KERNELS = {
    "convolution": (lambda: nn.Conv2d(2, 3, 1), {"weight"}),
    "convolution of one entry": (lambda: nn.Conv1d(1, 1, 1), {"weight"}),
    "transposed": (lambda: nn.ConvTranspose3d(2, 3, 2), {"weight"}),
    "dense": (lambda: nn.Linear(1, 1), {"weight"}),
    "bilinear": (lambda: nn.Bilinear(2, 3, 4), {"weight"}),
    "embedding": (lambda: nn.Embedding(4, 3), {"weight"}),
    "bag": (lambda: nn.EmbeddingBag(4, 3), {"weight"}),
    "recurrent": (lambda: nn.GRU(2, 3), {"weight_ih_l0", "weight_hh_l0"}),
    "projected": (lambda: nn.LSTM(2, 3, proj_size=2), {"weight_ih_l0", "weight_hh_l0", "weight_hr_l0"}),
    "cell": (lambda: nn.RNNCell(2, 3), {"weight_ih", "weight_hh"}),
    "attention": (lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True), ATTENTION),
    "attention of three kinds": (
        lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=2),
        {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"},
    ),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(4, 2, 3),
        {f"self_attn.{name}" for name in ATTENTION} | {"linear1.weight", "linear2.weight"},
    ),
    "layer norm of images": (lambda: nn.LayerNorm((2, 3, 4)), set()),
    "batch norm": (lambda: nn.BatchNorm3d(2), set()),
    "instance norm": (lambda: nn.InstanceNorm2d(2, affine=True), set()),
    "group norm": (lambda: nn.GroupNorm(1, 2), set()),
    "root mean square": (lambda: nn.RMSNorm((2, 3)), set()),
    "prelu": (lambda: nn.PReLU(3), set()),
    "another norm": (LayerNorm2d, set()),
    "tensors of its own": (Block, {"mixing"}),
    "tied": (Tied, {"table.weight"}),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Conv1d(2, 3, 2)), {"parametrizations.weight.original1"}),
    "parametrised kernel": (doubled(lambda: nn.Linear(1, 3), "weight"), {"parametrizations.weight.original"}),
    "parametrised bias": (doubled(lambda: nn.Linear(1, 3), "bias"), {"weight"}),
    "parametrised norm": (doubled(lambda: nn.LayerNorm((2, 3)), "weight"), set()),
}


@pytest.mark.parametrize(("build", "kernels"), KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("inside", [False, True])
def test_kernels_are_named_by_the_kind_of_their_module(build, kernels, inside):
    with torch.device("meta"):
        model = build()
    assert kernels_of(nn.Sequential(model) if inside else model) == {"0." * inside + name for name in kernels}


@pytest.mark.parametrize("name", models.NAMES)
def test_in_the_networks_of_the_experiments_they_are_what_has_more_than_one_axis(name, generator):
    size = max(models.smallest_size(name), 4)
    model = models.build(name, (3, size, size), 10, generator=generator)
    assert kernels_of(model) == {name for name, parameter in model.named_parameters() if parameter.dim() > 1}


def test_the_operator_has_no_penalty_on_the_scales_of_images(problem, generator):
    plain = problem(
        lambda: nn.Sequential(
            nn.LayerNorm((2, 6, 6)),
            nn.Conv2d(2, 3, 3),
            nn.LayerNorm((3, 4, 4)),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(48, 3),
        )
    )
    model = copy.deepcopy(plain.model)
    loss = functional.cross_entropy(model(plain.inputs), plain.targets)
    loss = loss + 0.3 * (model[1].weight.square().sum() + model[5].weight.square().sum())
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    vector = torch.randn(sum(p.numel() for p in parameters), generator=generator, dtype=torch.float64)
    inner = parameters_to_vector(part.contiguous() for part in gradient) @ vector
    expected = parameters_to_vector(part.contiguous() for part in torch.autograd.grad(inner, parameters))

    operator = HessianOperator(plain.model, plain.inputs, plain.targets, l2=0.3, precision="float64")

    assert (operator @ vector - expected).norm() < 1e-12 * expected.norm()


def test_a_network_without_kernels_has_no_penalty():
    loss = Loss(nn.LayerNorm((2, 3)), l2=0.3)
    assert loss.penalty(torch.ones(12)) == 0
    assert not loss.penalty_curvature(torch.ones(12)).any()
