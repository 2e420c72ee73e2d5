"""What decides how products are computed, and whether they are right: each fault is found and named."""

import pytest
import torch
from torch import nn

from sharpness import differences
from sharpness.hessian import HessianOperator

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


class Network(nn.Module):
    """One dense layer, and what to do with what it gives."""

    def __init__(self, function=lambda logits: logits):
        super().__init__()
        self.function = function
        self.head = nn.Linear(72, 3)

    def forward(self, images):
        return self.function(self.head(images.flatten(1)))


class Scaled(torch.autograd.Function):
    """sin(x), whose second derivative by its rule is too small by a factor, yet symmetric."""

    factor = 0.9999

    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values.sin()

    @staticmethod
    def backward(ctx, adjoint):
        return Slope.apply(ctx.saved_tensors[0]) * adjoint


class Slope(torch.autograd.Function):
    """cos(x) and what ``Scaled`` takes for its derivative."""

    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values.cos()

    @staticmethod
    def backward(ctx, adjoint):
        return -Scaled.factor * ctx.saved_tensors[0].sin() * adjoint


class Once(torch.autograd.Function):
    """sin(x), which can be differentiated once."""

    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, adjoint):
        return ctx.saved_tensors[0].cos() * adjoint


class Layer(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, values):
        assert values.sum() < 1e9  # which operations run depends on the data
        return self.function.apply(values)


class Segments(nn.Module):
    def forward(self, values):
        lengths = torch.tensor([[1, 2]]).expand(len(values), 2)
        sums = torch.segment_reduce(values.sin(), "sum", lengths=lengths, axis=1)
        return torch.cat([sums, values], dim=1)


def refused(plain, error, message):
    with pytest.raises(error, match=message):
        HessianOperator(plain.model, plain.inputs, plain.targets)


def test_a_second_derivative_that_is_off_by_a_ten_thousandth_is_refused_by_name(problem):
    message = r"second derivative of function \(Layer\) is off a central difference of gradients by [19]\..e-0[45] "
    refused(problem(lambda: Network(Layer(Scaled))), RuntimeError, message)


def test_a_second_derivative_that_torch_leaves_out_without_a_word_is_refused_by_name(problem):
    message = (
        r"second derivative of function \(Layer\) is off a central difference of gradients by \S+ of its length, "
        "or it detaches values or has gradients of its own$"
    )
    refused(problem(lambda: Network(Layer(Once))), RuntimeError, message)


def test_a_second_derivative_that_does_not_exist_is_refused_by_name(problem):
    message = r"second derivative of function \(Segments\) does not exist: .*_segment_reduce_backward"
    refused(problem(lambda: Network(Segments())), RuntimeError, message)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda logits: (logits, logits), r"need a tensor of logits, \[4, classes\]; Network gives a tuple: wrap it"),
        (lambda logits: {"logits": logits, "loss": 0}, "Network gives a dict with 'logits', 'loss': wrap it"),
        (lambda _: None, "Network gives a NoneType"),
        (lambda logits: logits.argmax(1), r"those of Network are of torch.int64"),
        (lambda logits: logits.mean(1), r"Network gives \[4\] for 4 examples"),
        (lambda logits: logits.mean(0, keepdim=True), r"Network gives \[1, 3\] for 4 examples"),
        (lambda logits: logits + torch.randn(3), "gives other logits when it is called again"),
    ],
)
def test_what_is_no_tensor_of_logits_is_told(problem, function, message):
    refused(problem(lambda: Network(function)), ValueError, message)


def test_a_network_that_remembers_is_told(problem):
    class Remembers(Network):
        times = 0

        def forward(self, images):
            self.times += 1
            return super().forward(images) * self.times

    refused(problem(Remembers), ValueError, "Remembers gives other logits")


def test_a_network_of_several_inputs_is_told(problem):
    class Two(Network):
        def forward(self, images, mask, *, scale):
            return super().forward(images) * mask * scale

    refused(problem(Two), ValueError, "Two takes images, mask, scale, but is called with the examples alone")


def test_relus_that_stand_at_their_kinks_are_no_fault(problem, generator):
    """Biases of zero under black pixels: no gradient is differentiable there, and torch's convention stands."""
    plain = problem(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)))
    nn.init.zeros_(plain.model[0].bias)
    plain.inputs[:, :, :4] = 0
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, precision="float64")
    vector = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64)
    plain = plain.in_torchs_order
    torch.testing.assert_close(operator @ vector, plain.product(plain.weights, vector), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("error", [0.0, 1e-4, 1e-2, 1.0])
def test_a_difference_of_gradients_finds_a_small_fault_in_a_large_matrix(generator, error):
    """Gradients of a quartic, whose Hessian is known in closed form."""
    drawn = torch.randn(50, 50, generator=generator, dtype=torch.float64)
    matrix, weights, vector = drawn + drawn.T, drawn[0], drawn[1]
    image = matrix @ vector + 3 * weights**2 * vector
    found = differences.off_difference(
        lambda step: matrix @ (weights + step * vector) + (weights + step * vector) ** 3, (1 + error) * image, 1.0
    )
    assert found == pytest.approx(error, rel=5e-2, abs=1e-7)
