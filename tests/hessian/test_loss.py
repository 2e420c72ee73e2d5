"""The loss as a function of flat vectors equals the plain module with torch's own loss."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from torch import nn
from torch.nn import functional

from sharpness.hessian.loss import Loss, flatten
from sharpness.training import models

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")

NETWORKS = ["conv", "residual", "batch_norm"]


def evaluated_by_numpy(outputs, targets):
    outputs, targets = outputs.numpy(), targets.numpy()
    losses = logsumexp(outputs, axis=1) - outputs[np.arange(len(targets)), targets]
    return losses.mean(), (outputs.argmax(axis=1) == targets).mean()


def penalty_of(plain, weights):
    return plain.l2 * sum(kernel.square().sum() for key, kernel in plain.state(weights).items() if key in plain.kernels)


@pytest.mark.parametrize("name", ["simple_cnn", "resnet8", "resnet32_bn", "vgg11_bn"])
def test_logits_are_those_of_the_model_in_evaluation_mode(name, fill, generator):
    size = 32 if name.startswith("vgg") else 10
    model = models.build(name, (3, size, size), generator=generator)
    fill(model, generator)
    model.double().train()
    inputs = torch.randn(3, 3, size, size, generator=generator, dtype=torch.float64)
    loss = Loss(model, l2=0.1)

    weights, buffers = flatten(model)

    assert loss.num_weights == len(weights) == sum(parameter.numel() for parameter in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(loss.logits(weights, buffers, inputs), model.eval()(inputs))


def test_kernels_of_convolutions_lie_channels_last_and_the_rest_as_it_is(fill, generator):
    model = nn.Sequential(nn.Conv2d(3, 2, (2, 4), device="meta"), nn.Linear(5, 6, device="meta")).to_empty(device="cpu")
    fill(model, generator)

    weights, buffers = flatten(model)

    kernel, dense = model[0].weight, model[1].weight
    outs, ins, height, width = kernel.shape
    for index in np.ndindex(kernel.shape):
        out, channel, row, column = index
        assert weights[((out * height + row) * width + column) * ins + channel] == kernel[index]
    after = outs * ins * height * width
    assert torch.equal(weights[after : after + 2], model[0].bias)
    assert torch.equal(weights[after + 2 : after + 32].view(6, 5), dense)
    assert torch.equal(weights[after + 32 :], model[1].bias)
    assert len(buffers) == 0


def test_flat_vectors_are_copies(problem):
    model = problem("batch_norm").model
    before = copy.deepcopy(model.state_dict())
    weights, buffers = flatten(model)
    weights.zero_()
    buffers.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not weights.requires_grad


def test_buffers_are_the_moving_statistics_in_order(problem):
    model = problem("batch_norm").model
    _, buffers = flatten(model)
    assert torch.equal(buffers, torch.cat([model[1].running_mean, model[1].running_var]))


@pytest.mark.parametrize("l2", [0.0, 0.03])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_is_autograds_on_the_plain_module(problem, name, l2):
    plain = problem(name, l2=l2)
    loss = Loss(plain.model, l2=l2)
    weights, buffers = flatten(plain.model)
    gradient = loss.gradient(weights, buffers, plain.inputs, plain.targets)
    torch.testing.assert_close(gradient, plain.gradient(weights))


def tied():
    one, other = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
    other.weight = one.weight
    return nn.Sequential(one, nn.Tanh(), other, nn.Flatten(), nn.Linear(72, 3))


@pytest.mark.parametrize("training", [False, True])
def test_the_gradient_of_weights_with_two_names_is_the_sum_over_both(problem, training):
    plain = problem(tied)
    loss = Loss(plain.model, l2=0.0)
    weights, buffers = flatten(plain.model)
    _, gradient = loss.value_and_gradient(weights, buffers, plain.inputs, plain.targets, training=training)
    cross_entropy = functional.cross_entropy(plain.model(plain.inputs), plain.targets)
    parts = torch.autograd.grad(cross_entropy, list(plain.model.parameters()))
    torch.testing.assert_close(gradient, loss.layout.flat(parts))


@pytest.mark.parametrize("l2", [0.0, 0.03])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_value_beside_a_gradient_is_the_cross_entropy_without_the_penalty(problem, name, l2):
    plain = problem(name)
    loss, state = Loss(plain.model, l2=l2), flatten(plain.model)
    value, gradient = loss.value_and_gradient(*state, plain.inputs, plain.targets)
    torch.testing.assert_close(value, plain.loss(state[0]).detach())
    assert torch.equal(gradient, loss.gradient(*state, plain.inputs, plain.targets))
    assert not value.requires_grad


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_in_low_precision_value_and_gradient_are_right_to_its_rounding(problem, name, training):
    plain = problem(name, l2=0.02)
    plain.model.train(training)
    weights, _ = flatten(plain.model)
    expected, expected_gradient = plain.loss(weights).detach() - penalty_of(plain, weights), plain.gradient(weights)
    single = problem(name, dtype=torch.float32)
    loss, state = Loss(single.model, l2=0.02), flatten(single.model)

    def computed(*, low_precision):
        buffers = state[1].clone()
        value, gradient = loss.value_and_gradient(
            *(state[0], buffers, single.inputs, single.targets), training=training, low_precision=low_precision
        )
        return value, gradient, buffers

    value, gradient, buffers = computed(low_precision=True)

    # bfloat16 has 8 bits: each number is off by up to 0.4 %, and so are what few layers make of them.
    assert value.item() == pytest.approx(expected.item(), rel=0.02)
    assert (gradient - expected_gradient).norm() <= 0.03 * expected_gradient.norm()
    assert {value.dtype, gradient.dtype, buffers.dtype} == {torch.float32}
    in_single, precise, precise_buffers = computed(low_precision=False)
    torch.testing.assert_close(precise.double(), expected_gradient, rtol=1e-4, atol=1e-5)
    assert not torch.equal(gradient, precise)
    assert value != in_single
    torch.testing.assert_close(buffers, precise_buffers, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("name", NETWORKS)
def test_penalty_pulls_on_kernels_only_and_with_twice_its_factor(problem, name):
    plain, l2 = problem(name), 0.3
    weights, buffers = flatten(plain.model)
    examples = plain.inputs, plain.targets
    pulls = {key: torch.full_like(p, 2 * l2 * (key in plain.kernels)) for key, p in plain.model.named_parameters()}

    with_penalty = Loss(plain.model, l2=l2).gradient(weights, buffers, *examples)
    without = Loss(plain.model, l2=0.0).gradient(weights, buffers, *examples)

    torch.testing.assert_close(with_penalty - without, plain.flat(pulls) * weights)
    assert 0 < (plain.flat(pulls) == 0).sum() < len(weights)


@pytest.mark.parametrize("name", NETWORKS)
def test_penalty_and_its_curvature_are_those_of_the_sum_of_squared_kernels(problem, name, generator):
    plain, l2 = problem(name), 0.3
    loss = Loss(plain.model, l2=l2)
    weights, _ = flatten(plain.model)
    vector = torch.randn(len(weights), generator=generator, dtype=torch.float64)

    def penalty(at):
        return l2 * sum(kernel.square().sum() for key, kernel in plain.state(at).items() if key in plain.kernels)

    dense = torch.autograd.functional.hessian(penalty, weights)

    torch.testing.assert_close(loss.penalty(weights), penalty(weights))
    torch.testing.assert_close(loss.penalty_curvature(vector), dense @ vector)


@pytest.mark.parametrize("l2", [0.0, 0.03])
@pytest.mark.parametrize("name", NETWORKS)
def test_value_is_the_plain_loss_and_leaves_no_graph(problem, name, l2):
    plain = problem(name, l2=l2)
    weights, buffers = flatten(plain.model)
    value = Loss(plain.model, l2=l2).value(weights, buffers, plain.inputs, plain.targets)
    torch.testing.assert_close(value, plain.loss(weights).detach())
    assert not value.requires_grad


def test_summed_cross_entropies_of_parts_add_up(problem):
    plain = problem("residual", l2=0.5)
    loss, state = Loss(plain.model, l2=0.5), flatten(plain.model)
    sums = [
        loss.summed(*state, inputs, targets)
        for inputs, targets in zip(plain.inputs.split(3), plain.targets.split(3), strict=True)  # 3, 3, 1
    ]
    expected, _ = evaluated_by_numpy(plain.model(plain.inputs).detach(), plain.targets)
    assert sum(sums).item() == pytest.approx(7 * expected)


@settings(max_examples=20)
@given(chunk_size=st.none() | st.integers(1, 25), num_examples=st.integers(1, 23) | st.integers(129, 140))
def test_evaluation_is_the_mean_over_examples_however_they_are_cut(problem, chunk_size, num_examples):
    plain = problem("conv", num_examples=num_examples, l2=0.5)
    with torch.no_grad():
        cross_entropy, accuracy = evaluated_by_numpy(plain.model(plain.inputs), plain.targets)

    evaluation = Loss(plain.model, l2=0.5).evaluate(
        *flatten(plain.model), plain.inputs, plain.targets, chunk_size=chunk_size
    )

    assert evaluation.cross_entropy.item() == pytest.approx(cross_entropy, rel=1e-12)
    assert evaluation.accuracy.item() == pytest.approx(accuracy, rel=1e-12)


def test_a_training_pass_moves_the_statistics_as_batch_norm_itself_does(problem):
    plain = problem("batch_norm")
    loss = Loss(plain.model, l2=0.0)
    weights, buffers = flatten(plain.model)
    reference = copy.deepcopy(plain.model).train()
    for part in plain.inputs.split(4):  # 4, 3
        with torch.no_grad():
            torch.testing.assert_close(loss.logits(weights, buffers, part, training=True), reference(part))
        torch.testing.assert_close(buffers, flatten(reference)[1])
    assert not torch.equal(buffers, flatten(plain.model)[1])


def test_a_training_gradient_uses_the_statistics_of_the_batch_and_moves_the_moving_ones(problem):
    plain = problem("batch_norm", l2=0.02)
    loss = Loss(plain.model, l2=0.02)
    weights, buffers = flatten(plain.model)
    reference = copy.deepcopy(plain.model).train()
    penalty = sum(reference.get_parameter(name).square().sum() for name in plain.kernels)
    cross_entropy = functional.cross_entropy(reference(plain.inputs), plain.targets)
    (cross_entropy + 0.02 * penalty).backward()
    expected = plain.flat({name: parameter.grad for name, parameter in reference.named_parameters()})

    value, gradient = loss.value_and_gradient(weights, buffers, plain.inputs, plain.targets, training=True)

    torch.testing.assert_close(value, cross_entropy.detach())
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(buffers, flatten(reference)[1])
    assert (gradient - loss.gradient(weights, buffers, plain.inputs, plain.targets)).norm() > 0.01 * gradient.norm()


def test_evaluation_never_moves_weights_or_statistics(problem):
    plain = problem("batch_norm", l2=0.1)
    loss = Loss(plain.model.train(), l2=0.1)
    weights, buffers = flatten(plain.model)
    examples = plain.inputs, plain.targets

    loss.logits(weights, buffers, plain.inputs)
    loss.summed(weights, buffers, *examples)
    loss.gradient(weights, buffers, *examples)
    loss.evaluate(weights, buffers, *examples)
    loss.value(weights, buffers, *examples)

    assert torch.equal(weights, flatten(plain.model)[0])
    assert torch.equal(buffers, flatten(plain.model)[1])
    assert not weights.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_the_model_itself_stays_as_it_is(problem, training):
    model = problem("batch_norm").model.train(training)
    plain = problem("batch_norm")
    before = copy.deepcopy(model.state_dict())

    loss = Loss(model, l2=0.1)
    weights, buffers = flatten(model)
    loss.value_and_gradient(weights + 1, buffers, plain.inputs, plain.targets, training=True)
    loss.value(weights + 1, buffers, plain.inputs, plain.targets)

    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training is training
    assert all(layer.training is training for layer in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
