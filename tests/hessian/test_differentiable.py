"""What torch cannot differentiate twice, or gets wrong, is right: by formulas written out here, and by differences."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import skip_init
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from sharpness.hessian.double_backward.differentiable import once_differentiable, twice_differentiable
from sharpness.hessian.loss import Loss, flatten
from sharpness.hessian.operator import HessianOperator
from sharpness.runtime.float32 import CONVOLUTIONS

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


class Network(nn.Module):
    """Layers by name, and what to do with them."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, inputs):
        return self.function(self, inputs)


def dense(first, last, *between):
    return nn.Sequential(nn.Linear(first, 6), *between, nn.Linear(6, last))


def weight_normed(norm=weight_norm, **settings):
    network = dense(5, 3, nn.Tanh())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        norm(network[0], **settings)
        norm(network[2], **settings)
    return network


def by_hand(axis):
    """The weights g v / |v|, for each index of the axis, or for all."""

    def forward(state, inputs):
        for layer in ("0", "2"):
            keys = [key for key in state if key.startswith(f"{layer}.") and "weight" in key]
            g, v = (state[key] for key in keys)
            kernel = v * g / (v.norm() if axis is None else v.norm(dim=1 - axis, keepdim=True))
            inputs = functional.linear(inputs.tanh() if layer == "2" else inputs, kernel, state[f"{layer}.bias"])
        return inputs

    return forward


def hard(state, inputs):
    inputs = (functional.linear(inputs, state["0.weight"], state["0.bias"]) / 6 + 0.5).clamp(0, 1)
    return functional.linear(inputs, state["2.weight"], state["2.bias"])


def tanh(state, inputs):
    return functional.linear(
        functional.linear(inputs, state["0.weight"], state["0.bias"]).tanh(), state["2.weight"], state["2.bias"]
    )


def of_part(state, inputs):
    return tanh({key.removeprefix("part."): tensor for key, tensor in state.items()}, inputs)


def checkpointed(reentrant):
    return lambda: Network(
        lambda m, x: m.part[2](checkpoint(lambda x: m.part[1](m.part[0](x)), x, use_reentrant=reentrant)),
        part=dense(5, 3, nn.Tanh()),
    )


def stepwise():
    return Network(lambda m, x: checkpoint_sequential(m.part, 2, x, use_reentrant=False), part=dense(5, 3, nn.Tanh()))


def watched(build):
    """The same, in which which operations run depends on the data."""

    def make():
        network = build()
        network.register_forward_pre_hook(lambda _, given: None if given[0].sum() < 1e9 else given)
        return network

    return make


def dropping(function, **settings):
    return lambda: Network(lambda m, x: m.part[2](function(m.part[:2](x), **settings)), part=dense(5, 3, nn.Tanh()))


def attending(attend):
    return lambda: Network(
        lambda m, x: m.part[2](attend(m.part[:2](x).unflatten(1, (3, 2))).flatten(1)), part=dense(5, 3, nn.Tanh())
    )


def with_heads(x):
    """Attention of one head, whose projections change nothing."""
    eye, x = torch.eye(2, dtype=x.dtype), x.movedim(1, 0)
    settings = {"training": True, "use_separate_proj_weight": True, "need_weights": False}
    projections = {f"{name}_proj_weight": eye for name in "qkv"}
    out, _ = functional.multi_head_attention_forward(
        x, x, x, 2, 1, None, None, None, None, False, 0.5, eye, None, **settings, **projections
    )
    return out.movedim(0, 1)


def attended(state, inputs):
    state = {key.removeprefix("part."): tensor for key, tensor in state.items()}
    x = functional.linear(inputs, state["0.weight"], state["0.bias"]).tanh().unflatten(1, (3, 2))
    x = (x @ x.mT / 2**0.5).softmax(-1) @ x
    return functional.linear(x.flatten(1), state["2.weight"], state["2.bias"])


@torch.compile(backend="aot_eager")
def compiled_tanh(inputs):
    return inputs.tanh()


def by_instance(state, inputs):
    rows = functional.linear(inputs, state["0.weight"], state["0.bias"]).unflatten(1, (2, 3))
    centred = rows - rows.mean(2, keepdim=True)
    rows = centred / (centred.square().mean(2, keepdim=True) + 1e-5).sqrt()
    rows = (rows * state["1.weight"][:, None] + state["1.bias"][:, None]).transpose(1, 2).sin()
    return functional.linear(functional.linear(rows, state["2.weight"]).flatten(1), state["3.weight"])


def instance_normed():
    layers = nn.ModuleList(
        [
            *(nn.Linear(5, 6), nn.InstanceNorm1d(2, affine=True)),
            *(nn.Linear(2, 2, bias=False), nn.Linear(6, 3, bias=False)),
        ]
    )
    return Indexed(lambda m, x: m[3](m[2](m[1](m[0](x).unflatten(1, (2, 3))).transpose(1, 2).sin()).flatten(1)), layers)


