"""The four passes of every operation are the derivatives that torch.func finds of the plain function."""

import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.func import jvp, vjp
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from sharpness.hessian.double_backward.attention import attention
from sharpness.hessian.r_operator import generic
from sharpness.hessian.r_operator.attention import Attention
from sharpness.hessian.r_operator.bilinear import Convolution, Dense
from sharpness.hessian.r_operator.generic import GenericOperation
from sharpness.hessian.r_operator.layers import Add, BatchNorm, Embedding, LinearMap, MaxPool2d, Parameter, Relu
from sharpness.hessian.r_operator.operation import Context
from sharpness.hessian.r_operator.smooth import Gelu, LayerNorm

pytestmark = [
    pytest.mark.usefixtures("unmoved_global_generator"),
    # torch warns about its own forward-mode formulas when it loads them.
    pytest.mark.filterwarnings("ignore:.*functorch.*"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*"),
]


def draw(generator, *shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def draw_like(generator, tensors):
    return [draw(generator, *tensor.shape) for tensor in tensors]


def assert_close(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-12)


def assert_close_or_zero(ours, expected):
    assert_close(torch.zeros_like(expected) if ours is None else ours, expected)


def check(operation, function, weights, inputs, generator, buffers=()):
    """Compare all passes with derivatives of ``function(*weights, *inputs)``, for all choices of what moves."""
    num_weights = len(weights)
    outputs = function(*weights, *inputs)
    adjoint, moved = draw_like(generator, [outputs, outputs])
    along, tangents = draw_like(generator, weights), draw_like(generator, inputs)

    for moving, chosen in itertools.product(
        itertools.product([False, True], repeat=len(inputs)), itertools.product([False, True], repeat=num_weights)
    ):
        if not any([*moving, *chosen]):
            continue
        kept_weights = [tensor.clone() for tensor in weights]
        value, saved = operation.forward(kept_weights, list(buffers), [tensor.clone() for tensor in inputs])
        assert_close(value, outputs)

        def context(moving=moving, chosen=chosen, saved=saved, kept_weights=kept_weights):
            return Context(
                weights=kept_weights,
                saved=saved,
                needed=moving,
                adjoint=adjoint.clone() if operation.needs_adjoint(active=any(moving)) else None,
                weight_tangents=[a.clone() if wanted else None for a, wanted in zip(along, chosen, strict=True)],
                input_tangents=[t.clone() if wanted else None for t, wanted in zip(tangents, moving, strict=True)],
            )

        direction = [
            tensor if wanted else torch.zeros_like(tensor)
            for tensor, wanted in zip([*along, *tangents], [*chosen, *moving], strict=True)
        ]

        def adjoints(adjoint, *primals):
            return vjp(function, *primals)[1](adjoint)

        primals = (*weights, *inputs)
        first = adjoints(adjoint, *primals)[num_weights:]
        of_output = jvp(function, primals, tuple(direction))[1]
        second = jvp(adjoints, (adjoint, *primals), (moved, *direction))[1]

        if any(moving):
            for ours, expected, wanted in zip(operation.backward(context(), adjoint), first, moving, strict=True):
                if wanted:
                    assert_close(ours, expected)
        for owned in (False, True):
            ctx, given = context(), moved.clone()
            assert_close_or_zero(operation.r_forward(ctx, owned=owned), of_output)
            if not owned:
                for now, then in zip(
                    [*ctx.weight_tangents, *ctx.input_tangents],
                    [*context().weight_tangents, *context().input_tangents],
                    strict=True,
                ):
                    assert now is None or torch.equal(now, then)
            intermediate = ctx.intermediate
            ctx = context()
            ctx.intermediate = intermediate
            of_inputs, of_weights = operation.r_backward(ctx, given, owned=owned)
            if not owned:
                assert torch.equal(given, moved)
            for ours, expected, wanted in zip(of_inputs, second[num_weights:], moving, strict=True):
                if wanted:
                    assert_close_or_zero(ours, expected)
            for ours, expected, wanted in zip(of_weights, second[:num_weights], chosen, strict=True):
                if wanted:
                    assert_close_or_zero(ours, expected)


geometry = {
    "groups": st.integers(1, 2),
    "stride": st.integers(1, 3),
    "padding": st.integers(0, 2),
    "dilation": st.integers(1, 2),
    "size": st.integers(1, 3),
}


@settings(max_examples=20)
@given(dimensions=st.integers(1, 3), with_bias=st.booleans(), seed=st.integers(0, 2**32), **geometry)
def test_convolution(dimensions, with_bias, seed, groups, stride, padding, dilation, size):
    generator = torch.Generator().manual_seed(seed)
    shape = (5, 6, 4)[:dimensions]
    assume(all(length + 2 * padding > dilation * (size - 1) for length in shape))
    kernel = draw(generator, 2 * groups, 2, *[size] * dimensions)
    weights = [kernel, draw(generator, 2 * groups)] if with_bias else [kernel]
    convolve = getattr(functional, f"conv{dimensions}d")

    def function(kernel, *rest):
        bias = rest[0] if with_bias else None
        return convolve(rest[-1], kernel, bias, stride, padding, dilation, groups)

    operation = Convolution(*([number] * dimensions for number in (stride, padding, dilation)), groups)
    check(operation, function, weights, [draw(generator, 2, 2 * groups, *shape)], generator)


@pytest.mark.parametrize("shape", [(4, 3), (2, 5, 3), (2, 2, 2, 3)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_dense_over_the_last_dimension(shape, with_bias, generator):
    weights = [draw(generator, 2, 3), draw(generator, 2)] if with_bias else [draw(generator, 2, 3)]

    def function(kernel, *rest):
        return functional.linear(rest[-1], kernel, rest[0] if with_bias else None)

    check(Dense(), function, weights, [draw(generator, *shape)], generator)


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 4), (2, 3, 2, 3)])
def test_batch_norm_with_moving_statistics(shape, generator):
    mean, variance = draw(generator, 3), draw(generator, 3).square() + 0.1

    def function(scale, shift, values):
        return functional.batch_norm(values, mean, variance, scale, shift, training=False, eps=1e-3)

    weights, inputs = [draw(generator, 3), draw(generator, 3)], [draw(generator, *shape)]
    check(BatchNorm(1e-3), function, weights, inputs, generator, buffers=[mean, variance])


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate, generator):
    values = 3 * draw(generator, 4, 5)
    check(Gelu(approximate), lambda x: functional.gelu(x, approximate=approximate), [], [values], generator)


