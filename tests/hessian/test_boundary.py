"""Whatever a user gives to an operator, and wherever he calls it, the answer is the one asked for, or one sentence."""

import copy
import re
import threading
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from sharpness.eigen.estimators import frobenius_norm, spectral_density, trace
from sharpness.eigen.lanczos import follow_eigenpairs, top_eigenpairs
from sharpness.hessian.loss import Loss, flatten
from sharpness.hessian.operator import HessianOperator, HessianProduct
from sharpness.runtime.device import undisturbed
from sharpness.runtime.float32 import CONVOLUTIONS, ON_CPU

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


class Watched(nn.Module):
    """Which operations run depends on the data, so that products are by double backward."""

    def forward(self, inputs):
        assert inputs.abs().sum() < 1e9
        return inputs


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


def classified(*layers):
    return lambda: nn.Sequential(nn.Conv2d(2, 2, 3), *(layer() for layer in layers), nn.Flatten(), nn.Linear(32, 3))


FORMS = {
    "rules": classified(nn.ReLU),
    "other layers": classified(nn.GELU, lambda: nn.GroupNorm(1, 2)),
    "double backward": classified(Watched, nn.Tanh),
}
PLACES = {
    "sequences": lambda last: nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 4, 3), nn.Tanh(), nn.Conv1d(4, 3, 5), last),
    "images": lambda last: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GELU(), nn.Conv2d(4, 3, 1), last),
    "one a piece": lambda last: nn.Sequential(nn.Flatten(), nn.Linear(72, 3), last),
}


def operator_of(plain, **settings):
    settings = {"precision": "float64", "chunk_size": 3, **settings}
    return HessianOperator(plain.model, plain.inputs, plain.targets, **settings)


def least_budget(plain, **settings):
    """Bytes for one chunk, of several, which is then computed anew at every product."""
    try:
        operator_of(plain, memory_budget=0, **settings)
    except ValueError as refusal:
        return int(re.search(r"takes ([\d,]+)", str(refusal))[1].replace(",", ""))
    return 0  # double backward keeps nothing


def vector_for(operator, seed=1):
    drawn = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.to(operator.dtype)


# Labels


@settings(max_examples=30)
@given(
    network=st.sampled_from(sorted(PLACES)),
    last=st.sampled_from([nn.Identity, Watched]),
    ignored=st.floats(0, 0.95),
    chunk_size=st.integers(1, 8),
    seed=st.integers(0, 2**32),
)
def test_the_loss_is_torchs_mean_over_all_labels_however_they_are_cut(
    problem, network, last, ignored, chunk_size, seed
):
    plain = problem(lambda: PLACES[network](last())).in_torchs_order
    generator = torch.Generator().manual_seed(seed)
    places = plain.model(plain.inputs).shape[2:]
    targets = torch.randint(3, (7, *places), generator=generator)
    targets[torch.rand(targets.shape, generator=generator) < ignored] = -100
    targets.view(-1)[int(torch.randint(targets.numel(), (), generator=generator))] = 1
    plain = plain.part(inputs=plain.inputs, targets=targets)
    vector = torch.randn(len(plain.weights), generator=generator, dtype=torch.float64)
    expected = plain.product(plain.weights, vector)
    assert (operator_of(plain, chunk_size=chunk_size) @ vector - expected).norm() < 1e-11 * expected.norm()


@pytest.mark.parametrize("network", PLACES.values(), ids=PLACES)
def test_values_and_gradients_are_torchs_own_for_such_labels(problem, network, generator):
    plain = problem(lambda: network(nn.Identity()))
    outputs = plain.model(plain.inputs).detach()
    targets = torch.randint(3, (7, *outputs.shape[2:]), generator=generator)
    targets[targets == 2] = -100
    plain = plain.part(inputs=plain.inputs, targets=targets)
    loss, state = Loss(plain.model, l2=0.0), flatten(plain.model)
    found = loss.evaluate(*state, plain.inputs, targets, chunk_size=2)
    torch.testing.assert_close(found.cross_entropy, functional.cross_entropy(outputs, targets))
    labelled = targets != -100
    torch.testing.assert_close(found.accuracy, (outputs.argmax(1) == targets)[labelled].double().mean())
    torch.testing.assert_close(loss.gradient(*state, plain.inputs, targets), plain.gradient(plain.weights))


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.bool, "numpy"])
def test_labels_may_be_of_any_type_of_whole_numbers(problem, kind):
    plain = problem("conv")
    plain = plain.part(inputs=plain.inputs, targets=plain.targets.clamp(max=1))
    operator = operator_of(plain)
    others = plain.targets.numpy().astype(">i4") if kind == "numpy" else plain.targets.to(kind)
    vector = vector_for(operator)
    assert torch.equal(operator_of(plain.part(inputs=plain.inputs, targets=others)) @ vector, operator @ vector)


