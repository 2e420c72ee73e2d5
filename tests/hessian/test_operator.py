"""Hessian-vector products equal the dense Hessian of a loss written independently, however the examples are cut."""

import copy
import fnmatch
import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh
from torch import nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import sharpness
from sharpness.hessian.loss import Loss, flatten
from sharpness.hessian.operator import HessianOperator, HessianProduct
from sharpness.hessian.r_operator.product import ROperator
from sharpness.runtime.device import tensor_float_32
from sharpness.runtime.float32 import CONVOLUTIONS, MATRIX_PRODUCTS
from sharpness.training import models

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")

NETWORKS = ["conv", "residual", "batch_norm"]
NUM_EXAMPLES = 7


def operator_of(plain, **settings):
    product = HessianProduct(Loss(plain.model, l2=plain.l2))
    return HessianOperator.at(product, *flatten(plain.model), plain.inputs, plain.targets, **settings)


def columns(operator):
    return torch.stack([operator @ unit for unit in torch.eye(*operator.shape, dtype=operator.dtype)])


def draw(generator, size, dtype=torch.float64):
    return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)


@pytest.fixture(scope="module")
def cut_anyhow(problem):
    """The operator of one residual network for any chunk size; all share one product."""
    plain = problem("residual", l2=0.01, num_examples=NUM_EXAMPLES)
    product = HessianProduct(Loss(plain.model, l2=0.01))
    state = flatten(plain.model)
    return lambda **settings: HessianOperator.at(product, *state, plain.inputs, plain.targets, **settings)


@pytest.mark.parametrize(("name", "l2"), [("conv", 0.0), ("conv", 0.05), ("residual", 0.05), ("batch_norm", 0.05)])
def test_equals_the_dense_hessian_when_the_last_chunk_is_short(problem, name, l2):
    plain = problem(name, l2=l2)
    dense = plain.hessian(flatten(plain.model)[0])
    ours = columns(operator_of(plain, chunk_size=3))  # 3, 3, 1
    assert (ours - dense).norm() < 1e-12 * dense.norm()
    assert torch.linalg.eigvalsh(dense)[0] < -1e-3 * dense.norm()  # not a convex case


POINTS_THAT_SKIP_PIXELS = """
import torch
from torch import nn
from sharpness.hessian.operator import HessianOperator
from sharpness.hessian.loss import Loss, flatten

torch.set_num_threads(1)
generator = torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(4, 8, 1, 2), nn.ReLU(), nn.Conv2d(8, 3, 14), nn.Flatten())
inputs, targets = torch.randn(3, 4, 28, 28, generator=generator), torch.tensor([0, 2, 1])
loss = Loss(model, l2=0.0)
state, operator = flatten(model), HessianOperator(model, inputs, targets)
vector = torch.randn(len(state[0]), generator=generator)
exact = HessianOperator(model, inputs.double(), targets, precision="float64")
for ours, expected in (
    (loss.gradient(*state, inputs, targets), loss.gradient(*map(torch.Tensor.double, state), inputs.double(), targets)),
    (operator @ vector, exact @ vector.double()),
):
    assert (ours - expected).norm() < 1e-5 * expected.norm()
assert torch.backends.mkldnn.enabled
"""


