"""The loss and its gradient on an operator's examples: torch's own, wherever the data come from."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils.data import DataLoader, TensorDataset

from sharpness import HessianOperator
from sharpness.hessian.moving import MovingHessian


def own_loss(model, batch):
    outputs = model(batch["inputs"])
    return (outputs - batch["wanted"]).abs().pow(3).sum(), outputs.numel()


INPUTS = torch.randn(30, 2, 4, 4, generator=torch.Generator().manual_seed(1))
CLASSES = torch.randint(0, 3, (30,), generator=torch.Generator().manual_seed(2))
REAL = torch.randn(30, 3, generator=torch.Generator().manual_seed(3))
WEIGHTED = nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]), label_smoothing=0.1)
CASES = {
    "classes": ((INPUTS, CLASSES), None, lambda model: nn.functional.cross_entropy(model(INPUTS.double()), CLASSES)),
    "weights": (
        [(INPUTS[:8], CLASSES[:8]), (INPUTS[8:], CLASSES[8:])],
        WEIGHTED,
        lambda model: nn.functional.cross_entropy(
            model(INPUTS.double()), CLASSES, weight=WEIGHTED.weight.double(), label_smoothing=0.1
        ),
    ),
    "squares": (
        DataLoader(TensorDataset(INPUTS, REAL), batch_size=7),
        nn.MSELoss(),
        lambda model: nn.functional.mse_loss(model(INPUTS.double()), REAL.double()),
    ),
    "own": (
        [{"inputs": INPUTS[:9], "wanted": REAL[:9]}, {"inputs": INPUTS[9:], "wanted": REAL[9:]}],
        own_loss,
        lambda model: (model(INPUTS.double()) - REAL.double()).abs().pow(3).mean(),
    ),
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))


def expected(model, loss, displacement=None, parameters=""):
    """The loss in double precision, and the gradient by the weights whose names begin with ``parameters``."""
    model = copy.deepcopy(model).double()
    chosen = [weight for name, weight in model.named_parameters() if name.startswith(parameters)]
    if displacement is not None:
        with torch.no_grad():
            vector_to_parameters(parameters_to_vector(chosen) + displacement.double(), chosen)
    value = loss(model)
    return value.item(), parameters_to_vector(torch.autograd.grad(value, chosen))


# In so little memory, batches that are read are streamed; tensors are kept whole.
BUDGETS = [(name, budget) for name in CASES for budget in (2**30, 20_000) if name != "classes" or budget == 2**30]


@pytest.mark.parametrize(("name", "memory_budget"), BUDGETS)
def test_value_and_gradient_are_torchs(model, name, memory_budget):
    data, loss, plain = CASES[name]
    operator = HessianOperator(model, data, loss=loss, memory_budget=memory_budget)
    value, gradient = expected(model, plain)
    assert operator.value() == pytest.approx(value, rel=1e-5)
    torch.testing.assert_close(operator.gradient().double(), gradient, rtol=1e-4, atol=1e-6)

    displacement = 0.1 * torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(5))
    assert operator.value(displacement) == pytest.approx(expected(model, plain, displacement)[0], rel=1e-5)


def test_some_parameters_and_a_penalty(model):
    operator = HessianOperator(model, INPUTS, CLASSES, parameters="3.*", l2=0.3, precision="float64")

    def plain(model):
        kernels = (model[0].weight.square().sum() + model[3].weight.square().sum()) * 0.3
        return nn.functional.cross_entropy(model(INPUTS.double()), CLASSES) + kernels

    displacement = torch.linspace(-1, 1, operator.shape[0], dtype=torch.float64)
    value, gradient = expected(model, plain, parameters="3.")
    assert operator.value() == pytest.approx(value, rel=1e-9)
    torch.testing.assert_close(operator.gradient(), gradient)
    assert operator.value(displacement) == pytest.approx(expected(model, plain, displacement, "3.")[0], rel=1e-9)
    with pytest.raises(ValueError, match="the vector has 3 entries"):
        operator.value(torch.ones(3))


def test_the_provenance_says_of_what_the_operator_is(model):
    said = HessianOperator(model, INPUTS, CLASSES, parameters="3.*", loss=WEIGHTED).provenance
    assert said["parameters"] == {"3.weight": [3, 12], "3.bias": [3]}
    assert (said["num_examples"], said["precision"], said["curvature"]) == (30, "float32", "hessian")
    assert "smoothing=0.1" in said["loss"]
    data, _, _ = CASES["own"]
    assert HessianOperator(model, data, loss=own_loss).provenance["loss"].endswith("own_loss")


@pytest.mark.parametrize(("data", "loss", "plain"), CASES.values(), ids=CASES)
def test_an_operator_moves_with_its_model(model, data, loss, plain):
    moving = MovingHessian.of(HessianOperator(model, data, loss=loss))
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1

    there, anew = moving.at_present(model), HessianOperator(model, data, loss=loss)

    vector = torch.linspace(-1, 1, anew.shape[0])
    assert torch.equal(there @ vector, anew @ vector)
    assert there.value() == pytest.approx(expected(model, plain)[0], rel=1e-5)


def test_some_of_the_examples_are_chosen(model):
    moving = MovingHessian.of(HessianOperator(model, INPUTS, CLASSES))
    chosen = torch.tensor([4, 1, 17])
    vector = torch.linspace(-1, 1, moving.layout.size)
    few = HessianOperator(model, INPUTS[chosen], CLASSES[chosen])
    torch.testing.assert_close(moving.at_present(model, chosen=chosen) @ vector, few @ vector)
    assert moving.can_choose
    assert not MovingHessian.of(HessianOperator(model, CASES["own"][0], loss=own_loss)).can_choose