@pytest.mark.parametrize("num_axes", [1, 2])
@pytest.mark.parametrize("num_weights", [0, 1, 2])
def test_layer_norm(num_axes, num_weights, generator):
    shape = (4, 3, 5)
    weights = [draw(generator, *shape[-num_axes:]) for _ in range(num_weights)]

    def function(*given):
        *weights, values = given
        return functional.layer_norm(values, shape[-num_axes:], *weights, eps=1e-2)

    check(LayerNorm(num_axes, 1e-2), function, weights, [draw(generator, *shape)], generator)


def test_relu_whose_derivative_at_zero_is_zero(generator):
    values = draw(generator, 4, 5)
    values[:2] = values[:2].round()
    assert (values == 0).any()
    check(Relu(), torch.relu, [], [values], generator)


@settings(max_examples=20)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padded=st.booleans(),
    dilation=st.integers(1, 2),
    ceil_mode=st.booleans(),
    ties=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_max_pool(size, stride, padded, dilation, ceil_mode, ties, seed):
    generator = torch.Generator().manual_seed(seed)
    values = draw(generator, 2, 2, 6, 5)
    values = values.round() if ties else values
    settings = size, stride, tuple(number // 2 * padded for number in size), (dilation, dilation), ceil_mode
    check(MaxPool2d(*settings), lambda x: functional.max_pool2d(x, *settings), [], [values], generator)


@pytest.mark.parametrize(
    ("one", "other"), [((2, 3), (2, 3)), ((2, 3), (3,)), ((1,), (2, 3)), ((2, 1, 3), (4, 1)), ((), (2,))]
)
def test_sums_broadcast(one, other, generator):
    check(Add(), torch.add, [], [draw(generator, *one), draw(generator, *other)], generator)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x,
        lambda x: x.flatten(1),
        lambda x: x.mean(dim=(2, 3)),
        lambda x: x.sum(1, keepdim=True),
        lambda x: x.permute(0, 2, 3, 1),
        lambda x: functional.avg_pool2d(x, 3, 2, 1),
        lambda x: functional.adaptive_avg_pool2d(x, 2),
    ],
)
def test_linear_maps(function, generator):
    check(LinearMap(function), function, [], [draw(generator, 2, 3, 4, 5)], generator)