def test_logits_with_their_classes_last_are_told(problem):
    plain = problem(lambda: nn.Sequential(nn.Flatten(2), nn.Linear(36, 3)))
    with pytest.raises(ValueError, match=r"logits\.movedim\(-1, 1\)"):
        operator_of(plain.part(inputs=plain.inputs, targets=torch.zeros(7, 2).long()))


LABELS = {
    "too large": (lambda y: y.index_fill(0, torch.tensor([4]), 3), r"targets\[4\] is 3, but the network has 3 classes"),
    "negative": (lambda y: y.index_fill(0, torch.tensor([2, 5]), -1), r"targets\[2\] is -1, .* 0 to 2, or -100"),
    "nearly ignored": (lambda y: y.index_fill(0, torch.tensor([0]), -99), r"targets\[0\] is -99"),
    "a column": (lambda y: y[:, None], r"\[7, 1\], .* \[7\].*squeeze\(1\)"),
    "one-hot": (lambda y: functional.one_hot(y, 3), r"shape \[7, 3\].*argmax\(1\)"),
    "of places": (lambda y: y[:, None].expand(7, 4), r"shape \[7, 4\]"),
    "floating point": (lambda y: y.float(), r"whole numbers, got torch.float32.*targets\.long\(\)"),
    "probabilities": (lambda y: functional.one_hot(y, 3).double(), "probabilities"),
    "complex": (lambda y: y.to(torch.complex64), "whole numbers, got torch.complex64"),
    "all ignored": (lambda y: torch.full_like(y, -100), "targets .*-100"),
    "a number": (lambda y: y[0], "got a single number and 7"),
    "too few": (lambda y: y[:6], "got 6 and 7"),
    "none": (lambda y: y[:0], "got 0 and 7"),
    "on another device": (lambda y: y.to("meta"), "targets .*meta.*cpu"),
    "a list": (lambda y: y.tolist(), "targets .*list"),
    "words": (lambda _: np.array(["a"] * 7), "targets .*an array of <U1"),
}


@pytest.mark.parametrize("form", [nn.Identity, Watched])
@pytest.mark.parametrize(("change", "sentence"), LABELS.values(), ids=LABELS)
def test_labels_that_are_no_classes_are_refused_by_name(problem, form, change, sentence):
    plain = problem(lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 3), form()))
    with pytest.raises((ValueError, TypeError), match=sentence):
        HessianOperator(plain.model, plain.inputs, change(plain.targets))


def test_labels_at_a_checkpoint_are_checked_too(problem):
    plain = problem("conv")
    product, state = HessianProduct(Loss(plain.model, l2=0.0)), flatten(plain.model)
    HessianOperator.at(product, *state, plain.inputs, plain.targets)
    for targets, sentence in ((plain.targets + 1, "has 3 classes"), (plain.targets[:, None], "squeeze")):
        with pytest.raises(ValueError, match=sentence):
            HessianOperator.at(product, *state, plain.inputs, targets)


# Examples


@pytest.mark.parametrize("number", [0, 5])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e200])
def test_inputs_that_are_not_finite_are_named(problem, number, value):
    plain = problem("conv")
    plain.inputs[number, 1, 2, 3] = value
    plain.inputs[6, 0, 0, 0] = value
    with pytest.raises(ValueError, match=rf"^the inputs are not finite: inputs\[{number}\] has -?(nan|inf)"):
        operator_of(plain, precision="float32")


