"""The loss of a run: torch's by name, and a user's own, whose Hessian is held against a dense one."""

import dataclasses

import pytest
import torch
from sample_run import RUN
from torch import nn
from torch.func import functional_call, hessian
from torch.nn import functional

from sharpness.data.datasets import Dataset, Split
from sharpness.data.originals import save
from sharpness.hessian.loss import Loss, flatten
from sharpness.hessian.operator import HessianOperator
from sharpness.hessian.product import HessianProduct
from sharpness.runtime.definitions import OwnError
from sharpness.training.criteria import criterion_of
from sharpness.training.initialisation import dataset_of

OWN = """
import torch
from torch.nn import functional


def focal(outputs, targets):
    losses = functional.cross_entropy(outputs, targets, reduction="none")
    return (1 - (-losses).exp()) ** 2 * losses


def huber(outputs, targets):
    return functional.huber_loss(outputs[:, 0], targets.double() - 1, reduction="none", delta=0.3)


def mean(outputs, targets):
    return functional.cross_entropy(outputs, targets)
"""


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


@pytest.fixture
def examples():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(9, 4, generator=generator).double(), torch.randint(3, (9,), generator=generator)


def dense_of(model, inputs, mean):
    names, shapes = zip(*((name, weight.shape) for name, weight in model.named_parameters()), strict=True)

    def loss(flat):
        parts = torch.split(flat, [shape.numel() for shape in shapes])
        state = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return mean(functional_call(model, state, (inputs,)))

    return hessian(loss)(flatten(model)[0])


def product_of(model, inputs, targets, criterion, vector):
    weights, buffers = flatten(model)
    loss = Loss(model, l2=0.0, criterion=criterion)
    return HessianOperator.at(HessianProduct(loss), weights, buffers, inputs, targets) @ vector


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["focal", "huber"])
def test_a_loss_of_ones_own_has_the_hessian_of_its_mean(own_folder, model, examples, name):
    (own_folder / "losses.py").write_text(OWN)
    inputs, targets = examples
    scope: dict = {}
    exec(OWN, scope)
    dense = dense_of(model, inputs, lambda outputs: scope[name](outputs, targets).mean())
    vector = torch.randn(len(dense), generator=torch.Generator().manual_seed(2)).double()
    product = product_of(model, inputs, targets, criterion_of(f"losses.py:{name}", 3), vector)
    torch.testing.assert_close(product, dense @ vector, rtol=1e-8, atol=1e-10)


def test_a_loss_that_is_not_of_each_example_is_refused_with_its_line(own_folder, model, examples):
    (own_folder / "losses.py").write_text(OWN)
    loss = Loss(model, l2=0.0, criterion=criterion_of("losses.py:mean", 3))
    said = r"losses.py, line 15: must return the loss of each example.* \[9\].* got a tensor of \[\]"
    with pytest.raises(OwnError, match=said):
        loss.value_and_gradient(*flatten(model), *examples)


def test_a_loss_without_a_graph_is_refused_with_its_line(own_folder, model, examples):
    text = "def frozen(outputs, targets):\n    return outputs.detach()[:, 0]\n"
    (own_folder / "losses.py").write_text(text)
    loss = Loss(model, l2=0.0, criterion=criterion_of("losses.py:frozen", 3))
    with pytest.raises(OwnError, match=r"losses.py, line 1: must compute the loss from the outputs by torch"):
        loss.value_and_gradient(*flatten(model), *examples)
    loss.evaluate(*flatten(model), *examples)  # which differentiates nothing


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("mse", functional.mse_loss), ("bce_with_logits", functional.binary_cross_entropy_with_logits)],
)
def test_classes_are_one_and_zero_for_a_loss_of_numbers(tmp_path, model, examples, name, theirs):
    inputs, targets = examples
    save({"inputs": inputs.float(), "targets": targets}, {}, tmp_path / "data.safetensors")
    run = dataclasses.replace(RUN, data="a.npz", num_training=7, batch_size="full", loss=name)
    dataset: Dataset = dataset_of(run, tmp_path / "data.safetensors", torch.device("cpu"))
    split: Split = dataset.training
    assert torch.equal(split.targets.sum(dim=1), torch.ones(7))

    loss = Loss(model.float(), l2=0.0, criterion=criterion_of(name, dataset.num_classes))
    found = loss.evaluate(*flatten(model), split.inputs, split.targets)
    outputs = model(split.inputs)
    torch.testing.assert_close(found.loss, theirs(outputs, split.targets))
    right = (outputs.argmax(dim=1) == split.targets.argmax(dim=1)).float().mean()
    torch.testing.assert_close(found.accuracy, right)