class Indexed(nn.ModuleList):
    """Layers by number, and what to do with them."""

    def __init__(self, function, layers):
        super().__init__(layers)
        self.function = function

    def forward(self, inputs):
        return self.function(self, inputs)


CASES = {
    "instance norm before a transposition": (instance_normed, by_instance),
    "weight norm": (weight_normed, by_hand(0)),
    "weight norm of columns": (lambda: weight_normed(dim=1), by_hand(1)),
    "weight norm of all": (lambda: weight_normed(dim=None), by_hand(None)),
    "weight norm by hooks": (lambda: weight_normed(nn.utils.weight_norm), by_hand(0)),
    "hardsigmoid": (lambda: dense(5, 3, nn.Hardsigmoid()), hard),
    "hardsigmoid in place": (lambda: dense(5, 3, nn.Hardsigmoid(inplace=True)), hard),
    "hardsigmoid as a function": (
        lambda: Network(lambda m, x: m.part[1](functional.hardsigmoid(m.part[0](x))), part=dense(5, 3)),
        lambda state, x: hard({"0" + k[6:] if k[5] == "0" else "2" + k[6:]: t for k, t in state.items()}, x),
    ),
    "checkpoints": (checkpointed(False), of_part),
    "re-entrant checkpoints": (checkpointed(True), of_part),
    "checkpoints of a sequence": (stepwise, of_part),
    "dropout as a function": (dropping(functional.dropout), of_part),
    "dropout of all features": (dropping(functional.feature_alpha_dropout, training=True), of_part),
    "torch.dropout": (dropping(torch.dropout, p=0.3, train=True), of_part),
    "dropout of attention": (
        attending(lambda x: functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5)),
        attended,
    ),
    "dropout of heads": (attending(with_heads), attended),
    "a compiled function": (
        lambda: Network(lambda m, x: m.part[2](compiled_tanh(m.part[0](x))), part=dense(5, 3, nn.Tanh())),
        of_part,
    ),
}


def product_of(forward, model, inputs, targets, vector):
    """The Hessian of the mean cross-entropy of ``forward`` times a vector, by double backward."""
    leaf = flatten(model)[0].requires_grad_()
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    pieces = leaf.split([shape.numel() for shape in shapes.values()])
    state = {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
    loss = functional.cross_entropy(forward(state, inputs), targets)
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    return torch.autograd.grad(gradient @ vector, leaf)[0]


@pytest.mark.parametrize("wrap", [lambda build: build, watched], ids=["listed", "not listed"])
@pytest.mark.parametrize(("build", "forward"), CASES.values(), ids=CASES)
def test_equals_the_formula_written_out(build, forward, wrap, fill, generator):
    with torch.random.fork_rng(devices=[]):
        model = wrap(build)().double().eval()
    fill(model, generator)
    inputs = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (7,), generator=generator)
    operator = HessianOperator(model, inputs, targets, precision="float64", chunk_size=3)
    vector = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64)

    expected = product_of(forward, model, inputs, targets, vector)

    assert (operator @ vector - expected).norm() < 1e-12 * expected.norm()


@pytest.mark.parametrize("name", ["dropout as a function", "dropout of attention", "dropout of heads"])
def test_the_loss_is_without_dropout_too(name, generator):
    build, forward = CASES[name]
    with torch.random.fork_rng(devices=[]):
        model = build().double()
    inputs, targets = torch.randn(7, 5, generator=generator, dtype=torch.float64), torch.arange(7) % 3
    value = Loss(model, l2=0.0).value(*flatten(model), inputs, targets)
    expected = functional.cross_entropy(forward(dict(model.named_parameters()), inputs), targets).detach()
    torch.testing.assert_close(value, expected)


TABLES = {
    r"table \(Embedding\)": lambda: nn.Embedding(10, 5, max_norm=0.5),
    r"table \(EmbeddingBag\)": lambda: nn.EmbeddingBag(10, 5, max_norm=0.5),
    "an embedding": lambda: Network(
        lambda m, x: functional.embedding(x, m.w, max_norm=0.5), w=nn.Parameter(torch.ones(10, 5))
    ),
}


@pytest.mark.parametrize(("named", "table"), TABLES.items(), ids=TABLES)
@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_tables_that_are_renormalised_while_they_are_read_are_refused(named, table, precision):
    with torch.random.fork_rng(devices=[]):
        model = Network(
            lambda m, x: m.dense(m.table(x).reshape(len(x), -1, 5).mean(1)), table=table(), dense=nn.Linear(5, 3)
        )
    before = flatten(model)[0]
    with pytest.raises(ValueError, match=rf"^{named} with max_norm(=0\.5)? overwrites its weights while it runs"):
        HessianOperator(model, torch.arange(6).view(3, 2), torch.arange(3), precision=precision)
    assert torch.equal(flatten(model)[0], before)


