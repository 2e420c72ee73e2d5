"""Networks that others have wrapped, that hold what they computed, or that have nothing to differentiate by."""

import copy
import functools
import sys
import threading
import warnings
from dataclasses import replace
from types import FunctionType

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

from sharpness.hessian.loss import Loss, flatten
from sharpness.hessian.operator import HessianOperator

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


def plain_network():
    return nn.Sequential(nn.Conv2d(2, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(32, 3))


class Distributed(nn.parallel.DistributedDataParallel):
    """Without a group of processes: what counts is that it cannot be copied, nor called."""

    def __init__(self, module):
        nn.Module.__init__(self)
        self.module = module

    def __deepcopy__(self, memo):
        raise RuntimeError("no group of processes")

    def forward(self, *_):
        raise RuntimeError("no group of processes")


def inside(wrap):
    return lambda network: nn.Sequential(wrap(network[:2]), *network[2:])


WRAPPED = {
    "compiled": lambda network: torch.compile(network, backend="aot_eager"),
    "compiled in place": lambda network: network.compile(backend="aot_eager") or network,
    "data parallel": nn.DataParallel,
    "distributed": Distributed,
    "compiled and distributed": lambda network: torch.compile(Distributed(network), backend="aot_eager"),
    "a compiled part": inside(lambda part: torch.compile(part, backend="aot_eager")),
    "a distributed part": inside(Distributed),
}


def twice_differentiated(plain, vector):
    """The product by torch's own double backward, in the order of ``parameters_to_vector``."""
    weights = list(plain.model.parameters())
    loss = functional.cross_entropy(plain.model(plain.inputs), plain.targets)
    slopes = torch.autograd.grad(loss, weights, create_graph=True)
    slope = torch.cat([part.flatten() for part in slopes]) @ vector
    return torch.cat([part.flatten() for part in torch.autograd.grad(slope, weights)])


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_what_is_wrapped_has_the_hessian_of_what_is_inside(problem, wrap, generator, caplog):
    plain = problem(plain_network).in_torchs_order
    vector = torch.randn(len(plain.weights), generator=generator, dtype=torch.float64)
    expected = plain.product(plain.weights, vector)
    wrapped = wrap(copy.deepcopy(plain.model))

    operator = HessianOperator(wrapped, plain.inputs, plain.targets, precision="float64")

    assert list(operator.layout.names) == [name for name, _ in wrapped.named_parameters()]
    assert (operator @ vector - expected).norm() < 1e-12 * expected.norm()
    assert not caplog.records


class Remembers(nn.Module):
    """Keeps what it last computed, with its graph."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 2, 3), nn.Linear(32, 3)
        self.seen = []

    def forward(self, images):
        self.last = self.conv(images).tanh()
        self.seen = [self.last, {"largest": self.last.max()}]
        return self.head(self.last.flatten(1))


def pruned(network):
    prune.random_unstructured(network[0], "weight", 0.3)
    prune.l1_unstructured(network[3], "bias", 1)
    return network


def old_style(norm):
    def apply(network):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            norm(network[0])
            norm(network[3])
        return network.eval()

    return apply


COMPUTED = {
    "remembers": lambda _: Remembers().double(),
    "pruned": pruned,
    "weight norm": old_style(nn.utils.weight_norm),
    "spectral norm": old_style(nn.utils.spectral_norm),
}


@pytest.mark.parametrize("change", COMPUTED.values(), ids=COMPUTED)
def test_tensors_that_a_network_has_computed_and_kept_are_no_obstacle(problem, change, generator):
    with torch.random.fork_rng(devices=[]):
        plain = problem(plain_network)
        plain = replace(plain.in_torchs_order, model=change(plain.model))
    plain.model(plain.inputs)  # computes them, with a graph
    vector = torch.randn(len(plain.weights), generator=generator, dtype=torch.float64)

    operator = HessianOperator(plain.model, plain.inputs, plain.targets, precision="float64")

    # The rule of torch for the norm of weights is wrong: a difference of its gradients is not.
    step = 1e-6 / vector.norm()
    expected = (
        (plain.gradient(plain.weights + step * vector) - plain.gradient(plain.weights - step * vector)) / 2 / step
    )
    assert (operator @ vector - expected).norm() < 1e-7 * expected.norm()


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.Flatten(), torch.jit.script(nn.Linear(72, 3)))


def complex_weights():
    return nn.Linear(3, 3, dtype=torch.complex64)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.ReLU()), ValueError, "Sequential has no parameters"),
        (lambda: torch.relu, TypeError, "must be a torch.nn.Module, got builtin_function_or_method"),
        (scripted, TypeError, r"1 \(RecursiveScriptModule\) is compiled by torch.jit"),
        (lambda: scripted()[1], TypeError, "RecursiveScriptModule is compiled by torch.jit"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), ValueError, "1.weight has no shape yet"),
        (complex_weights, ValueError, "weight is of torch.complex64"),
    ],
)
def test_what_has_no_hessian_is_told(model, error, message):
    with torch.random.fork_rng(devices=[]):
        made = model()
    with pytest.raises(error, match=message):
        HessianOperator(made, torch.zeros(2, 2, 6, 6), torch.zeros(2, dtype=torch.long))


def test_a_network_that_views_whole_planes_has_a_loss(problem):
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(48, 3)

        def forward(self, images):
            return self.head(self.norm(self.conv(images)).tanh().view(images.size(0), -1))

    plain = problem(Views)
    loss, (weights, buffers) = Loss(plain.model, l2=0.0), flatten(plain.model)
    before = buffers.clone()

    value = loss.value(weights, buffers, plain.inputs, plain.targets)

    assert torch.equal(buffers, before)
    torch.testing.assert_close(value, plain.loss(plain.weights).detach())
    torch.testing.assert_close(
        loss.gradient(weights, buffers, plain.inputs, plain.targets), plain.gradient(plain.weights)
    )
    loss.value_and_gradient(weights, buffers, plain.inputs, plain.targets, training=True)
    moved = plain.model.train()(plain.inputs) is not None and plain.model.norm.running_mean
    torch.testing.assert_close(loss.buffer_layout.named(buffers)["norm.running_mean"], moved)


def test_a_forward_that_belongs_to_another_copy_is_told(problem):
    plain = problem(plain_network)
    original = plain.model.forward
    plain.model.forward = torch.compile(original, backend="aot_eager")
    with pytest.raises(ValueError, match="uses the model's own parameters"):
        HessianOperator(plain.model, plain.inputs, plain.targets)


class HasConstants(nn.Module):
    """Tensors of single precision that are neither parameters nor buffers."""

    def __init__(self, listed):
        super().__init__()
        self.conv, self.head, self.listed = nn.Conv2d(2, 2, 3), nn.Linear(32, 3), listed
        self.constant = torch.linspace(-1, 1, 32 * 32, device="cpu").view(32, 32)

    def forward(self, images):
        assert self.listed or images.sum() < 1e9  # which operations run depends on the data
        return self.head(torch.tanh(self.conv(images).flatten(1)) @ self.constant)


@pytest.mark.parametrize("listed", [False, True])
def test_constants_of_single_precision_are_no_obstacle(problem, listed, generator):
    plain = problem(lambda: HasConstants(listed)).in_torchs_order
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, precision="float64")
    vector = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64)
    ours = operator @ vector
    plain.model.constant = plain.model.constant.double()
    expected = plain.product(plain.weights, vector)
    assert (ours - expected).norm() < 1e-12 * expected.norm()


class Holds(nn.Module):
    """Uses a weight from a plain list."""

    def __init__(self):
        super().__init__()
        self.flat, self.head = nn.Flatten(), nn.Linear(72, 3)
        self.held = [self.head.weight]

    def forward(self, images):
        return functional.linear(self.flat(images), self.held[0])


def test_a_weight_that_is_used_from_a_plain_list_is_told(problem):
    plain = problem(Holds)
    loss, (weights, buffers) = Loss(plain.model, l2=0.0), flatten(plain.model)
    for training in (False, True):
        with pytest.raises(ValueError, match=r"uses head\.weight from where it is not registered"):
            loss.value_and_gradient(weights, buffers, plain.inputs, plain.targets, training=training)
    with pytest.raises(ValueError, match=r"uses head\.weight from where it is not registered"):
        HessianOperator(plain.model, plain.inputs, plain.targets)


class HoldsComputed(nn.Module):
    """A dense layer, what was computed from its weight, and how that is used."""

    def __init__(self, hold, use):
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
        self.hold, self.use = hold, use
        self.kept = None

    def forward(self, images):
        features = self.inner[0](images)
        return self.inner[1](features).tanh() + self.use(self.kept, features)


class Slots:
    __slots__ = ("held",)

    def __init__(self, held):
        self.held = held


COMPUTED_BEFORE = {
    "a transpose": (lambda w: w.T, lambda kept, x: x @ kept),
    "an entry": (lambda w: w[1, 2], lambda kept, _: kept),
    "a slice of a slice": (lambda w: w[:2][:, 1:], lambda kept, x: x[:, 1:] @ kept[0][:, None]),
    "a reshape in a list": (lambda w: [w.reshape(72, 3)], lambda kept, x: x @ kept[0]),
    "a view in a dict of tuples": (lambda w: {"all": (w.view(-1),)}, lambda kept, x: x @ kept["all"][0].view(72, 3)),
    "an expanded view": (lambda w: w[None].expand(2, 3, 72), lambda kept, x: x @ kept[1].T),
    "in an object with slots": (lambda w: Slots(w.T), lambda kept, x: x @ kept.held),
    "in a partial function": (lambda w: functools.partial(functional.linear, weight=w[:]), lambda kept, x: kept(x)),
    "twice the weight": (lambda w: 2 * w, lambda kept, x: functional.linear(x, kept)),
    "a norm": (lambda w: w.norm(), lambda kept, x: x[:, :3] / kept),
    "in a lambda": (lambda w: (lambda view: lambda x: x @ view)(w.T), lambda kept, x: kept(x)),
}


@pytest.mark.parametrize(("hold", "use"), COMPUTED_BEFORE.values(), ids=COMPUTED_BEFORE)
def test_what_was_computed_from_a_weight_once_is_told_where_it_is_used(problem, hold, use):
    model = problem(lambda: HoldsComputed(hold, use))
    model.model.kept = hold(model.model.inner[1].weight)
    message = r"^kept of HoldsComputed was computed from inner\.1\.weight before and does not follow it"
    if isinstance(model.model.kept, FunctionType):  # nobody copies it
        message = r"^HoldsComputed uses the model's own parameters, such as inner\.1\.weight"
    with pytest.raises(ValueError, match=message):
        HessianOperator(model.model, model.inputs, model.targets)


def test_a_view_that_an_inner_layer_has_of_frozen_weights_is_told_by_its_place(problem):
    class Transposed(nn.Linear):
        def forward(self, values):
            return values @ self.turned + self.bias

    plain = problem(lambda: nn.Sequential(nn.Flatten(), nn.Sequential(Transposed(72, 3))))
    layer = plain.model[1][0]
    layer.weight.requires_grad_(False)
    object.__setattr__(layer, "turned", layer.weight.T)
    message = r"^turned of 1\.0 \(Transposed\) was computed from 1\.0\.weight before"
    with pytest.raises(ValueError, match=message):
        HessianOperator(plain.model, plain.inputs, plain.targets)
    loss, (weights, buffers) = Loss(plain.model, l2=0.0), flatten(plain.model)
    for training in (False, True):
        with pytest.raises(ValueError, match=message):
            loss.value_and_gradient(weights, buffers, plain.inputs, plain.targets, training=training)


FROZEN = {
    "itself": lambda weight: lambda x: functional.linear(x, weight),
    "a view": lambda weight: (lambda view: lambda x: x @ view)(weight.T),
    "in a list": lambda weight: lambda x: x @ torch.cat([weight, weight])[:3].T,
    "a part of several": lambda weight: lambda x: x @ weight.split(1)[0].T,
}


@pytest.mark.parametrize("function", FROZEN.values(), ids=FROZEN)
def test_a_frozen_weight_that_a_function_holds_is_told(problem, function):
    plain = problem(lambda: HoldsComputed(None, lambda kept, x: kept(x)))
    weight = plain.model.inner[1].weight.requires_grad_(False)
    plain.model.kept = function(weight)
    message = r"^HoldsComputed uses the model's own parameters, such as inner\.1\.weight"
    with pytest.raises(ValueError, match=message):
        HessianOperator(plain.model, plain.inputs, plain.targets)
    # Asking for a shape is no use of the weight.
    plain.model.kept = lambda _: weight.shape[0] + weight.dim() + weight.numel()
    HessianOperator(plain.model, plain.inputs, plain.targets)


def test_a_buffer_that_was_computed_from_a_weight_is_told_where_it_is_used(problem):
    plain = problem(lambda: HoldsComputed(None, lambda kept, x: x @ kept))
    del plain.model.kept
    plain.model.register_buffer("kept", plain.model.inner[1].weight.T)
    with pytest.raises(ValueError, match=r"^kept, a buffer, was computed from inner\.1\.weight before"):
        HessianOperator(plain.model, plain.inputs, plain.targets)


NO_INFLUENCE = {
    "not used": (lambda w: w.T, lambda *_: 0),
    "only looked at": (lambda w: [w.T], lambda kept, x: x.shape[1] / kept[0].shape[0]),
    # To autograd it is a constant, and to double backward.
    "detached": (lambda w: w.detach().T, lambda kept, x: x @ kept.to(x)),
    "a copy": (lambda w: w.detach().clone().T, lambda kept, x: (x @ kept.to(x)).sin()),
    "of another tensor": (lambda _: torch.ones(3, requires_grad=True).exp(), lambda kept, x: x[:, :3] * kept.to(x)),
}


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize(("hold", "use"), NO_INFLUENCE.values(), ids=NO_INFLUENCE)
def test_what_a_network_holds_and_no_weight_moves_is_no_obstacle(problem, hold, use, registered, generator):
    plain = problem(lambda: HoldsComputed(hold, use)).in_torchs_order
    held = hold(plain.model.inner[1].weight)
    if registered and isinstance(held, torch.Tensor):
        del plain.model.kept
        plain.model.register_buffer("kept", held)
    else:
        plain.model.kept = held
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, precision="float64")
    vector = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64)
    expected = twice_differentiated(plain, vector)
    assert (operator @ vector - expected).norm() < 1e-12 * expected.norm()


class Tied(nn.Module):
    """One weight in two layers, one of which has two names."""

    def __init__(self):
        super().__init__()
        self.flat, self.one, self.other = nn.Flatten(), nn.Linear(72, 3), nn.Linear(72, 3)
        self.other.weight = self.one.weight
        self.again = self.one

    def forward(self, images):
        return self.again(self.flat(images)) * self.other(self.flat(images))


@pytest.mark.parametrize("network", [Tied, plain_network])
def test_tied_weights_of_several_names_and_locks_are_no_obstacle(problem, network, generator):
    plain = problem(network)
    plain.model.guards, plain.model.numbers = {"all": [threading.Lock()]}, iter(n for n in range(3))
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, precision="float64")
    vector = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64)
    expected = twice_differentiated(plain, vector)
    assert (operator @ vector - expected).norm() < 1e-12 * expected.norm()


def test_what_refuses_to_be_copied_is_named():
    class Refuses:
        def __deepcopy__(self, memo):
            raise RuntimeError("there is one of me")

    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    network[1].only = Refuses()
    with pytest.raises(TypeError, match=r"only of 1 \(Linear\) cannot be copied: there is one of me"):
        Loss(network, l2=0.0)


class Nested(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.within = Nested(depth - 1) if depth else nn.Linear(72, 3)

    def forward(self, values):
        return self.within(values)


def test_layers_that_are_nested_too_deeply_are_told_how_to_be_copied(problem, generator):
    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(nn.Flatten(), Nested(250)).double()
    plain = replace(problem(plain_network).in_torchs_order, model=network, l2=0.0)
    limit = sys.getrecursionlimit()
    message = rf"^Sequential is nested too deeply .* limit of {limit}: .* sys\.setrecursionlimit\({10 * limit}\)$"
    with pytest.raises(ValueError, match=message):
        HessianOperator(plain.model, plain.inputs, plain.targets)
    try:
        sys.setrecursionlimit(10 * limit)
        operator = HessianOperator(plain.model, plain.inputs, plain.targets, precision="float64")
        vector = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64)
        product, expected = operator @ vector, plain.product(plain.weights, vector)
    finally:
        sys.setrecursionlimit(limit)
    assert (product - expected).norm() < 1e-12 * expected.norm()


class Logs(nn.Module):
    """Keeps a statistic in a buffer."""

    def __init__(self):
        super().__init__()
        self.flat, self.head = nn.Flatten(), nn.Linear(72, 3)
        self.register_buffer("last", torch.zeros(()))

    def forward(self, images):
        logits = self.head(self.flat(images)).tanh()
        self.last = logits.mean().detach()
        return logits


def test_a_statistic_that_is_kept_in_a_buffer_is_no_obstacle(problem, generator):
    plain = problem(Logs).in_torchs_order
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, precision="float64")
    vector = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64)
    expected = plain.product(plain.weights, vector)
    assert (operator @ vector - expected).norm() < 1e-12 * expected.norm()
