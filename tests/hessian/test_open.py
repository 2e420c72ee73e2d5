"""Whatever is trained: for every loss, kind of data and curvature, products are those of a dense matrix."""

import copy
import itertools
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from loss_cases import LOSSES
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)

from sharpness.eigen.lanczos import top_eigenpairs
from sharpness.hessian.double_backward.product import DoubleBackward
from sharpness.hessian.operator import HessianOperator
from sharpness.hessian.r_operator.product import ROperator

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")

KINDS = ["hessian", "ggn", "gradient_covariance"]
N = 7


class Watched(nn.Module):
    """Which operations run depends on the data, so that products are by double backward."""

    def forward(self, values):
        assert values.abs().sum() < 1e9
        return values


class Places(nn.Module):
    """Outputs [n, classes, places]."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, torch.Size(shape[1:]).numel())

    def forward(self, inputs):
        return self.last(self.first(inputs).tanh()).unflatten(-1, self.shape[1:])


def filled(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.double().eval()


def built(make, seed=0):
    """A network with weights of its own, for which nothing is drawn from the global generator."""
    with torch.random.fork_rng(devices=[]):
        return filled(make(), seed)


def dense(model, loss, inputs, targets, kind):
    """[P, P] by torch's autograd alone, row by row; ``loss`` is torch's."""
    parameters = list(model.parameters())

    def rows(values, of, *, shape):
        grads = (torch.autograd.grad(v, of, retain_graph=True, materialize_grads=True) for v in values.flatten())
        return torch.stack([torch.cat([g.flatten() for g in row]) for row in grads]).view(shape)

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        outputs = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    size = sum(parameter.numel() for parameter in parameters)
    if kind == "hessian":
        gradient = torch.autograd.grad(loss(outputs, targets), parameters, create_graph=True, materialize_grads=True)
        gradient = torch.cat([part.flatten() for part in gradient])
        return rows(gradient, parameters, shape=(size, size))
    jacobian = rows(outputs, parameters, shape=(len(outputs), -1, size))
    (slopes,) = torch.autograd.grad(loss(outputs, targets), outputs, create_graph=True)
    if kind == "ggn":
        of_loss = rows(slopes, outputs, shape=(slopes.numel(), slopes.numel()))
        jacobian = jacobian.flatten(0, 1)
        return jacobian.T @ of_loss @ jacobian
    # Each example's part of the mean, of which there are N.
    gradients = torch.einsum(
        "nop,no->np", jacobian, slopes.detach().flatten(1) if slopes.dim() > 1 else slopes[:, None]
    )
    return torch.cov(gradients.detach().T * len(outputs), correction=0)


def columns(operator):
    return operator @ torch.eye(operator.shape[0], dtype=operator.dtype)


def agrees(operator, expected, allowed=1e-11):
    """The operator's products with a few random vectors are those of a dense matrix."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(len(expected), 2, generator=generator, dtype=torch.float64).to(expected.dtype)
    close(operator @ vectors, expected @ vectors, allowed)


def close(ours, expected, allowed=1e-11):
    assert (ours - expected).norm() <= allowed * expected.norm()


CASES = [
    (name, shape, last)
    for name in LOSSES
    for shape, last in [((N, 3), nn.Identity), ((N, 3, 2), nn.Identity), ((N, 3), Watched)]
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "shape", "last"), CASES)
def test_products_are_those_of_the_dense_matrix_for_every_loss(kind, name, shape, last, generator):
    loss, targets = LOSSES[name](shape, generator)
    model = built(lambda: nn.Sequential(Places(shape), last()))
    inputs = torch.randn(N, 3, generator=generator, dtype=torch.float64)
    expected = dense(model, loss, inputs, targets, kind)
    assert torch.linalg.matrix_rank(expected) >= 2
    for chunk_size in (2, 256):
        operator = HessianOperator(
            model, (inputs, targets), loss=loss, curvature=kind, precision="float64", chunk_size=chunk_size
        )
        assert isinstance(operator._product._form, ROperator if last is nn.Identity else DoubleBackward)
        agrees(operator, expected)