def test_checkpointing_goes_on_elsewhere(generator):
    """What skips it for one forward pass leaves it as it was for all others."""
    runs = []

    def layer(x):
        runs.append(len(runs))
        return x.tanh()

    x = torch.randn(3, generator=generator, requires_grad=True)
    for context, expected in ((twice_differentiable, 1), (once_differentiable, 1)):
        with context():
            y = checkpoint(layer, x, use_reentrant=False)
        y.sum().backward()
        assert len(runs) == expected
        for reentrant in (False, True):
            checkpoint(layer, x, use_reentrant=reentrant).sum().backward()
            assert len(runs) == expected + 2  # once forward, once backward
            del runs[expected:]
        runs.clear()


BAGS = {
    "two axes": ((torch.tensor([[1, 2, 2], [0, 3, 1], [3, 3, 3]]), None), {}),
    "offsets": ((torch.tensor([1, 2, 2, 0, 3, 1]), torch.tensor([0, 2, 2, 5])), {}),
    "last offset": ((torch.tensor([1, 2, 2, 0, 3]), torch.tensor([0, 2, 5])), {"include_last_offset": True}),
    "padding": ((torch.tensor([[1, 2, 2], [2, 2, 2], [3, 0, 2]]), None), {"padding_idx": 2}),
    "a weight each": (
        (torch.tensor([[1, 2], [0, 3]]), None),
        {"per_sample_weights": torch.tensor([[0.5, -1.0], [2.0, 0.3]], dtype=torch.float64)},
    ),
}


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize(("given", "settings"), BAGS.values(), ids=BAGS)
def test_bags_of_embeddings_have_the_values_and_gradients_of_torch(given, settings, mode, generator):
    if mode != "sum" and "per_sample_weights" in settings:
        return  # torch has no such thing
    table = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    index, offsets = given

    def bags():
        return functional.embedding_bag(index, table, offsets, mode=mode, **settings)

    theirs = bags()
    with twice_differentiable():
        ours = bags()
    torch.testing.assert_close(ours, theirs)
    weighing = torch.randn(theirs.shape, generator=generator, dtype=torch.float64)
    for one, other in zip(
        *(torch.autograd.grad((values * weighing).sum(), table) for values in (ours, theirs)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_batch_norms_in_a_row_after_a_transposition(fill, generator):
    """Torch's second derivative is a third off."""
    norms = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    model = Network(
        lambda m, x: m.last(m.norms(m.first(x).transpose(1, 2).reshape(len(x), 2, 3, 4)).mean((2, 3))),
        **{"first": skip_init(nn.Linear, 2, 2), "norms": norms, "last": skip_init(nn.Linear, 2, 3)},
    ).eval()
    fill(model, generator)
    model.double()
    inputs, targets = torch.randn(1, 12, 2, generator=generator, dtype=torch.float64), torch.tensor([1])
    operator = HessianOperator(model, inputs, targets, precision="float64")
    vector = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64)

    def forward(state, inputs):
        values = functional.linear(inputs, state["first.weight"], state["first.bias"])
        values = values.transpose(1, 2).reshape(1, 2, 12).mean(2)
        for number, norm in enumerate(norms):
            values = (values - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
            values = values * state[f"norms.{number}.weight"] + state[f"norms.{number}.bias"]
        return functional.linear(values, state["last.weight"], state["last.bias"])

    expected = product_of(forward, model, inputs, targets, vector)
    assert (operator @ vector - expected).norm() < 1e-12 * expected.norm()


def test_recurrent_networks_are_taken_whatever_the_precisions_of_cudnns_layers():
    with torch.random.fork_rng():
        layers = {"lstm": nn.LSTM(4, 3, batch_first=True), "head": nn.Linear(3, 2)}
    network = Network(lambda m, x: m.head(m.lstm(x)[0][:, -1]), **layers)
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(6, 5, 4, generator=generator), torch.tensor([0, 1, 1, 0, 1, 0])
    vector = torch.randn(sum(p.numel() for p in network.parameters()), generator=generator)
    product = HessianOperator(network, inputs, targets) @ vector
    before = CONVOLUTIONS.fp32_precision
    CONVOLUTIONS.fp32_precision = "ieee"  # as jobs set it; that of recurrent layers is torch's default
    try:
        assert torch.equal(HessianOperator(network, inputs, targets) @ vector, product)
        assert torch.backends.cudnn.enabled
    finally:
        CONVOLUTIONS.fp32_precision = before