@pytest.mark.slow
def test_a_kernel_of_one_point_that_skips_pixels_without_avx512():
    """In a process of its own, whose oneDNN knows no more than AVX2: what it writes past its memory ends a process."""
    source = str(Path(sharpness.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": source, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", POINTS_THAT_SKIP_PIXELS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_dense_hessian_in_single_precision(problem, name, generator):
    single, double = problem(name, l2=0.05, dtype=torch.float32), problem(name, l2=0.05)
    dense = double.hessian(flatten(double.model)[0])
    operator = operator_of(single, chunk_size=3)
    for _ in range(5):
        vector = draw(generator, len(dense), torch.float32)
        product = operator @ vector
        assert product.dtype == torch.float32
        assert (product.double() - dense @ vector.double()).norm() < 1e-5 * (dense @ vector.double()).norm()


def test_equals_the_closed_form_of_softmax_regression(problem):
    plain, l2 = problem("linear", num_examples=9), 0.07
    operator = operator_of(problem("linear", num_examples=9, l2=l2), chunk_size=4)
    rows = torch.cat([plain.inputs.flatten(1), torch.ones(9, 1, dtype=torch.float64)], dim=1)  # [N, 73], 1 for the bias
    expected = torch.zeros(3, 73, 3, 73, dtype=torch.float64)
    for row, outputs in zip(rows, plain.model(plain.inputs).detach(), strict=True):
        p = outputs.exp() / outputs.exp().sum()
        expected += torch.einsum("ab,i,j->aibj", torch.diag(p) - torch.outer(p, p), row, row) / 9
    # Flat order: the kernel [classes, 72], then the biases.
    order = torch.cat([torch.arange(219).view(3, 73)[:, :72].flatten(), torch.arange(219).view(3, 73)[:, 72]])
    expected = expected.reshape(219, 219)[order][:, order]
    expected[range(216), range(216)] += 2 * l2

    torch.testing.assert_close(columns(operator), expected, rtol=1e-10, atol=1e-13)


@settings(max_examples=25)
@given(chunk_size=st.integers(1, NUM_EXAMPLES + 2), seed=st.integers(0, 2**32))
def test_the_product_does_not_depend_on_how_examples_are_cut(cut_anyhow, chunk_size, seed):
    whole, cut = cut_anyhow(chunk_size=NUM_EXAMPLES), cut_anyhow(chunk_size=chunk_size)
    vector = draw(torch.Generator().manual_seed(seed), whole.shape[0])
    torch.testing.assert_close(cut @ vector, whole @ vector, rtol=1e-11, atol=1e-12)


def bytes_needed(plain, product, **settings):
    """What a chunk takes, as the refusal of too small a budget says."""
    with pytest.raises(ValueError, match="memory_budget") as refusal:
        HessianOperator.at(
            product, *flatten(plain.model), plain.inputs, plain.targets, **{**settings, "memory_budget": 0}
        )
    return int(re.search(r"takes ([\d,]+)", str(refusal.value))[1].replace(",", ""))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_recomputed_has_the_bits_of_what_is_kept(problem, name, dtype, generator):
    plain = problem(name, l2=0.05, dtype=dtype)
    product = HessianProduct(Loss(plain.model, l2=plain.l2))
    one = bytes_needed(plain, product, chunk_size=3)
    state = flatten(plain.model)
    operators = [
        HessianOperator.at(product, *state, plain.inputs, plain.targets, chunk_size=3, memory_budget=budget)
        for budget in (2**30, one, 2 * one)
    ]
    for _ in range(3):
        vector = draw(generator, len(state[0]), dtype)
        kept, recomputed, partly = (operator @ vector for operator in operators)
        assert torch.equal(recomputed, kept)
        assert torch.equal(partly, kept)


class Counting(HessianProduct):
    """Counts how often a chunk is worked through without a vector, and remembers what was left."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.left = []

    def linearise(self, *state):
        self.left.append(super().linearise(*state))
        return self.left[-1]


@pytest.mark.parametrize(("chunks_fitting", "per_product"), [(1, 3), (1.9, 3), (2, 2), (3, 0), (1000, 0)])
def test_only_what_the_memory_holds_is_spared_in_every_product(problem, chunks_fitting, per_product, generator):
    plain = problem("conv")
    product = Counting(Loss(plain.model, l2=0.0))
    budget = int(chunks_fitting * bytes_needed(plain, product, chunk_size=3))
    operator = HessianOperator.at(
        product, *flatten(plain.model), plain.inputs, plain.targets, chunk_size=3, memory_budget=budget
    )  # 3, 3, 1
    vector = draw(generator, operator.shape[0])
    for _ in range(2):
        before = len(product.left)
        operator @ vector
        assert len(product.left) - before == per_product


def test_a_budget_is_too_small_up_to_the_last_byte(problem):
    plain = problem("conv")
    product = HessianProduct(Loss(plain.model, l2=0.0))
    arguments = (product, *flatten(plain.model), plain.inputs, plain.targets)
    one = bytes_needed(plain, product, chunk_size=3)
    HessianOperator.at(*arguments, chunk_size=3, memory_budget=one)
    with pytest.raises(ValueError, match=f"memory_budget leaves {one - 1:,} bytes for a chunk of 3 examples"):
        HessianOperator.at(*arguments, chunk_size=3, memory_budget=one - 1)
    assert bytes_needed(plain, product, chunk_size=1) < one


def live_bytes():
    gc.collect()
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in live_tensors()}
    return sum(storages.values())


def live_tensors():
    # By type, since looking at some objects' attributes runs code of theirs.
    return [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor) and thing.device.type == "cpu"]


@pytest.fixture
def few_objects():
    """Leave what earlier tests made out of all counts, which would take a second each to go through it."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("name", ["conv", "residual", "batch_norm", "linear"])
@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_the_bytes_of_what_is_kept_are_those_that_it_takes(few_objects, problem, name, precision):
    plain = problem(name, num_examples=40, dtype=torch.float32)
    product = Counting(Loss(plain.model, l2=0.0), precision=precision)
    weights, buffers = flatten(plain.model)
    HessianOperator.at(product, weights, buffers, plain.inputs, plain.targets, chunk_size=40)  # has been checked
    product.left.clear()
    before = live_bytes()

    operator = HessianOperator.at(product, weights, buffers, plain.inputs, plain.targets, chunk_size=10)

    grown = live_bytes() - before
    rounded = 2 * (len(weights) + len(buffers)) if precision else 0  # once, not for every chunk
    assert operator.shape[0] == len(weights)
    assert sum(kept.num_bytes for kept in product.left) == grown - rounded


def test_examples_are_not_counted_where_nothing_copies_them(problem):
    few, many = (problem("linear", num_examples=number, dtype=torch.float32) for number in (20, 2000))
    needed = [bytes_needed(plain, HessianProduct(Loss(plain.model, l2=0.0)), chunk_size=10) for plain in (few, many)]
    assert needed[0] == needed[1]


@pytest.mark.parametrize("name", NETWORKS)
def test_is_symmetric(problem, name, generator):
    operator = operator_of(problem(name, l2=0.05), chunk_size=3)
    for _ in range(5):
        one, other = draw(generator, operator.shape[0]), draw(generator, operator.shape[0])
        assert torch.dot(one, operator @ other).item() == pytest.approx(torch.dot(operator @ one, other).item())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_product_remembers_nothing_of_earlier_vectors(problem, name, generator):
    operator = operator_of(problem(name), chunk_size=3)
    one, other = draw(generator, operator.shape[0]), draw(generator, operator.shape[0])
    first = operator @ one
    for scale in (1.0, 1e6, 0.0):
        operator @ (scale * other)
    assert torch.equal(operator @ one, first)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_product_serves_all_weights_statistics_and_examples(problem, name, generator):
    places = [problem(name, l2=0.05, seed=seed) for seed in range(3)]
    product = HessianProduct(Loss(places[0].model, l2=0.05))
    one = bytes_needed(places[0], product, chunk_size=3)
    operators = [
        HessianOperator.at(
            product, *flatten(plain.model), plain.inputs, plain.targets, chunk_size=3, memory_budget=budget
        )
        for plain, budget in zip(places, (2**30, one, 2**30), strict=True)
    ]
    vector = draw(generator, operators[0].shape[0])
    # Backwards and twice: an operator must not answer for the weights that came after it.
    for plain, operator in [*zip(places, operators, strict=True)][::-1] * 2:
        expected = plain.product(flatten(plain.model)[0], vector)
        assert (operator @ vector - expected).norm() < 1e-12 * expected.norm()


def test_curvature_of_the_penalty_counts_once_whatever_the_number_of_examples(problem, generator):
    plain = problem("conv")
    vector = draw(generator, len(flatten(plain.model)[0]))
    on_kernels = plain.flat(
        {name: torch.full_like(p, float(name in plain.kernels)) for name, p in plain.model.named_parameters()}
    )
    difference = operator_of(problem("conv", l2=0.4), chunk_size=2) @ vector - operator_of(plain, chunk_size=2) @ vector
    torch.testing.assert_close(difference, 0.8 * on_kernels * vector)


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_nothing_of_the_model_or_the_examples_changes(problem, training, batch_statistics, generator):
    plain = problem("batch_norm", l2=0.05, dtype=torch.float32)
    model = plain.model.train(training)
    model[0].weight.requires_grad_(False)
    model[0].bias.grad = torch.ones(3)
    vector = draw(generator, len(flatten(model)[0]), torch.float32)
    given = [plain.inputs, plain.targets, vector, *model.state_dict().values(), model[0].bias.grad]
    before = [tensor.clone() for tensor in given]

    operator = HessianOperator(model, plain.inputs, plain.targets, l2=0.05, batch_statistics=batch_statistics)
    operator @ vector

    assert all(torch.equal(now, then) for now, then in zip(given, before, strict=True))
    assert all(layer.training is training for layer in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert [p.grad is None for p in model.parameters()] == [True, False] + [True] * 4


def test_the_operator_stays_where_it_was_made_when_the_model_moves_on(problem, generator):
    plain = problem("batch_norm", dtype=torch.float32)
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, chunk_size=3)
    vector = draw(generator, operator.shape[0], torch.float32)
    first = operator @ vector
    with torch.no_grad():
        for tensor in plain.model.state_dict().values():
            tensor += 1
    assert torch.equal(operator @ vector, first)


class HalfProduct(torch.autograd.Function):
    """a * b, but the derivative of b's gradient by a is lost."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx, gradient):
        a, b = ctx.saved_tensors
        return gradient * b, gradient * a.detach()


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.values, self.gates = nn.Linear(72, 3), nn.Linear(72, 3)

    def forward(self, inputs):
        flat = inputs.flatten(1)
        assert flat.sum() < 1e9  # which operations run depends on the data
        return HalfProduct.apply(self.values(flat), self.gates(flat))


def test_double_backward_that_is_wrong_by_itself_is_refused_for_its_asymmetry(problem):
    plain = problem(Gated)
    with pytest.raises(RuntimeError, match="not symmetric"):
        HessianOperator(plain.model, plain.inputs, plain.targets, precision="float64")


@pytest.mark.parametrize("scale", [1.0, 4.0, 5.0, 6.0, 12.0])
def test_a_network_that_fits_its_examples_is_no_contradiction(generator, scale):
    model = models.build("simple_cnn", (3, 12, 12), 10, generator=generator)
    weights, buffers = flatten(model)
    inputs = torch.randn(64, 3, 12, 12, generator=generator)
    loss = Loss(model, l2=0.0)
    # As at the end of training: every example is classified as it should be, the more surely the larger the weights.
    targets = loss.logits(scale * weights, buffers, inputs).argmax(dim=1)
    operator = HessianOperator.at(HessianProduct(loss), scale * weights, buffers, inputs, targets)
    assert torch.isfinite(operator @ weights).all()


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("form", [nn.Identity, lambda: Watched()])
@pytest.mark.parametrize("margin", [1.0, 10.0, 25.0, 60.0])
def test_a_network_that_is_sure_has_the_curvature_that_is_left(problem, generator, form, margin, precision):
    plain = problem(lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 3), form()), num_examples=9)
    with torch.no_grad():
        plain.model[1].bias.zero_()
        plain.model[1].weight *= margin / plain.model(plain.inputs).topk(2).values.diff().abs().min()
    outputs = plain.model(plain.inputs).detach()
    p = outputs.softmax(1)
    others = torch.stack([p[:, [1, 2]].sum(1), p[:, [0, 2]].sum(1), p[:, [0, 1]].sum(1)], 1)  # 1 - p
    curvatures = torch.diag_embed(p * others + p * p) - p[:, :, None] * p[:, None, :]
    curvatures[:, range(3), range(3)] = p * others
    vector = draw(generator, 219)
    tangents = plain.inputs.flatten(1) @ vector[:216].view(3, 72).T + vector[216:]
    moved = torch.einsum("nab,nb->na", curvatures, tangents - tangents.gather(1, p.argmax(1, True))) / 9
    expected = torch.cat([(moved.T @ plain.inputs.flatten(1)).flatten(), moved.sum(0)])

    operator = HessianOperator(plain.model, plain.inputs, outputs.argmax(1), chunk_size=4, precision=precision)

    product = (operator @ vector.to(operator.dtype)).double()
    # The relative error of a probability is the absolute one of its logit.
    tolerance = 20 * torch.finfo(operator.dtype).eps * (1 + outputs.abs().max())
    assert (product - expected).norm() < tolerance * expected.norm()
    assert float(functional.cross_entropy(outputs, outputs.argmax(1))) <= np.exp(-margin)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["1.weight", "4.bias", "1.running_var"])
def test_weights_and_statistics_that_are_not_finite_are_named(problem, name, value):
    plain = problem("batch_norm")
    with torch.no_grad():
        plain.model.state_dict()[name][-1] = value
        if name == "1.weight":
            plain.model.state_dict()["4.bias"][0] = value  # only the first is named
    with pytest.raises(FloatingPointError, match=f"^{re.escape(name)} is not finite"):
        HessianOperator(plain.model, plain.inputs, plain.targets)


def test_weights_so_large_that_the_curvature_overflows_are_told(problem):
    plain = problem("conv", dtype=torch.float32)
    with torch.no_grad():
        for parameter in plain.model.parameters():
            parameter *= 1e20
    with pytest.raises(FloatingPointError, match="overflows"):
        HessianOperator(plain.model, plain.inputs, plain.targets)


def test_what_does_not_fit_is_told_by_its_value(problem):
    plain = problem("conv")
    with pytest.raises(ValueError, match="got 6 and 7"):
        HessianOperator(plain.model, plain.inputs, plain.targets[:6])
    with pytest.raises(ValueError, match="at least one, got 0 and 0"):
        HessianOperator(plain.model, plain.inputs[:0], plain.targets[:0])
    with pytest.raises(ValueError, match=r"chunk_size .*got 0"):
        HessianOperator(plain.model, plain.inputs, plain.targets, chunk_size=0)
    with pytest.raises(ValueError, match=r"no parameter matches 'layer3\.\*', there are 0\.weight, 0\.bias, 4\.weight"):
        HessianOperator(plain.model, plain.inputs, plain.targets, parameters="layer3.*")
    operator = HessianOperator(plain.model, plain.inputs, plain.targets)
    for length in (0, 1, operator.shape[0] - 1, operator.shape[0] + 1):
        with pytest.raises(ValueError, match=f"the vector has {length} entries"):
            operator @ torch.zeros(length)


@pytest.mark.parametrize(("name", "chunk_size"), [("batch_norm", 3), ("conv", 3), ("batch_norm", 7)])
def test_batch_statistics_are_differentiated_through(problem, name, chunk_size, generator):
    plain = problem(name, l2=0.05).in_torchs_order
    training = copy.deepcopy(plain)
    training.model.train()
    dense = training.hessian(plain.weights)
    operator = HessianOperator(
        plain.model,
        plain.inputs,
        plain.targets,
        l2=0.05,
        chunk_size=chunk_size,  # of one chunk all the same
        precision="float64",
        batch_statistics=True,
    )
    vectors = torch.randn(len(dense), 3, generator=generator, dtype=torch.float64)
    assert (operator @ vectors - dense @ vectors).norm() < 1e-12 * (dense @ vectors).norm()
    if name == "batch_norm":
        assert (dense - plain.hessian(plain.weights)).norm() > 0.01 * dense.norm()


def test_tf32_is_asked_for_within_the_passes_only_and_its_reference_never_is(problem, generator, monkeypatch):
    places = MATRIX_PRODUCTS, CONVOLUTIONS

    def seen():
        return [place.fp32_precision for place in places]

    before, within = seen(), []
    for name in ("linearise", "add_product"):
        plainly = getattr(ROperator, name)

        def noting(self, *arguments, plainly=plainly):
            within.append(seen())
            return plainly(self, *arguments)

        monkeypatch.setattr(ROperator, name, noting)
    plain = problem("conv", dtype=torch.float32)
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, precision="tf32")
    vector = torch.randn(operator.shape[0], generator=generator)
    checking = len(within) - 1  # the last is the operator's own
    product = operator @ vector
    assert within[:checking] == [before] * checking
    assert within[checking:] == [["tf32", "tf32"]] * 2
    assert seen() == before

    within.clear()
    exact = operator.reference @ vector
    assert within == [before] * len(within)
    if not torch.cuda.is_available():
        torch.testing.assert_close(product, exact, rtol=0, atol=0)


def test_tf32_is_given_back_when_a_pass_fails():
    before = CONVOLUTIONS.fp32_precision
    with pytest.raises(ZeroDivisionError), tensor_float_32():
        raise ZeroDivisionError
    assert CONVOLUTIONS.fp32_precision == before


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_is_a_few_percent_off_and_its_reference_is_not(problem, name, generator):
    plain = problem(name, l2=0.05, dtype=torch.float32, num_examples=30)
    double = problem(name, l2=0.05, num_examples=30).in_torchs_order
    dense = double.hessian(double.weights)
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, l2=0.05, chunk_size=8, precision="bfloat16")
    reference = operator.reference
    assert reference.shape == operator.shape
    assert operator.dtype == reference.dtype == torch.float32
    assert reference.reference is None
    assert operator.reference is reference
    for _ in range(3):
        vector = draw(generator, len(dense), torch.float32)
        expected = dense @ vector.double()
        rough, fine = operator @ vector, reference @ vector
        assert rough.dtype == fine.dtype == torch.float32
        assert 1e-4 * expected.norm() < (rough.double() - expected).norm() < 0.05 * expected.norm()
        assert (fine.double() - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("chunks_fitting", [1, 1.3, 2, 3, 1000])
def test_an_operator_and_its_reference_share_the_budget(problem, chunks_fitting, generator):
    plain = problem("conv", dtype=torch.float32, num_examples=23)
    product = Counting(Loss(plain.model, l2=0.0), precision="bfloat16")
    budget = int(chunks_fitting * bytes_needed(plain, product, chunk_size=4))
    operator = HessianOperator.at(
        product, *flatten(plain.model), plain.inputs, plain.targets, chunk_size=4, memory_budget=budget
    )
    reference = operator.reference
    kept = [*operator._linearised, *reference._linearised]
    assert sum(one.num_bytes for one in kept) <= budget
    vector = draw(generator, operator.shape[0], torch.float32)
    assert (operator @ vector - reference @ vector).norm() < 0.05 * (reference @ vector).norm()


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("float64", torch.float64)])
@pytest.mark.parametrize("of_model", [torch.float32, torch.float64])
def test_the_precision_is_that_of_everything_whatever_the_models(problem, of_model, precision, dtype, generator):
    plain = problem("batch_norm", dtype=of_model).in_torchs_order
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, precision=precision)
    assert operator.reference is None
    assert operator.dtype == dtype
    double = copy.deepcopy(plain)
    double = double.part(inputs=plain.inputs.double(), targets=plain.targets)
    double.model.double()
    vector = draw(generator, operator.shape[0], dtype)
    expected = double.product(double.weights, vector.double())
    assert (operator @ vector).dtype == dtype
    assert ((operator @ vector).double() - expected).norm() < (
        1e-5 if precision == "float32" else 1e-12
    ) * expected.norm()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("conv", "0.*"),
        ("conv", "4.*"),
        ("conv", "0.bias"),
        ("residual", "1.*"),
        ("batch_norm", "1.*"),
        ("batch_norm", "*.weight"),
    ],
)
@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_some_parameters_have_their_block_of_the_dense_hessian(problem, name, parameters, precision, generator):
    plain = problem(name, l2=0.05).in_torchs_order
    operator = HessianOperator(
        plain.model, plain.inputs, plain.targets, l2=0.05, chunk_size=3, parameters=parameters, precision=precision
    )
    state = {key: torch.full_like(p, float(key in operator.layout.names)) for key, p in plain.model.named_parameters()}
    chosen = plain.flat(state).bool()
    block = plain.hessian(plain.weights)[chosen][:, chosen]
    assert operator.shape == block.shape
    tolerance = 1e-12 if precision == "float64" else 0.05
    vectors = torch.randn(len(block), 3, generator=generator, dtype=torch.float64)
    product = (operator @ vectors.to(operator.dtype)).double()
    assert (product - block @ vectors).norm() < tolerance * (block @ vectors).norm()


def test_less_is_kept_where_only_the_last_layer_has_rows(problem):
    plain = problem("conv")
    loss = Loss(plain.model, l2=0.0)
    everything, last = (bytes_needed(plain, HessianProduct(loss, parameters=pattern)) for pattern in ("*", "4.*"))
    assert last < 0.5 * everything


def test_parameters_without_influence_have_no_curvature():
    class Idle(nn.Module):
        """A weight that nothing reads."""

        def __init__(self):
            super().__init__()
            self.idle, self.head = nn.Parameter(torch.ones(2)), nn.Linear(3, 2, device="meta").to_empty(device="cpu")
            nn.init.ones_(self.head.weight)
            nn.init.zeros_(self.head.bias)

        def forward(self, inputs):
            return self.head(inputs)

    operator = HessianOperator(Idle(), torch.ones(4, 3), torch.tensor([0, 1, 0, 1]), parameters="idle")
    assert torch.equal(operator @ torch.ones(2), torch.zeros(2))


def test_a_block_of_vectors_is_multiplied_column_by_column(problem, generator):
    operator = operator_of(problem("residual", l2=0.05), chunk_size=3)
    block = torch.randn(operator.shape[0], 3, generator=generator, dtype=torch.float64)
    expected = torch.stack([operator @ column.contiguous() for column in block.T], dim=1)
    assert torch.equal(operator @ block, expected)
    assert torch.equal(operator @ block.T.contiguous().T, expected)
    torch.testing.assert_close(operator @ block[:, 1], expected[:, 1])  # with gaps in memory


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_scipy_finds_the_eigenvalues_of_the_dense_hessian(problem, precision, tolerance):
    plain = problem("batch_norm", l2=0.05)
    expected = torch.linalg.eigvalsh(plain.hessian(plain.weights)).numpy()
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, l2=0.05, precision=precision)
    linear = operator.aslinearoperator()
    assert linear.dtype == np.dtype(precision)
    found = eigsh(linear, k=3, which="LA", v0=np.ones(len(expected), linear.dtype), return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(found), expected[-3:], rtol=tolerance)
    block = np.random.default_rng(0).normal(size=(len(expected), 2))
    np.testing.assert_allclose(linear @ block, linear.rmatmat(block), rtol=1e-4, atol=1e-4)


class Scaled(nn.Module):
    """Parameters of four axes that are no kernels of convolutions, and one with two names."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.empty(1, 2, 3, 1))
        self.mixing = nn.Parameter(torch.empty(2, 3, 2, 2))
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, inputs):
        mixed = torch.einsum("ncdx,cdij->ndij", inputs[:, :, :3, :1] * self.scale, self.mixing).tanh().sum((2, 3))
        return self.second(self.first(mixed).tanh())


WITH_KERNELS = {
    "1d": lambda: nn.Sequential(
        nn.Flatten(2), nn.Conv1d(2, 4, 3), nn.Tanh(), nn.ConvTranspose1d(4, 2, 5), nn.Flatten(), nn.Linear(76, 3)
    ),
    "2d": lambda: nn.Sequential(
        nn.Conv2d(2, 4, (2, 3), groups=2), nn.Tanh(), nn.ConvTranspose2d(4, 3, (3, 2)), nn.Flatten(), nn.Linear(105, 3)
    ),
    "3d": lambda: nn.Sequential(
        *(nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 3, 2), nn.Tanh(), nn.ConvTranspose3d(3, 2, 2)),
        *(nn.Flatten(), nn.Linear(144, 3)),
    ),
    "four axes": Scaled,
}