@pytest.mark.parametrize("name", ["classes", "squares", "binary with weights"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_convolutional_network_and_attention_have_them_too(name, kind, generator, problem):
    plain = problem("batch_norm", num_examples=5)
    layer = built(lambda: nn.TransformerEncoderLayer(3, 1, 4, batch_first=True))
    last = built(lambda: nn.Linear(6, 3))
    model = nn.Sequential(
        *plain.model[:-1], nn.Unflatten(1, (2, 30)), built(lambda: nn.Linear(30, 3)), layer, nn.Flatten(), last
    ).eval()
    loss, targets = LOSSES[name]((5, 3), generator)
    operator = HessianOperator(model, plain.inputs, targets, loss=loss, curvature=kind, precision="float64")
    agrees(operator, dense(model, loss, plain.inputs, targets, kind), 1e-10)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_of_every_curvature_are_certified_in_lower_precision(kind, precision, generator):
    loss, targets = LOSSES["weights"]((N, 3), generator)
    model = built(lambda: Places((N, 3)))
    inputs = torch.randn(N, 3, generator=generator, dtype=torch.float64)
    expected = torch.linalg.eigvalsh(dense(model, loss, inputs, targets, kind)).flip(0)[:3]
    operator = HessianOperator(model, inputs, targets, loss=loss, curvature=kind, precision=precision)
    pairs = top_eigenpairs(operator, 3, tolerance=1e-3)
    assert (pairs.eigenvalues.double() - expected).abs().max() < 1e-3 * expected[0]


def test_softmax_regression_with_weights_has_its_closed_form(generator):
    model = built(lambda: nn.Linear(4, 3, bias=False))
    inputs = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    labels, weights = torch.arange(9) % 3, torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    expected = torch.zeros(3, 4, 3, 4, dtype=torch.float64)
    for row, label, outputs in zip(inputs, labels, model(inputs).detach(), strict=True):
        p = outputs.softmax(0)
        expected += weights[label] * torch.einsum("ab,i,j->aibj", p.diag() - torch.outer(p, p), row, row)
    expected = expected.reshape(12, 12) / weights[labels].sum()
    for kind in ("hessian", "ggn"):
        operator = HessianOperator(
            model, inputs, labels, loss=nn.CrossEntropyLoss(weight=weights), curvature=kind, precision="float64"
        )
        agrees(operator, expected)


def test_linear_and_logistic_regression_have_their_closed_forms(generator):
    model = built(lambda: nn.Linear(4, 1, bias=False))
    inputs = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    targets = (torch.arange(9) % 2)[:, None].double()
    settings = {"precision": "float64", "chunk_size": 4}
    close(columns(HessianOperator(model, inputs, targets, loss=nn.MSELoss(), **settings)), 2 * inputs.T @ inputs / 9)
    p = model(inputs).detach().sigmoid()
    slopes = (p - targets) * inputs
    loss = nn.BCEWithLogitsLoss()
    close(
        columns(HessianOperator(model, inputs, targets, loss=loss, **settings)), (p * (1 - p) * inputs).T @ inputs / 9
    )
    covariance = HessianOperator(model, inputs, targets, loss=loss, curvature="gradient_covariance", **settings)
    close(columns(covariance), torch.from_numpy(np.cov(slopes.numpy().T, bias=True)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_penalty_is_part_of_what_is_curved_and_of_no_covariance(kind, generator):
    model = built(lambda: Places((N, 3)))
    inputs, targets = torch.randn(N, 3, generator=generator, dtype=torch.float64), torch.arange(N) % 3
    plain, penalised = (
        HessianOperator(model, inputs, targets, l2=l2, curvature=kind, precision="float64") for l2 in (0.0, 0.3)
    )
    is_kernel = torch.cat([torch.full((p.numel(),), float(p.dim() > 1)) for p in model.parameters()]).double()
    expected = columns(plain) + (torch.zeros(()) if kind == "gradient_covariance" else 0.6 * is_kernel.diag())
    close(columns(penalised), expected)


# Inputs of several parts


class Pair(nn.Module):
    def __init__(self, watched=False):
        super().__init__()
        self.table, self.first, self.last = nn.Embedding(6, 4), nn.Linear(3, 4), nn.Linear(4, 3)
        self.watched = Watched() if watched else nn.Identity()

    def forward(self, tokens, numbers, scale=1.0):
        return self.last(self.watched(self.table(tokens).mean(1) * self.first(numbers).tanh() * scale))


class Whole(nn.Module):
    """A network that takes its inputs as one dict."""

    def __init__(self):
        super().__init__()
        self.pair = Pair()

    def forward(self, batch):
        return self.pair(batch["tokens"], batch["numbers"])


def parts_of(generator, number=N):
    tokens = torch.randint(6, (number, 5), generator=generator)
    return tokens, torch.randn(number, 3, generator=generator, dtype=torch.float64), torch.arange(number) % 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("watched", [False, True])
def test_inputs_may_be_tuples_or_dicts(kind, watched, generator):
    model = built(lambda: Pair(watched))
    tokens, numbers, labels = parts_of(generator)
    settings = {"curvature": kind, "precision": "float64", "chunk_size": 3}
    expected = dense(model, nn.CrossEntropyLoss(), (tokens, numbers), labels, kind)
    for inputs in (
        (tokens, numbers),
        [tokens, numbers],
        {"numbers": numbers, "tokens": tokens},
        {"tokens": tokens.numpy(), "numbers": numbers.numpy(), "scale": 1.0},
        {"tokens": tokens, "numbers": numbers, "scale": torch.tensor(1.0)},
    ):
        agrees(HessianOperator(model, inputs, labels, **settings), expected)
        agrees(HessianOperator(model, (inputs, labels), **settings), expected)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 3)

    def forward(self, values, mask):
        return self.last(nn.functional.scaled_dot_product_attention(values, values.tanh(), values, mask).mean(1))


def test_masks_of_attention_may_be_infinite(generator):
    model, values = built(Masked), torch.randn(4, 5, 3, generator=generator, dtype=torch.float64)
    mask = torch.zeros(4, 5, 5, dtype=torch.float64).masked_fill(
        torch.rand(4, 5, 5, generator=generator) < 0.3, -torch.inf
    )
    mask[..., 0] = 0
    labels = torch.arange(4) % 3
    expected = dense(model, nn.CrossEntropyLoss(), (values, mask), labels, "hessian")
    agrees(HessianOperator(model, {"values": values, "mask": mask}, labels, precision="float64"), expected)


def test_a_network_that_takes_one_dict_is_given_one(generator):
    tokens, numbers, labels = parts_of(generator)
    whole = built(Whole)
    expected = dense(whole.pair, nn.CrossEntropyLoss(), (tokens, numbers), labels, "hessian")
    operator = HessianOperator(whole, {"tokens": tokens, "numbers": numbers}, labels, precision="float64")
    agrees(operator, expected)


def test_inputs_that_a_network_does_not_take_are_told(generator):
    tokens, numbers, labels = parts_of(generator)
    for inputs, sentence in (
        ({"tokens": tokens, "words": numbers}, "Pair takes tokens, numbers, scale, but is given tokens, words"),
        ((tokens, numbers[:3]), "need as many targets as inputs and at least one, got 7 and 3"),
        ((tokens, numbers, numbers, numbers), "Pair takes tokens, numbers, scale, but is given 4 tensors"),
        (("a", "b"), "inputs must be tensors"),
        ((tokens, numbers.index_fill(0, torch.tensor([2]), torch.nan)), r"inputs\[2\] has nan"),
    ):
        with pytest.raises((ValueError, TypeError), match=sentence):
            HessianOperator(built(Pair), inputs, labels)


# Data


def batches_of(inputs, targets, size):
    return list(zip(inputs.split(size), targets.split(size), strict=True))


class Fresh:
    """Can be iterated again and again, with tensors of its own each time."""

    def __init__(self, batches):
        self.batches = batches
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        return iter(copy.deepcopy(self.batches))


@pytest.fixture
def regression(generator):
    model = built(lambda: Places((N, 3)))
    inputs = torch.randn(N, 3, generator=generator, dtype=torch.float64)
    return model, inputs, torch.tensor([0, 1, 2, -100, 1, -100, 0])


WEIGHTED = nn.CrossEntropyLoss(weight=torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64), label_smoothing=0.1)
WAYS = {
    "tuple": lambda x, y: (x, y),
    "list": lambda x, y: [x, y],
    "arrays": lambda x, y: (x.numpy(), y.numpy()),
    "batches": lambda x, y: batches_of(x, y, 3),
    "a tuple of two batches": lambda x, y: tuple(batches_of(x, y, 4)),
    "two batches": lambda x, y: batches_of(x, y, 4),
    "one by one": lambda x, y: batches_of(x, y, 1),
    "lists of arrays": lambda x, y: [[a.numpy(), b.numpy()] for a, b in batches_of(x, y, 3)],
    "a loader": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=3),
    "an iterable": lambda x, y: Fresh(batches_of(x, y, 2)),
}


@pytest.mark.parametrize(("last", "budget"), [(nn.Identity, 2**30), (Watched, 0)], ids=["kept", "streamed"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_answer_never_depends_on_how_the_data_are_given(regression, way, kind, last, budget):
    model, inputs, targets = regression
    model = nn.Sequential(model, last())
    expected = dense(model, WEIGHTED, inputs, targets, kind)
    operator = HessianOperator(
        *(model, way(inputs, targets)), loss=WEIGHTED, curvature=kind, precision="float64", memory_budget=budget
    )
    agrees(operator, expected)


def test_inputs_and_data_are_two_names_of_the_same(regression):
    model, inputs, targets = regression
    batches = batches_of(inputs, targets, 2)
    expected = dense(model, nn.CrossEntropyLoss(), inputs, targets, "hessian")
    for given in ({"inputs": inputs, "targets": targets}, {"data": (inputs, targets)}, {"data": batches}):
        agrees(HessianOperator(model, precision="float64", **given), expected)
    with pytest.raises(TypeError, match="give one of them"):
        HessianOperator(model, batches, inputs=inputs)
    with pytest.raises(TypeError, match=r"give it by its name, loss="):
        HessianOperator(model, batches, nn.CrossEntropyLoss())


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_batches_that_grow_are_kept_as_far_as_their_largest_allows(precision, generator):
    """The first chunk is the smallest here: what it takes says too little of the others."""
    model = built(lambda: Places((N, 3)))
    inputs, targets = torch.randn(331, 3, generator=generator, dtype=torch.float64), torch.arange(331) % 3
    batches = list(zip(inputs.split([1, 30, 300]), targets.split([1, 30, 300]), strict=True))
    expected = dense(model, nn.CrossEntropyLoss(), inputs, targets, "hessian")
    sentences = Fresh([(x[None], y[None]) for x, y in batches])  # which cannot be joined
    whole = nn.Sequential(Tokens(model))
    with pytest.raises(ValueError, match=r"memory_budget leaves [0-9,]+ bytes for a chunk"):
        HessianOperator(whole, sentences, precision=precision, memory_budget=20_000)
    operator = HessianOperator(whole, sentences, precision=precision, memory_budget=400_000)
    operator = operator.reference or operator
    agrees(operator, expected.to(operator.dtype), 1e-11 if precision == "float64" else 1e-5)


class Tokens(nn.Module):
    """Applies a network to each position, and gives logits [n, classes, positions]."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return self.network(inputs).movedim(-1, 1)


@pytest.mark.parametrize("kind", ["hessian", "ggn"])
@pytest.mark.parametrize("name", ["weights", "squares"])
def test_batch_statistics_are_differentiated_through_for_every_loss(kind, name, generator):
    model = built(lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)))
    loss, targets = LOSSES[name]((N, 3), generator)
    inputs = torch.randn(N, 3, generator=generator, dtype=torch.float64)
    operator = HessianOperator(
        model, inputs, targets, loss=loss, curvature=kind, batch_statistics=True, precision="float64"
    )
    model[1].train()
    agrees(operator, dense(model, loss, inputs, targets, kind), 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_kept", range(5))
def test_what_does_not_fit_is_read_again_for_each_product(regression, kind, num_kept):
    model, inputs, targets = regression
    model = nn.Sequential(model, Watched())  # which keeps nothing itself
    data = Fresh(batches_of(inputs, targets, 2))
    budget = 2 * num_kept * 2 * (3 + 1) * 8
    operator = HessianOperator(*(model, data), loss=WEIGHTED, curvature=kind, precision="float64", memory_budget=budget)
    before = data.passes
    agrees(operator, dense(model, WEIGHTED, inputs, targets, kind))
    assert data.passes - before == (2 if num_kept < 4 else 0)


@pytest.mark.slow
def test_linearisations_are_kept_beside_streamed_examples(regression, monkeypatch):
    """Some chunks cached, some recomputed, some read anew: the same products."""
    model, inputs, targets = regression
    expected = dense(model, WEIGHTED, inputs, targets, "hessian")
    inputs, targets = inputs.repeat(20, 1), targets.repeat(20)
    seen = set()
    for budget in range(4_000, 60_000, 4_000):
        data = batches_of(inputs, targets, 7)
        operator = HessianOperator(model, data, loss=WEIGHTED, precision="float64", memory_budget=budget, chunk_size=7)
        seen.add((len(operator._linearised) > 0, operator._examples.stream is not None))
        agrees(operator, expected)
    assert seen >= {(False, True), (True, True), (True, False)}


def test_sentences_of_different_lengths_are_weighted_by_their_tokens(generator):
    model = built(lambda: nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 9)))
    moved = nn.Sequential(model, Moved())
    tokens = [torch.randint(9, (2, length), generator=generator) for length in (3, 7, 1)]
    expected = dense(
        model,
        nn.CrossEntropyLoss(),
        torch.cat([t.flatten() for t in tokens]),
        torch.cat([t.flatten() for t in tokens]),
        "hessian",
    )
    for budget in (2**30, 40_000):
        operator = HessianOperator(moved, [(t, t) for t in tokens], precision="float64", memory_budget=budget)
        agrees(operator, expected)


class Moved(nn.Module):
    def forward(self, logits):
        return logits.movedim(-1, 1)


class Augmented(TensorDataset):
    """Adds noise of torch's global generator to an example."""

    def __getitem__(self, index):
        inputs, targets = super().__getitem__(index)
        return inputs + torch.randn(inputs.shape), targets


class Walk(IterableDataset):
    def __init__(self, *tensors):
        self.tensors = tensors

    def __iter__(self):
        return iter(zip(*self.tensors, strict=True))


class Shrinking(Fresh):
    def __iter__(self):
        self.passes += 1
        return iter(self.batches[: -self.passes])


class Numbered(Fresh):
    def __iter__(self):
        self.passes += 1
        return iter([(x + 100 * (self.passes > 1) * (number == 1), y) for number, (x, y) in enumerate(self.batches)])


CHANGING = {
    "shuffled": (lambda data: DataLoader(data.whole, batch_size=2, shuffle=True), "in another order in each pass"),
    "shuffled by its own": (
        lambda data: DataLoader(data.whole, batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(3)),
        "in another order in each pass",
    ),
    "augmented": (lambda data: DataLoader(Augmented(*data.whole.tensors), batch_size=2), "other values in each pass"),
    "drops": (
        lambda data: DataLoader(data.whole, batch_size=2, drop_last=True),
        "drops its last batch, 1 of 7 examples",
    ),
    "shuffled and dropped": (
        lambda data: DataLoader(data.whole, batch_size=4, shuffle=True, drop_last=True),
        "drops its last batch, 3 of 7",
    ),
    "drops of what nobody counted": (
        lambda data: DataLoader(Walk(*data.whole.tensors), batch_size=2, drop_last=True),
        "drops what is left over for its last batch, after 6 examples: make it with drop_last=False",
    ),
    "drops in its own way": (
        lambda data: DataLoader(data.whole, batch_sampler=BatchSampler(SequentialSampler(data.whole), 4, True)),
        "drops its last batch, 3 of 7",
    ),
    "repeats": (
        lambda data: DataLoader(data.whole, sampler=DistributedSampler(data.whole, num_replicas=2, rank=0)),
        "DistributedSampler makes 8 of 7 examples",
    ),
    "draws": (
        lambda data: DataLoader(data.whole, sampler=RandomSampler(data.whole, replacement=True)),
        "other examples in each pass",
    ),
    "fewer": (lambda data: Shrinking(data.batches), "give 6 examples in one pass and [24] in the next"),
    "some differ": (lambda data: Numbered(data.batches), r"other examples in each pass \(2 of 7 differ\)"),
    "once": (lambda data: iter(data.batches), "can be read only once"),
    "a generator": (lambda data: (batch for batch in data.batches), "can be read only once"),
    "a data set": (lambda data: data.whole, r"TensorDataset gives single examples: give .*DataLoader\(dataset"),
    "nothing": (lambda _: [], "give no batches"),
    "a number": (lambda _: 3, "got int"),
    "None": (lambda _: None, "the examples are missing"),
    "a dict": (lambda data: {"x": data.whole.tensors[0], "y": data.whole.tensors[1]}, "got a dict with 'x', 'y'"),
    "inputs alone": (lambda data: data.whole.tensors[0], "the targets are missing"),
    "batches of inputs": (
        lambda data: [x for x, _ in data.batches],
        r"must be \(inputs, targets\), got a Tensor",
    ),
    "batches of three": (
        lambda data: [(x, y, y) for x, y in data.batches],
        "got a tuple of 3: for others",
    ),
}


@pytest.mark.parametrize("budget", [2**30, 0])
@pytest.mark.parametrize(("data", "sentence"), CHANGING.values(), ids=CHANGING)
def test_data_that_change_or_are_none_are_refused_in_a_sentence(regression, data, sentence, budget):
    model, inputs, targets = regression
    targets = targets.clamp(min=0)
    given = SimpleNamespace(whole=TensorDataset(inputs, targets), batches=batches_of(inputs, targets, 2))
    with pytest.raises((ValueError, TypeError), match=sentence) as refusal:
        HessianOperator(nn.Sequential(model, Watched()), data(given), memory_budget=budget)
    assert "\n" not in str(refusal.value)


def test_data_that_change_later_are_noticed_at_the_product(regression):
    model, inputs, targets = regression
    batches = batches_of(inputs, targets, 2)
    operator = HessianOperator(nn.Sequential(model, Watched()), batches, memory_budget=0)
    operator @ torch.ones(operator.shape[0])
    batches[0][0].add_(1)
    with pytest.raises(ValueError, match="other examples in each pass"):
        operator @ torch.ones(operator.shape[0])


def test_a_pass_that_is_left_early_moves_no_generator(regression):
    """Also where an error keeps it alive: what it had put aside must not come back later."""
    model, inputs, targets = regression
    loader = DataLoader(TensorDataset(inputs, targets.clamp(min=0)), batch_size=2)
    operator = HessianOperator(nn.Sequential(model, Watched()), loader, memory_budget=0)
    with torch.random.fork_rng(devices=[]):
        before = torch.random.get_rng_state()
        batches = operator._examples.streamed()
        next(batches)
        assert torch.equal(torch.random.get_rng_state(), before)
        drawn = torch.rand(3)
        del batches
        assert not torch.equal(torch.rand(3), drawn)


@pytest.mark.parametrize("budget", [2**30, 0])
def test_loaders_of_a_stream_and_with_workers_leave_the_generators_alone(regression, budget):
    model, inputs, targets = regression
    model = nn.Sequential(model, Watched())
    expected = dense(model, nn.CrossEntropyLoss(), inputs, targets, "hessian")
    own = torch.Generator().manual_seed(7)
    state = own.get_state()
    for loader in (
        DataLoader(Walk(inputs, targets), batch_size=3),
        DataLoader(TensorDataset(inputs, targets), batch_size=3, generator=own),
        DataLoader(TensorDataset(inputs, targets), batch_size=7, drop_last=True),
    ):
        agrees(HessianOperator(model, loader, precision="float64", memory_budget=budget), expected)
    assert torch.equal(own.get_state(), state)


def test_a_last_batch_of_one_example_may_have_any_strides(regression):
    """As a column of a table of labels has; torch counts it as contiguous nevertheless."""
    model, inputs, targets = regression
    table = torch.stack([targets, targets], dim=1)
    batches = [(inputs[:6], table[:6, 0]), (inputs[6:], table[6:, 0])]
    assert batches[1][1].shape == (1,)
    expected = dense(model, nn.CrossEntropyLoss(), inputs, targets, "hessian")
    agrees(HessianOperator(model, batches, precision="float64"), expected)


def test_a_network_that_mixes_examples_takes_them_whole_or_not_at_all(regression):
    model, inputs, targets = regression
    model = built(lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)))
    expected = dense(model, nn.CrossEntropyLoss(), inputs, targets, "hessian")
    close(columns(HessianOperator(model, batches_of(inputs, targets, 2), precision="float64")), expected, 1e-10)
    watched = nn.Sequential(model, Watched())
    with pytest.raises(ValueError, match=r"depend on the others in its batch.*half of memory_budget"):
        HessianOperator(watched, batches_of(inputs, targets, 2), memory_budget=0)
    with pytest.raises(ValueError, match="none has a gradient of its own"):
        HessianOperator(watched, inputs, targets, curvature="gradient_covariance")


TARGETS = {
    "a column is missing": (nn.MSELoss(), (4, 1), torch.zeros(4), r"\[4\], but .* \[4, 1\]: give targets.unsqueeze"),
    "nan": (nn.MSELoss(), (4, 2), torch.tensor([[0.0, 1.0]] * 3 + [[torch.nan, 0.0]]), r"targets\[3, 0\] is nan"),
    "two": (nn.BCEWithLogitsLoss(), (4, 2), torch.full((4, 2), 2.0), r"targets\[0, 0\] is 2, .*from 0 to 1"),
    "batch weights": (nn.BCEWithLogitsLoss(torch.ones(4, 1)), (4, 2), torch.ones(4, 2), r"weight of shape \[4, 1\]"),
    "few weights": (
        nn.CrossEntropyLoss(torch.ones(2)),
        (4, 3),
        torch.arange(4) % 3,
        "2 classes, but the network has 3",
    ),
    "no weight": (nn.CrossEntropyLoss(torch.tensor([0.0, 1, 1])), (4, 3), torch.zeros(4).long(), "weight of zero"),
    "floats": (nn.CrossEntropyLoss(), (4, 3), torch.zeros(4), r"probabilities, one for each of the logits \[4, 3\]"),
    "ignored": (
        nn.CrossEntropyLoss(ignore_index=2),
        (4, 3),
        torch.full((4,), 2),
        "all targets are 2, which is ignored",
    ),
    "the other": (nn.CrossEntropyLoss(ignore_index=2), (4, 3), torch.full((4,), -100), r"targets\[0\] is -100"),
    "too large": (nn.CrossEntropyLoss(ignore_index=255), (4, 3), torch.full((4,), 3), "0 to 2, or 255 to ignore"),
}


@pytest.mark.parametrize(("loss", "shape", "targets", "sentence"), TARGETS.values(), ids=TARGETS)
def test_targets_that_a_loss_does_not_take_are_told(loss, shape, targets, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        HessianOperator(built(lambda: nn.Linear(3, shape[1])), torch.ones(4, 3), targets, loss=loss)
    assert "\n" not in str(refusal.value)


def test_outputs_may_have_no_second_axis(generator):
    model = built(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)))
    inputs, targets = torch.randn(N, 3, generator=generator).double(), torch.rand(N, generator=generator).double()
    for loss in (nn.MSELoss(), nn.BCEWithLogitsLoss(pos_weight=torch.tensor(2.0).double())):
        for kind in KINDS:
            operator = HessianOperator(model, inputs, targets, loss=loss, curvature=kind, precision="float64")
            agrees(operator, dense(model, loss, inputs, targets, kind))


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # by what curvlinops imports
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *itertools.product(KINDS[:2], ["weights", "smoothing", "probabilities", "squares", "binary with weights"]),
        # Theirs is of examples' summed losses: the same where an example has one term.
        *itertools.product(KINDS[2:], ["classes", "weights", "smoothing"]),
    ],
)
def test_equals_the_operators_of_curvlinops(kind, name, generator):
    if os.environ.get("CI") != "true":
        pytest.importorskip("curvlinops", reason="needs what `make .venv/bench` installs")
    import curvlinops

    loss, targets = LOSSES[name]((N, 3), generator)
    model = built(lambda: Places((N, 3)))
    inputs = torch.randn(N, 3, generator=generator, dtype=torch.float64)
    kinds = {
        "hessian": curvlinops.HessianLinearOperator,
        "ggn": curvlinops.GGNLinearOperator,
        "gradient_covariance": curvlinops.EFLinearOperator,
    }
    parameters = list(model.parameters())
    theirs = kinds[kind](model, loss, parameters, [(inputs, targets)], check_deterministic=False)
    operator = HessianOperator(model, inputs, targets, loss=loss, curvature=kind, precision="float64")
    vector = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64)
    ours = operator @ vector
    if kind == "gradient_covariance":  # theirs is not centred
        gradient = nn.utils.parameters_to_vector(torch.autograd.grad(loss(model(inputs), targets), parameters))
        ours = ours + gradient * (gradient @ vector)
    torch.testing.assert_close(ours, torch.as_tensor(theirs @ vector), rtol=1e-9, atol=1e-11)
