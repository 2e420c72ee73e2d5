"""A loss that a model computes inside: ``loss(model, batch)`` returns the sum over terms and their number."""

import copy
from collections import UserDict

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from sharpness.eigen.lanczos import top_eigenpairs
from sharpness.hessian.double_backward.product import DoubleBackward
from sharpness.hessian.operator import HessianOperator
from sharpness.hessian.r_operator.product import ROperator

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


class Language(nn.Module):
    """Gives a dict with the logits and, where there are labels, their mean loss, as language models do."""

    def __init__(self, *, watched=False):
        super().__init__()
        self.table, self.first, self.last = nn.Embedding(7, 4), nn.Linear(4, 5), nn.Linear(5, 7)
        self.dropout, self.watched = nn.Dropout(0.5), watched

    def forward(self, input_ids, labels=None, mask=None):
        hidden = self.table(input_ids) if mask is None else self.table(input_ids) * mask.unsqueeze(-1)
        logits = self.last(self.dropout(self.first(hidden).tanh()))
        if self.watched:
            assert logits.sum() < 1e9
        given = {"logits": logits}
        if labels is not None:
            given["loss"] = functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return given


def inside(model, batch):
    """What a user writes for a model that gives the mean over its labels."""
    number = (batch["labels"] != -100).sum()
    return model(**batch)["loss"] * number, number


def by_hand(model, batch):
    logits = model(batch["input_ids"])["logits"].movedim(-1, 1)
    total = functional.cross_entropy(logits, batch["labels"], reduction="sum")
    return total, int((batch["labels"] != -100).sum())


def of_three(model, inputs, targets):
    return functional.cross_entropy(model(inputs)["logits"], targets, reduction="sum"), len(targets)


@pytest.fixture(params=[False, True], ids=["traced", "double backward"])
def model(request, generator):
    with torch.random.fork_rng(devices=[]):
        made = Language(watched=request.param).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made  # in training mode: dropout is off nevertheless


@pytest.fixture
def whole(generator):
    tokens = torch.randint(7, (6, 4), generator=generator)
    labels = tokens.roll(-1, 1)
    labels[0, :] = labels[1, 2:] = labels[4, 3] = -100
    return {"input_ids": tokens, "labels": labels}


def cut(whole, size):
    return [{key: value[start : start + size] for key, value in whole.items()} for start in range(0, 6, size)]


def outer(model, whole, kind):
    """[P, P] by torch's autograd alone."""
    model.eval()
    parameters = list(model.parameters())

    def flat(value, *, create=False):
        grads = torch.autograd.grad(value, parameters, create_graph=create, retain_graph=True, materialize_grads=True)
        return torch.cat([grad.flatten() for grad in grads])

    total, number = by_hand(model, whole)
    if kind == "hessian":
        matrix = torch.stack([flat(entry) for entry in flat(total / number, create=True)])
    else:
        rows = torch.stack([flat(by_hand(model, one)[0]) for one in cut(whole, 1)]) * 6 / number
        matrix = torch.cov(rows.T, correction=0)
    model.train()
    return matrix.detach()