def test_a_weight_by_itself(generator):
    check(Parameter(), lambda weight: weight.clone(), [draw(generator, 2, 3)], [], generator)


def test_any_other_function_of_weights_buffers_and_inputs(generator):
    buffer = draw(generator, 3)

    def function(weights, buffers, inputs):
        return torch.tanh(inputs[0] * weights[0]) * inputs[1].exp() + weights[0].sin() * buffers[0]

    check(
        GenericOperation(function),
        lambda weight, one, other: function([weight], [buffer], [one, other]),
        [draw(generator, 3)],
        [draw(generator, 2, 3), draw(generator, 2, 1)],
        generator,
        buffers=[buffer],
    )


def group_norm(values, scale, shift):
    groups = values.view(len(values), 2, -1)
    variance, mean = torch.var_mean(groups, 2, correction=0, keepdim=True)
    normalised = (groups - mean) * (variance + 1e-3).rsqrt()
    return normalised.view_as(values) * scale[:, None] + shift[:, None]


# Functions without forward mode, or without that of their adjoints; the same by others that have it; their arguments.
WITHOUT_FORWARD_MODE = {
    "silu": (functional.silu, lambda x: x * x.sigmoid(), [(3, 4)]),
    "mish": (functional.mish, lambda x: x * (1 + x.exp()).log().tanh(), [(3, 4)]),
    "group norm": (lambda x, *given: functional.group_norm(x, 2, *given, 1e-3), group_norm, [(3, 4, 5), (4,), (4,)]),
    "distances": (torch.cdist, lambda x, y: (x[:, None] - y).square().sum(2).sqrt(), [(3, 4), (2, 4)]),
}


@pytest.mark.parametrize(("function", "plain", "shapes"), WITHOUT_FORWARD_MODE.values(), ids=WITHOUT_FORWARD_MODE)
@pytest.mark.parametrize("num_inputs", [1, 3])
@torch.no_grad()  # as in a product; else torch would take SiLU's adjoints apart
def test_functions_of_which_torch_has_no_forward_mode(function, plain, shapes, num_inputs, generator):
    arguments = [draw(generator, *shape) for shape in shapes]
    inputs, weights = arguments[:num_inputs], arguments[num_inputs:]
    check(
        GenericOperation(lambda weights, _, inputs: function(*inputs, *weights)),
        lambda *given: plain(*given[len(weights) :], *given[: len(weights)]),
        weights,
        inputs,
        generator,
    )


@pytest.mark.parametrize(
    ("function", "times"), [(torch.sin, 6), (functional.silu, 4), (lambda x: torch.cdist(x, x), 2)]
)
@torch.no_grad()
def test_torch_is_asked_once_for_a_forward_mode_that_it_lacks(function, times, generator, monkeypatch):
    asked = []
    monkeypatch.setattr(generic, "jvp", lambda *given: (asked.append(given), jvp(*given))[1])
    operation = GenericOperation(lambda *given: function(given[-1][0]))
    values, adjoint, moved, tangent = draw(generator, 4, 3, 3).unbind()
    _, saved = operation.forward([], [], [values])
    ctx = Context(weights=[], saved=saved, needed=[True], adjoint=adjoint, input_tangents=[tangent])
    products = [
        (operation.r_forward(ctx, owned=False), operation.r_backward(ctx, moved, owned=False)[0][0]) for _ in range(3)
    ]
    assert len(asked) == times
    for product in products:
        assert all(torch.equal(now, then) for now, then in zip(product, products[0], strict=True))


def test_no_other_failure_is_taken_for_a_lack_of_forward_mode(generator, monkeypatch):
    def fail(*given):
        raise torch.OutOfMemoryError("too much")

    operation = GenericOperation(lambda *given: given[-1][0].sin())
    values = draw(generator, 4)
    ctx = Context(weights=[], saved=operation.forward([], [], [values])[1], needed=[True], input_tangents=[values])
    monkeypatch.setattr(generic, "jvp", fail)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError, match="too much"):
            operation.r_forward(ctx, owned=False)