def test_inputs_of_another_kind_are_converted_or_refused(problem):
    plain = problem("conv")
    operator = operator_of(plain, precision="float32")
    vector = vector_for(operator)
    expected = operator @ vector
    array = plain.inputs.numpy()
    for inputs in (array, array.astype(">f8"), array.astype(np.float32), plain.inputs.float()):
        other = operator_of(plain.part(inputs=inputs, targets=plain.targets), precision="float32")
        assert torch.equal(other @ vector, expected)
    for inputs, sentence in (
        (plain.inputs.tolist(), "inputs .*list"),
        (plain.inputs.to("meta"), "inputs are on meta, but the network on cpu"),
        (plain.inputs.to_sparse(), "inputs must be dense"),
        (np.ma.masked_array(plain.inputs.numpy()), "inputs must be a plain array, got a masked one"),
        (plain.inputs[0, 0, 0, 0], "got 7 and a single number"),
    ):
        with pytest.raises((ValueError, TypeError), match=sentence):
            operator_of(plain.part(inputs=inputs, targets=plain.targets))


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("of", [torch.float16, torch.bfloat16, torch.float32])
def test_models_and_inputs_of_less_precision_are_computed_with_in_the_one_asked_for(problem, of, precision, tolerance):
    plain = problem("conv", dtype=torch.float32)
    rough = copy.deepcopy(plain.model).to(of)
    operator = HessianOperator(rough, plain.inputs.to(of), plain.targets, precision=precision)
    exact = plain.part(inputs=plain.inputs.to(of).double(), targets=plain.targets).in_torchs_order
    exact.model.load_state_dict(rough.state_dict())
    exact.model.double()
    vector = vector_for(operator)
    expected = exact.product(exact.weights, vector.double())
    assert (operator @ vector - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("of", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("form", [nn.Identity, Watched])
def test_complex_inputs_are_as_precise_as_the_operator(problem, of, form, generator):
    plain = problem(
        lambda: nn.Sequential(
            nn.Flatten(), Function(lambda z: torch.view_as_real(z * z).flatten(1)), form(), nn.Linear(144, 3), nn.Tanh()
        )
    ).in_torchs_order
    plain = plain.part(inputs=torch.complex(plain.inputs, plain.inputs.flip(0)).to(of), targets=plain.targets)
    exact = plain.part(inputs=plain.inputs.to(torch.complex128), targets=plain.targets)
    for precision, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        operator = operator_of(plain, precision=precision)
        vector = vector_for(operator)
        expected = exact.product(exact.weights, vector.double())
        assert (operator @ vector - expected).norm() < tolerance * expected.norm()
    with pytest.raises(ValueError, match="complex inputs"):
        operator_of(plain, precision="bfloat16")


def test_whole_numbers_stay_what_they_are(problem, generator):
    plain = problem(
        lambda: nn.Sequential(nn.Embedding(3000, 2), nn.Flatten(), nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 3))
    ).in_torchs_order
    tokens = torch.randint(2990, 3000, (7, 3), generator=generator)  # of which bfloat16 knows no odd one
    plain = plain.part(inputs=tokens, targets=plain.targets)
    for kind in (torch.int64, torch.int32):
        for precision, tolerance in (("float64", 1e-12), ("bfloat16", 0.05)):
            operator = operator_of(plain.part(inputs=tokens.to(kind), targets=plain.targets), precision=precision)
            vector = vector_for(operator)
            expected = plain.product(plain.weights, vector.double())
            assert (operator @ vector - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.bool, torch.complex128])
@pytest.mark.parametrize("form", [nn.Identity, Watched])
def test_inputs_of_a_type_that_the_network_does_not_take_are_named(problem, form, kind):
    for network in (lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 3), form()), classified(form)):
        plain = problem(network)
        with pytest.raises(TypeError, match=f"does not take inputs of {kind} "):
            operator_of(plain.part(inputs=plain.inputs.to(kind), targets=plain.targets))


@pytest.mark.parametrize("chunks_fitting", [1, 1000])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_examples_that_are_overwritten_change_nothing(problem, form, chunks_fitting):
    plain = problem(form)
    memory = plain.inputs.numpy().copy()
    budget = chunks_fitting * least_budget(plain)
    for inputs in (plain.inputs.clone(), torch.from_numpy(memory), memory):
        given = plain.part(inputs=inputs, targets=plain.targets.clone())
        operator = operator_of(given, memory_budget=budget)
        vector = vector_for(operator)
        before = operator @ vector
        given.targets.fill_(0)
        inputs[:] = 0
        assert torch.equal(operator @ vector, before)


# Networks in which an example's logits depend on the others


MIXING = {
    "batch norm without statistics": lambda: nn.BatchNorm2d(2, track_running_stats=False),
    "the functional one": lambda: Function(lambda x: functional.batch_norm(x, None, None, training=True)),
    "centred": lambda: Function(lambda x: x - x.mean(0)),
    "along the batch": lambda: Function(lambda x: x.cumsum(0).tanh()),
}
SEPARATE = {
    "group norm": lambda: nn.GroupNorm(1, 2),
    "instance norm": lambda: nn.InstanceNorm2d(2),
    "layer norm": lambda: nn.LayerNorm(4),
    "batch norm": lambda: nn.BatchNorm2d(2),
}