def agrees(operator, expected):
    vectors = torch.randn(len(expected), 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    product = expected @ vectors
    assert (operator @ vectors - product).norm() < 1e-11 * product.norm()


WAYS = {
    "one dict": lambda whole: whole,
    "batches": lambda whole: cut(whole, 2),
    "uneven batches": lambda whole: cut(whole, 4),
    "single examples": lambda whole: cut(whole, 1),
    "of a tokenizer": lambda whole: [UserDict(batch) for batch in cut(whole, 3)],
    "a loader": lambda whole: DataLoader(cut(whole, 1), batch_size=None),
    "with None": lambda whole: [{**batch, "mask": None} for batch in cut(whole, 2)],
    "arrays": lambda whole: {key: value.numpy() for key, value in whole.items()},
}


@pytest.mark.parametrize("kind", ["hessian", "gradient_covariance"])
@pytest.mark.parametrize("budget", [2**30, 25_000])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_products_are_those_of_the_mean_over_all_terms(model, whole, way, budget, kind):
    expected = outer(model, whole, kind)
    operator = HessianOperator(
        *(model, way(whole)), loss=inside, curvature=kind, precision="float64", memory_budget=budget
    )
    agrees(operator, expected)


def test_the_sum_may_be_computed_outside_and_the_number_be_a_plain_one(model, whole):
    for data in (whole, cut(whole, 2)):
        agrees(HessianOperator(model, data, loss=by_hand, precision="float64"), outer(model, whole, "hessian"))


def test_a_batch_may_be_a_tuple_or_inputs_and_targets(model, whole):
    def loss(model, batch):
        tokens, labels = batch
        return by_hand(model, {"input_ids": tokens, "labels": labels})

    expected = outer(model, whole, "hessian")
    tokens, labels = whole.values()
    agrees(HessianOperator(model, (tokens, labels), loss=loss, precision="float64", chunk_size=4), expected)
    agrees(HessianOperator(model, tokens, labels, loss=loss, precision="float64"), expected)
    pairs = list(zip(tokens.split(2), labels.split(2), strict=True))
    agrees(HessianOperator(model, pairs, loss=loss, precision="float64"), expected)


def test_what_can_be_traced_is_multiplied_by_the_r_operator(model, whole):
    expected = DoubleBackward if model.watched else ROperator
    assert isinstance(HessianOperator(model, whole, loss=inside)._product._form, expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pairs_are_certified(model, whole, precision):
    expected = torch.linalg.eigvalsh(outer(model, whole, "hessian")).flip(0)[:3]
    pairs = top_eigenpairs(HessianOperator(model, cut(whole, 2), loss=inside, precision=precision), 3)
    assert pairs.residuals.max() < 1e-3
    assert (pairs.eigenvalues - expected).abs().max() < 1e-3 * expected[0]


def test_sentences_of_other_lengths_may_follow(model, whole):
    longer = {key: value.repeat(1, 2)[:, :6] for key, value in whole.items()}
    total = outer(model, whole, "hessian") * int((whole["labels"] != -100).sum())
    total += outer(model, longer, "hessian") * int((longer["labels"] != -100).sum())
    number = sum(int((batch["labels"] != -100).sum()) for batch in (whole, longer))
    for budget in (2**30, 40_000):
        operator = HessianOperator(
            model, [*cut(whole, 2), *cut(longer, 3)], loss=inside, precision="float64", memory_budget=budget
        )
        agrees(operator, total / number)


REFUSED = {
    "of outputs": (
        lambda outputs, targets: functional.cross_entropy(outputs, targets),
        r"fails on the model and a batch of the data: .* \(losses of outputs and targets are torch.nn.Cross",
    ),
    "of three": (of_three, "fails on the model and a batch of the data: .*'targets'"),
    "a mean": (
        lambda model, batch: (model(**batch)["loss"], (batch["labels"] != -100).sum()),
        "must return the sum over terms, not their mean",
    ),
    "one batch": (lambda model, batch: (inside(model, batch)[0], 1), "6 examples have 1 terms, but their halves 2"),
    "a loss alone": (
        lambda model, batch: model(**batch)["loss"],
        r"must return \(sum over terms, number of terms\), got a tensor of shape \[\]",
    ),
    "a dict": (lambda model, batch: model(**batch), "number of terms.*got a dict"),
    "losses": (
        lambda model, batch: (model(**batch)["logits"], 1),
        r"one real number, got a tensor of shape \[4, 4,",
    ),
    "no number": (lambda model, batch: (inside(model, batch)[0], None), "the number must be a number, got a NoneType"),
    "no terms": (lambda model, batch: (inside(model, batch)[0], 0), "finds no terms"),
}


@pytest.mark.parametrize(("loss", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_sum_and_number_is_refused_in_a_sentence(model, whole, loss, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence) as refusal:
        HessianOperator(model, whole, loss=loss)
    assert "\n" not in str(refusal.value)


def test_a_loss_that_uses_another_model_is_refused(model, whole):
    with pytest.raises(ValueError, match=r"uses the model's own parameters, such as table.weight"):
        HessianOperator(model, whole, loss=lambda _, batch: inside(model, batch))


def test_a_loss_of_ones_own_has_no_gauss_newton_matrix(model, whole):
    with pytest.raises(ValueError, match=r"no outputs of which a Gauss-Newton matrix.*or curvature='hessian'"):
        HessianOperator(model, whole, loss=inside, curvature="ggn")


def test_examples_that_cannot_be_told_apart_have_no_covariance(model, whole):
    batch = {**whole, "mask": torch.ones(4)}
    with pytest.raises(ValueError, match="cannot be told apart"):
        HessianOperator(model, [batch], loss=inside, curvature="gradient_covariance")


class Words(nn.Module):
    """Logits of the next word for each word, [n, words, length]."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 9)

    def forward(self, words):
        return self.head(self.table(words).tanh()).transpose(1, 2)


def words_of(generator, *shapes):
    return [torch.randint(9, shape, generator=generator) for shape in shapes]


def mean(model, words):
    return functional.cross_entropy(model(words), words), words.numel()


def of_all_words(model, words):
    """Counts words that the mean leaves out."""
    return functional.cross_entropy(model(words.clamp(min=0)), words) * words.numel(), words.numel()


@pytest.mark.parametrize(
    "shapes",
    [[(1, 5), (3, 5), (3, 8)], [(1, 5)] * 4, [(1, 5), (1, 8), (1, 8)]],
    ids=["the first alone", "all alone", "of some lengths twice"],
)
def test_a_mean_in_place_of_a_sum_is_refused_wherever_it_shows(generator, shapes):
    batches = words_of(generator, *shapes)
    with pytest.raises(ValueError, match="is not that of their halves added up"):
        HessianOperator(Words(), batches, loss=mean)
    right = HessianOperator(Words(), batches, loss=lambda m, w: (mean(m, w)[0] * w.numel(), w.numel()))
    assert right.provenance["num_examples"] == sum(shape[0] for shape in shapes)


def test_words_that_are_left_out_of_the_second_batch_only_are_counted_right_or_refused(generator):
    first, second = words_of(generator, (3, 5), (3, 8))
    second[0, :3] = -100
    with pytest.raises(ValueError, match="is not that of their halves added up"):
        HessianOperator(Words(), [first, second], loss=of_all_words)


@pytest.mark.parametrize("other", [False, True], ids=["without a graph", "of another model"])
def test_a_loss_that_does_not_depend_on_the_given_weights_is_refused(generator, other):
    model, copied, (words,) = Words(), copy.deepcopy(Words()), words_of(generator, (3, 5))

    def loss(given, batch):
        value, number = mean(copied if other else given, batch)
        return (value if other else value.detach()) * number, number

    with pytest.raises(ValueError, match=r"what loss\(model, batch\) returns does not depend on the weights"):
        HessianOperator(model, [words], loss=loss)