@pytest.mark.parametrize("parameters", ["*", "[0-3s]*"])
@pytest.mark.parametrize("network", WITH_KERNELS.values(), ids=WITH_KERNELS)
def test_vectors_go_in_and_out_through_torchs_own_functions(problem, network, parameters, generator):
    """Gradients and what an optimiser remembers line up with eigenvectors by themselves."""
    plain = problem(network)
    named = plain.model.named_parameters(remove_duplicate=False)  # a tied weight is meant by each of its names
    matching = {id(p) for name, p in named if fnmatch.fnmatchcase(name, parameters)}
    chosen = [p for p in plain.model.parameters() if id(p) in matching]
    loss = functional.cross_entropy(plain.model(plain.inputs), plain.targets)
    gradient = parameters_to_vector(g.contiguous() for g in torch.autograd.grad(loss, chosen, create_graph=True))
    vector = draw(generator, len(gradient))
    expected = [part.contiguous() for part in torch.autograd.grad(gradient @ vector, chosen)]
    for precision, tolerance in (("float64", 1e-12), ("float32", 1e-5), ("bfloat16", 0.1)):
        operator = HessianOperator(
            plain.model, plain.inputs, plain.targets, chunk_size=3, precision=precision, parameters=parameters
        )
        parts = [torch.empty_like(parameter) for parameter in chosen]
        vector_to_parameters((operator @ vector.to(operator.dtype)).double(), parts)
        for part, right in zip(parts, expected, strict=True):
            assert (part - right).norm() <= tolerance * parameters_to_vector(expected).norm()
        if operator.reference is not None:
            product = operator.reference @ vector.float()
            assert (product - parameters_to_vector(expected)).norm() < 1e-5 * product.norm()