@pytest.mark.parametrize("form", [nn.Tanh, Watched])
@pytest.mark.parametrize("layer", MIXING.values(), ids=MIXING)
def test_what_mixes_examples_is_one_chunk_or_refused(problem, layer, form):
    plain = problem(classified(layer, form, nn.Tanh)).in_torchs_order
    for chunk_size in (1, 2, 3, 7, 256):
        operator = operator_of(plain, chunk_size=chunk_size)
        vector = vector_for(operator)
        expected = plain.product(plain.weights, vector)
        assert (operator @ vector - expected).norm() < 1e-11 * expected.norm()
    if form is not Watched:
        with pytest.raises(ValueError, match=r"a chunk of 7 examples.*fewer examples, which are one chunk here"):
            operator_of(plain, chunk_size=1, memory_budget=least_budget(plain, chunk_size=1) - 1)


class Scaled(nn.Module):
    """A residual branch that mixes examples, behind a factor that is zero at the start (ReZero)."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x + self.factor * (x - x.mean(0)).tanh()


HIDDEN = {
    "behind a zero": (Scaled, slice(None)),
    "by the number of examples": (lambda: Function(lambda x: x - x.mean() if len(x) > 4 else x), slice(None)),
    "of examples that are alike": (lambda: Function(lambda x: x - x.mean(0)), [0, 0, 0, 0, 0, 1, 2]),
    "of pairs that are alike": (lambda: Function(lambda x: x - x.mean(0)), [0, 1, 0, 1, 2, 3, 4]),
}


@pytest.mark.parametrize(("layer", "examples"), HIDDEN.values(), ids=HIDDEN)
def test_mixing_that_the_first_examples_do_not_show_is_found(problem, layer, examples):
    plain = problem(classified(layer, nn.Tanh)).in_torchs_order
    plain = plain.part(inputs=plain.inputs[examples], targets=plain.targets)
    vector = vector_for(operator_of(plain))
    expected = plain.product(plain.weights, vector)
    for chunk_size in (2, 4, 256, 2**70):
        product = operator_of(plain, chunk_size=chunk_size) @ vector
        assert (product - expected).norm() < 1e-11 * expected.norm()


@pytest.mark.parametrize("layer", SEPARATE.values(), ids=SEPARATE)
def test_what_does_not_mix_examples_is_cut_as_asked(problem, layer):
    plain = problem(classified(layer, nn.Tanh))
    assert least_budget(plain, chunk_size=1) < 0.5 * least_budget(plain, chunk_size=7)


@pytest.mark.parametrize("num_examples", [1, 2, 3])
def test_norms_over_the_batch_on_few_examples(problem, num_examples):
    plain = problem(classified(MIXING["batch norm without statistics"], nn.Tanh), num_examples=num_examples)
    plain = plain.in_torchs_order
    operator = operator_of(plain, chunk_size=1)
    expected = plain.product(plain.weights, vector_for(operator))
    assert (operator @ vector_for(operator) - expected).norm() < 1e-10 * expected.norm()


# Where the operator is made and used


ROUGH = "bf16" if hasattr(torch.backends.cuda.matmul, "fp32_precision") else "medium"  # as versions of torch name it


@contextmanager
def rough_products():
    before = [place.fp32_precision for place in ON_CPU]
    for place in ON_CPU:
        place.fp32_precision = ROUGH
    try:
        yield
    finally:
        for place, precision in zip(ON_CPU, before, strict=True):
            place.fp32_precision = precision


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def autocast_of_cuda():
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)


def settings_seen():
    precisions = [place.fp32_precision for place in (*ON_CPU, CONVOLUTIONS)]
    autocast = [torch.is_autocast_enabled(device) for device in ("cpu", "cuda")]
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    return precisions, autocast, modes, torch.get_default_dtype(), torch.empty(0).device


SURROUNDINGS = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "autocast of a GPU": autocast_of_cuda,
    "default float64": lambda: default_dtype(torch.float64),
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device": lambda: default_device("meta"),
    "a device's block": lambda: torch.device("meta"),
    "rough products": rough_products,
    "no_grad": torch.no_grad,
    "inference mode": torch.inference_mode,
    "enable_grad": torch.enable_grad,
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_the_callers_settings_change_no_bit(problem, form, precision):
    plain = problem(form, dtype=torch.float32)
    settings = {"precision": precision, "l2": 0.1}
    budget = least_budget(plain, **settings)
    outside = [operator_of(plain, memory_budget=size, **settings) for size in (budget, 2**30)]
    vector = vector_for(outside[0])
    expected = outside[0] @ vector
    block = torch.stack([vector, vector], dim=1)
    for name, surroundings in SURROUNDINGS.items():
        with surroundings():
            before = settings_seen()
            inside = [operator_of(plain, memory_budget=size, **settings) for size in (budget, 2**30)]
            for operator in [*outside, *inside]:
                assert torch.equal(operator @ vector, expected), name
                assert torch.equal((operator @ block)[:, 1], expected), name
                assert operator.aslinearoperator().dtype == np.dtype(str(operator.dtype).removeprefix("torch.")), name
                if operator.reference is not None:
                    assert operator.reference.dtype == torch.float32, name
            assert settings_seen() == before, name
        assert torch.equal(inside[0] @ vector, expected), name


@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_nor_do_they_change_a_bit_of_values_and_gradients(problem, surroundings):
    plain = problem("batch_norm", dtype=torch.float32)
    loss, state = Loss(plain.model, l2=0.1), flatten(plain.model)
    examples = plain.inputs, plain.targets

    def everything(moved):
        values = [*vars(loss.evaluate(*state, *examples)).values(), loss.value(*state, *examples)]
        values += [loss.logits(*state, plain.inputs), loss.summed(*state, *examples)]
        values += loss.value_and_gradient(*moved, *examples, training=True)
        return [*values, *loss.value_and_gradient(*state, *examples, low_precision=True), moved[1]]

    expected = everything([tensor.clone() for tensor in state])
    moved = [tensor.clone() for tensor in state]
    with surroundings():
        found = everything(moved)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_nor_do_they_change_a_bit_of_eigenpairs_and_estimates(problem, surroundings):
    operator = operator_of(problem("conv", dtype=torch.float32), precision="float32")

    def everything():
        random = torch.Generator().manual_seed(0)
        pairs = top_eigenpairs(operator, num_pairs=3, tolerance=1e-4, max_products=60, generator=random)
        followed = follow_eigenpairs(operator, pairs.eigenvectors, tolerance=1e-4, max_products=20)
        found = (
            trace(operator, num_products=9, generator=random),
            frobenius_norm(operator, num_products=9, generator=random),
        )
        density = spectral_density(operator, num_probes=2, num_steps=4, generator=random)
        tensors = [pairs.eigenvalues, pairs.eigenvectors, pairs.residuals, followed.eigenvectors, density.nodes]
        return tensors, [estimate.value for estimate in found]

    tensors, numbers = everything()
    with surroundings():
        before = settings_seen()
        others, other_numbers = everything()
        assert settings_seen() == before
    assert all(torch.equal(one, other) for one, other in zip(tensors, others, strict=True))
    assert numbers == other_numbers


class Grid(nn.Module):
    """Makes a tensor anew at every call, of whatever type new tensors have."""

    def forward(self, inputs):
        return inputs * torch.linspace(0.1, 1, 4)


@pytest.mark.parametrize("chunks_fitting", [1, 1000])
def test_the_default_type_is_that_at_which_the_operator_was_made(problem, chunks_fitting):
    plain = problem(classified(Grid, nn.Tanh), dtype=torch.float32)
    budget = chunks_fitting * least_budget(plain, precision="float32")
    operator = operator_of(plain, precision="float32", memory_budget=budget)
    vector = vector_for(operator)
    expected = operator @ vector
    with default_dtype(torch.bfloat16):
        assert torch.equal(operator @ vector, expected)
    with default_dtype(torch.float64):
        assert (operator_of(plain) @ vector.double() - expected).norm() < 1e-5 * expected.norm()


# Settings


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"precision": "bf16"},
            "precision 'bf16' is unknown: did you mean 'bfloat16'.* there are 'float64', 'float32', 'tf",
        ),
        ({"precision": "fp32"}, "precision 'fp32' .*'float32'"),
        ({"precision": "double"}, "precision 'double' .*'float64'"),
        ({"precision": "auto"}, "precision 'auto' "),
        ({"precision": torch.float64}, "precision torch.float64 .*'float64'"),
        ({"precision": None}, "precision None "),
        ({"precision": ["float32"]}, r"precision \['float32'\] "),
        ({"l2": float("nan")}, "l2 .*nan"),
        ({"l2": -0.1}, "l2 .*got -0.1"),
        ({"l2": "0.1"}, "l2 .*'0.1'"),
        ({"l2": True}, "l2 .*True"),
        ({"chunk_size": 0}, "chunk_size .*got 0"),
        ({"chunk_size": 2.5}, "chunk_size .*got 2.5"),
        ({"chunk_size": True}, "chunk_size .*True"),
        ({"chunk_size": None}, "chunk_size .*None"),
        ({"memory_budget": 1e9}, "memory_budget .*got 1000000000.0"),
        ({"memory_budget": -1}, "memory_budget .*got -1"),
        ({"parameters": [0]}, r"parameters .*\[0\]"),
        ({"batch_statistics": "no"}, "batch_statistics .*'no'"),
    ],
)
def test_settings_that_mean_nothing_are_refused_by_name_and_value(problem, settings, sentence):
    plain = problem("conv")
    with pytest.raises((ValueError, TypeError), match=sentence):
        HessianOperator(plain.model, plain.inputs, plain.targets, **settings)


@pytest.mark.parametrize("word", ["float32", "bf16", "TF32"])
def test_the_pipelines_product_knows_its_words_too(problem, word):
    with pytest.raises(ValueError, match=f"precision '{word}' "):
        HessianProduct(Loss(problem("conv").model, l2=0.0), precision=word)


def test_a_model_on_two_devices_or_without_values_is_refused(problem):
    plain = problem("conv")
    model = copy.deepcopy(plain.model)
    model[4].to("meta")
    with pytest.raises(ValueError, match=r"one device, got 0\.bias on cpu, 4\.bias on meta"):
        HessianOperator(model, plain.inputs, plain.targets)
    with pytest.raises(ValueError, match="meta device"):
        HessianOperator(model.to("meta"), plain.inputs, plain.targets)


# Vectors


def backwards(array):
    return np.ascontiguousarray(array[::-1])[::-1]


def read_only(array):
    array.setflags(write=False)
    return array


VECTORS = {
    "float64": lambda v: v.double(),
    "requires a gradient": lambda v: nn.Parameter(v.clone()),
    "with gaps": lambda v: torch.stack([v, v], dim=1)[:, 1],
    "numpy": lambda v: v.numpy(),
    "numpy in double precision": lambda v: v.double().numpy(),
    "numpy backwards": lambda v: backwards(v.numpy()),
    "numpy of another machine": lambda v: v.numpy().astype(">f4"),
    "numpy read-only": lambda v: read_only(v.numpy().copy()),
    "a part of numpy": lambda v: np.stack([v.numpy()] * 2, axis=1)[:, 0],
}


@pytest.mark.parametrize("change", VECTORS.values(), ids=VECTORS)
def test_vectors_of_another_kind_are_converted(problem, change):
    operator = operator_of(problem("conv", dtype=torch.float32), precision="float32")
    vector = vector_for(operator)
    expected = operator @ vector
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        product = operator @ change(vector)
    assert torch.equal(product, expected)
    assert product.dtype == torch.float32
    assert not product.requires_grad


@pytest.mark.parametrize("kind", [torch.int64, torch.int8, torch.bool, torch.bfloat16, torch.float16])
def test_vectors_of_fewer_values_are_converted_too(problem, kind):
    operator = operator_of(problem("conv"))
    vector = (vector_for(operator) * 3).to(kind)
    expected = operator @ vector.double()
    assert torch.equal(operator @ vector, expected)
    if kind != torch.bfloat16:
        assert torch.equal(operator @ vector.numpy(), expected)
        assert torch.equal(operator @ torch.stack([vector, vector], 1).numpy(), torch.stack([expected, expected], 1))


def test_a_block_may_have_no_vectors(problem):
    operator = operator_of(problem("conv"))
    assert (operator @ torch.zeros(operator.shape[0], 0)).shape == (operator.shape[0], 0)


REFUSED = {
    "too short": (lambda v: v[1:], "vector .*116"),
    "empty": (lambda v: v[:0], "vector .* 0 "),
    "rows": (lambda v: torch.stack([v, v]), r" 2 .*operator @ rows\.T"),
    "a number": (lambda v: v[0], r"need a vector \[117\] or a block of them \[117, b\], got shape \[\]"),
    "three axes": (lambda v: v[:, None, None], r"got shape \[117, 1, 1\]"),
    "complex": (lambda v: v.to(torch.complex64), "vector .*torch.complex64"),
    "complex numpy": (lambda v: v.numpy() * 1j, "vector .*torch.complex128"),
    "on another device": (lambda v: v.to("meta"), "vector .*meta.*cpu"),
    "sparse": (lambda v: v.to_sparse(), "vector .*dense"),
    "a list": (lambda v: v.tolist(), "the vector .*list"),
    "objects": (lambda v: v.numpy().astype(object), "the vector .*an array of object"),
    "named tensors": (lambda v: {"weight": v}, "got dict"),
}


@pytest.mark.parametrize(("change", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_vector_of_the_operators_is_refused(problem, change, sentence):
    operator = operator_of(problem(lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 1), nn.Linear(1, 22))))
    assert operator.shape[0] == 117
    with pytest.raises((ValueError, TypeError), match=sentence):
        operator @ change(vector_for(operator))


def test_named_takes_a_vector_of_numpy_apart_and_no_other_shape(problem):
    operator = operator_of(problem("conv"))
    vector = vector_for(operator)
    named = operator.named(vector.numpy())
    assert all(torch.equal(named[name], part) for name, part in operator.named(vector).items())
    for wrong in (vector[1:], vector[:, None], vector.numpy()[:3]):
        with pytest.raises(ValueError, match=rf"need a vector \[{len(vector)}\], got shape"):
            operator.named(wrong)


def test_settings_may_be_whole_numbers_of_numpy(problem):
    plain = problem("conv")
    operator = operator_of(plain, chunk_size=np.int64(3), memory_budget=np.int64(2**30), l2=np.float32(0))
    vector = vector_for(operator)
    assert torch.equal(operator @ vector, operator_of(plain) @ vector)


def test_numpy_does_not_take_the_operator_for_a_number(problem):
    operator = operator_of(problem("conv"))
    with pytest.raises(TypeError, match="unsupported operand"):
        np.ones(operator.shape[0]) @ operator


def test_scipys_operator_is_in_the_same_order(problem):
    operator = operator_of(problem("conv"))
    vector, linear = vector_for(operator), operator.aslinearoperator()
    expected = (operator @ vector).numpy()
    for product in (linear @ vector.numpy(), linear.rmatvec(vector.numpy()), (linear @ vector.numpy()[:, None])[:, 0]):
        np.testing.assert_array_equal(product, expected)


# Threads


@pytest.mark.parametrize("num_operators", [1, 4])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("chunks_fitting", [1, 1000])
def test_products_from_threads_are_those_of_one_after_the_other(problem, form, chunks_fitting, num_operators):
    plain = problem(form)
    budget = chunks_fitting * least_budget(plain)
    operators = [operator_of(plain, memory_budget=budget, l2=0.1 * number) for number in range(num_operators)]
    vectors = [vector_for(operators[0], seed) for seed in range(15)]
    expected = [[operator @ vector for vector in vectors] for operator in operators]
    found = [[] for _ in range(4)]
    start = threading.Barrier(4)

    def work(number):
        operator = operators[number % num_operators]
        start.wait()
        for vector in vectors:
            found[number].append(operator @ vector)
        operator_of(plain, memory_budget=budget)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, products in enumerate(found):
        assert len(products) == len(vectors)
        for product, right in zip(products, expected[number % num_operators], strict=True):
            assert torch.equal(product, right)


def test_full_precision_lasts_until_the_last_thread_has_left_it():
    cpu, place = torch.device("cpu"), ON_CPU[0]
    with rough_products():
        first, second = undisturbed(cpu), undisturbed(cpu)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert place.fp32_precision == "ieee"
        second.__exit__(None, None, None)
        assert place.fp32_precision == ROUGH


def test_eigenpairs_from_threads_are_those_of_one_after_the_other(problem):
    plain = problem(FORMS["other layers"])

    def solve():
        return top_eigenpairs(
            operator_of(plain),
            num_pairs=3,
            tolerance=1e-6,
            max_products=100,
            generator=torch.Generator().manual_seed(0),
        ).eigenvalues

    expected, found = solve(), []
    threads = [threading.Thread(target=lambda: found.append(solve())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert all(torch.equal(values, expected) for values in found)
