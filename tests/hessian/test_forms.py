"""What decides how products are computed, and whether they are right: each fault is found and named."""

import pytest
import torch
from torch import nn

from sharpness.hessian import differences
from sharpness.hessian.operator import HessianOperator

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


class Network(nn.Module):
    """One dense layer, and what to do with what it gives."""

    def __init__(self, function=lambda logits: logits):
        super().__init__()
        self.function = function
        with torch.random.fork_rng(devices=[]):
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
        (
            lambda logits: logits[:, :0],
            r"need a tensor of logits, \[4, classes\]; Network gives \[4, 0\] for 4 examples",
        ),
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


class Counter(nn.Module):
    """Keeps a number in a buffer, changes it when it is called, and may let it move the values."""

    def __init__(self, change, use=lambda values, number: values * number, number=1.0):
        super().__init__()
        self.change, self.use = change, use
        self.register_buffer("number", torch.tensor(number))
        self.register_buffer("before", torch.tensor(number))

    def forward(self, values):
        self.change(self)
        return self.use(values, self.number)


def assigned(layer):
    layer.number = layer.number + 1


def added(layer):
    layer.number += 1


def added_in_place(layer):
    layer.number.add_(1)


def filled(layer):
    layer.number.data.copy_(3 * layer.number + 1)


def put_anew(layer):
    layer._buffers["number"] = layer.number.detach().clone() + 1


def delayed(layer):
    layer.number, layer.before = layer.before, layer.number + 1


REMEMBERED = [assigned, added, added_in_place, filled, put_anew, delayed]


@pytest.mark.parametrize("number", [1.0, 1])
@pytest.mark.parametrize("change", REMEMBERED)
def test_a_buffer_that_is_changed_and_moves_the_logits_is_told(problem, change, number):
    plain = problem(lambda: Network(nn.Sequential(nn.Tanh(), Counter(change, number=number))))
    named = r", and changes function\.1\.(number|before): " if isinstance(number, float) else ": "
    refused(plain, ValueError, f"Network gives other logits when it is called again on the same examples{named}")


@pytest.mark.parametrize("tied", [False, True])
def test_a_power_iteration_of_ones_own_in_evaluation_mode_is_told(problem, tied):
    class OwnNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(72, 3)
            self.register_buffer("direction", torch.eye(3)[0])
            self.other = nn.Linear(3, 3)
            self.again = self.other if tied else nn.Identity()
            if tied:
                self.register_buffer("same", self.direction)

        def forward(self, images):
            weight = self.head.weight
            with torch.no_grad():
                moved = weight @ (weight.T @ self.direction)
                self.direction = moved / moved.norm()
            largest = (self.direction @ weight).norm()
            return self.again(self.other(images.flatten(1) @ weight.T / largest))

    refused(problem(OwnNorm), ValueError, "OwnNorm gives other logits .*, and changes direction: ")


def test_a_codebook_that_follows_what_it_sees_is_told(problem):
    class Codebook(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("codes", torch.linspace(-1, 1, 12).view(4, 3))

        def forward(self, values):
            nearest = torch.cdist(values, self.codes).argmin(1)
            codes = self.codes[nearest]
            with torch.no_grad():
                self.codes = self.codes.index_add(0, nearest, 0.1 * (values - codes))
            return values.tanh() * codes

    refused(problem(lambda: Network(Codebook())), ValueError, r"other logits .*, and changes function\.codes: ")


@pytest.mark.parametrize("number", [1.0, 1])
@pytest.mark.parametrize("change", [assigned, added, added_in_place, put_anew, delayed])
def test_a_buffer_that_is_changed_and_moves_nothing_is_no_obstacle(problem, change, number, generator):
    plain = problem(lambda: Network(Counter(change, lambda values, _: values.tanh(), number))).in_torchs_order
    before = [buffer.clone() for buffer in plain.model.buffers()]
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, precision="float64")
    vector = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64)
    product = operator @ vector
    assert all(map(torch.equal, before, plain.model.buffers()))
    torch.testing.assert_close(product, plain.product(plain.weights, vector), rtol=1e-12, atol=1e-14)


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


class Cut(nn.Module):
    """Two layers and a scale, joined by a function of them all."""

    def __init__(self, function):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.first, self.last, self.scale = nn.Linear(6, 5), nn.Linear(5, 3), nn.Parameter(torch.tensor(1.5))
        self.function = function

    def forward(self, inputs):
        return self.function(self, inputs)


def without_a_graph(network, inputs):
    with torch.no_grad():
        hidden = network.first(inputs).tanh()
    return network.last(hidden) * network.scale


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda self, x: self.last(torch.special.modified_bessel_i0(self.first(x))) * self.scale, "first.weight"),
        (lambda self, x: self.last(self.first(x).tanh()) * self.scale.item(), "scale"),
        (lambda self, x: self.last(self.first(x).tanh()) * self.scale.data, "scale"),
        (lambda self, x: self.last(self.first(x).tanh()) * self.scale.detach() + self.scale * 0, "scale"),
        (without_a_graph, "first.weight"),
    ],
    ids=["a function without a derivative", "item", "data", "detach", "no_grad"],
)
def test_a_path_that_is_cut_off_from_the_weights_is_refused_by_their_name(generator, function, name):
    """The Hessian would be that of another loss, in which these weights are constants."""
    inputs, targets = torch.randn(9, 6, generator=generator), torch.arange(9) % 3
    with pytest.raises(
        RuntimeError, match=f"is not that of its loss, which does not reach {name}: something is detached"
    ):
        HessianOperator(Cut(function), inputs, targets)


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: self.last(torch.special.i0(self.first(x))) * self.scale,
        lambda self, x: self.last(self.first(x).relu()),  # the scale is not used
        lambda self, x: self.last((self.first(x) - 100).relu()) * self.scale,  # every unit is dead
    ],
    ids=["a function with one", "unused", "dead"],
)
def test_weights_without_a_gradient_that_the_loss_does_not_depend_on_are_no_fault(generator, function):
    inputs, targets = torch.randn(9, 6, generator=generator), torch.arange(9) % 3
    HessianOperator(Cut(function), inputs, targets)


def test_outputs_without_any_graph_are_refused(generator):
    inputs, targets = torch.randn(9, 72, generator=generator), torch.arange(9) % 3
    with pytest.raises(ValueError, match="what Network returns does not depend on the weights of the model"):
        HessianOperator(Network(torch.Tensor.detach), inputs, targets)


def test_a_table_that_scales_its_gradients_by_how_often_they_occur_is_refused():
    tokens = torch.cat([torch.arange(20).view(4, 5), torch.zeros(4, 5, dtype=torch.int64)])  # twice late only
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Embedding(20, 4, scale_grad_by_freq=True), nn.Flatten(), nn.Linear(20, 3))
    with pytest.raises(ValueError, match=r"0 \(Embedding\) with scale_grad_by_freq has gradients that are not those"):
        HessianOperator(model, tokens, torch.arange(8) % 3)


def test_outputs_that_are_not_finite_are_told_as_such(generator):
    inputs, targets = torch.randn(9, 72, generator=generator), torch.arange(9) % 3
    with pytest.raises(FloatingPointError, match="what Network returns is not finite for the first examples"):
        HessianOperator(Network(lambda logits: logits * float("nan")), inputs, targets)