@pytest.mark.parametrize("constant", [7, "text", (2, 3), None])
def test_functions_are_given_what_is_no_tensor_as_it_is(constant, generator):
    def function(weights, buffers, inputs):
        assert not weights
        assert not buffers
        return (inputs[1] == constant) * inputs[0].sin()

    operation = GenericOperation(function)
    values, tangent = draw(generator, 4), draw(generator, 4)
    output, saved = operation.forward([], [], [values, constant])
    assert_close(output, values.sin())
    ctx = Context(weights=[], saved=saved, needed=[True, False], input_tangents=[tangent, None])
    assert_close(operation.r_forward(ctx, owned=False), values.cos() * tangent)


@pytest.mark.parametrize(
    ("operation", "num_weights", "num_buffers", "num_inputs"),
    [
        (Relu(), 0, 0, 1),
        (LinearMap(torch.t), 0, 0, 1),
        (Add(), 0, 0, 2),
        (BatchNorm(1e-3), 2, 2, 1),
        (Dense(), 2, 0, 1),
    ],
)
def test_nothing_moves_where_neither_weights_nor_inputs_do(operation, num_weights, num_buffers, num_inputs):
    row, values = torch.ones(3), torch.ones(3, 3)
    weights = [values, row] if isinstance(operation, Dense) else [row] * num_weights
    _, saved = operation.forward(weights, [row] * num_buffers, [values] * num_inputs)
    ctx = Context(
        weights, saved, [False] * num_inputs, weight_tangents=[None] * num_weights, input_tangents=[None] * num_inputs
    )
    assert operation.r_forward(ctx, owned=False) is None


@pytest.mark.parametrize(
    ("query", "key", "value", "mask"),
    [
        ((2, 4, 3), (2, 5, 3), (2, 5, 2), None),
        ((2, 2, 4, 3), (2, 2, 4, 3), (2, 2, 4, 6), (4, 4)),
        ((2, 2, 4, 3), (1, 5, 3), (2, 1, 5, 2), (2, 1, 1, 5)),
        ((4, 3), (2, 5, 3), (5, 2), (1, 5)),
    ],
)
@pytest.mark.parametrize(("is_causal", "scale"), [(False, None), (True, 0.7)])
def test_attention(query, key, value, mask, is_causal, scale, generator):
    def plain(query, key, value, mask=0.0):
        scores = query @ key.transpose(-1, -2) * (scale or query.shape[-1] ** -0.5) + mask
        later = torch.arange(scores.shape[-1]) > torch.arange(scores.shape[-2])[:, None]
        exponentials = torch.where(later & is_causal, 0, scores.exp())
        return exponentials / exponentials.sum(-1, keepdim=True) @ value

    inputs = [draw(generator, *shape) for shape in (query, key, value, mask) if shape]
    check(Attention(is_causal=is_causal, scale=scale), plain, [], inputs, generator)


def test_who_sees_nothing_gets_nothing(generator):
    query, key, value = (draw(generator, 3, 2) for _ in range(3))
    sees = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    for mask in (sees, torch.zeros(3, 3, dtype=torch.float64).masked_fill(~sees, -torch.inf)):
        with sdpa_kernel(SDPBackend.MATH):
            expected = functional.scaled_dot_product_attention(query, key, value, mask)
        assert_close(attention(query, key, value, mask), expected)


@pytest.mark.parametrize("padding", [None, 2])
def test_rows_of_a_table(padding, generator):
    places, table = torch.tensor([[0, 2, 2], [4, 2, 1]]), draw(generator, 5, 3)

    class AtPlaces(Embedding):
        def forward(self, weights, buffers, _):
            return super().forward(weights, buffers, [places])

        def r_backward(self, ctx, r_adjoint, *, owned):
            return (), super().r_backward(ctx, r_adjoint, owned=owned)[1]

    def plain(weight):
        moves = torch.arange(5) != (-1 if padding is None else padding)
        which = functional.one_hot(places, 5).double()
        return (which * moves) @ weight + (which * ~moves) @ table

    check(AtPlaces(padding), plain, [table], [], generator)