def test_named_takes_a_vector_apart_into_the_parameters(problem):
    plain = problem("residual")
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, precision="float64")
    named = operator.named(parameters_to_vector(plain.model.parameters()))
    parameters = dict(plain.model.named_parameters())
    assert list(named) == list(parameters)
    assert all(torch.equal(named[name], parameter) for name, parameter in parameters.items())
    some = HessianOperator(plain.model, plain.inputs, plain.targets, parameters="*.bias")
    assert list(some.named(torch.zeros(some.shape[0]))) == [name for name in parameters if name.endswith("bias")]


class Watched(nn.Module):
    """Which operations run depends on the data."""

    def forward(self, inputs):
        assert inputs.sum() < 1e9
        return inputs


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"),  # in forward mode
        lambda: nn.GroupNorm(1, 2),  # in reverse mode alone
        Watched,  # the whole network by double backward
    ],
)
def test_the_mode_of_the_caller_makes_no_difference(problem, mode, layer, generator):
    plain = problem(
        lambda: nn.Sequential(nn.Conv2d(2, 2, 3), layer(), nn.AvgPool2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    )
    vector = draw(generator, len(flatten(plain.model)[0]))
    outside = HessianOperator(plain.model, plain.inputs, plain.targets, l2=0.1, precision="float64")
    expected = outside @ vector
    with mode():
        inside = HessianOperator(plain.model, plain.inputs.clone(), plain.targets.clone(), l2=0.1, precision="float64")
        products = [outside @ vector.clone(), inside @ vector.clone(), inside @ vector]
    products += [inside @ vector, inside @ vector.clone().requires_grad_()]
    for product in products:
        torch.testing.assert_close(product, expected, rtol=1e-12, atol=1e-14)
        assert not product.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "budget_in_chunks"), [("conv", 1), ("conv", 1000), (nn.GELU, 1000), (nn.SiLU, 1000)]
)
def test_products_leave_nothing_behind(few_objects, problem, network, budget_in_chunks, generator):
    def with_activation():
        return nn.Sequential(nn.Conv2d(2, 3, 3), network(), nn.Flatten(), nn.Linear(48, 3))

    plain = problem(network if isinstance(network, str) else with_activation, dtype=torch.float32)
    product = HessianProduct(Loss(plain.model, l2=0.1))
    operator = HessianOperator.at(
        product,
        *flatten(plain.model),
        plain.inputs,
        plain.targets,
        chunk_size=3,
        memory_budget=budget_in_chunks * bytes_needed(plain, product, chunk_size=3),
    )
    vector = draw(generator, operator.shape[0], torch.float32)
    for _ in range(20):
        operator @ vector
    gc.collect()
    tensors, resident = len(live_tensors()), resident_bytes()
    for _ in range(200):
        operator @ vector
    grown = resident_bytes() - resident  # before the collector can tidy up
    gc.collect()
    assert len(live_tensors()) == tensors
    assert grown < 4 * 2**20


def resident_bytes():
    with open("/proc/self/statm", encoding="utf-8") as numbers:  # noqa: PTH123
        return int(numbers.read().split()[1]) * 4096


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # by what curvlinops imports
def test_equals_the_operator_of_curvlinops(problem, generator):
    if os.environ.get("CI") != "true":
        pytest.importorskip("curvlinops", reason="needs what `make .venv/bench` installs")
    import curvlinops

    plain = problem("conv")
    theirs = curvlinops.HessianLinearOperator(
        plain.model,
        nn.CrossEntropyLoss(),
        list(plain.model.parameters()),
        [(plain.inputs, plain.targets)],
        check_deterministic=False,
    )
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, precision="float64")
    vector = draw(generator, operator.shape[0])
    torch.testing.assert_close(operator @ vector, torch.as_tensor(theirs @ vector), rtol=1e-10, atol=1e-12)
