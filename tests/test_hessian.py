"""Hessian-vector products equal the dense Hessian of a loss written independently, however the examples are cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpness import models
from sharpness.hessian import HessianOperator, HessianProduct
from sharpness.lanczos import top_eigenpairs
from sharpness.loss import Loss, flatten

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")

NETWORKS = ["conv", "residual", "batch_norm"]
NUM_EXAMPLES = 7


def operator_of(plain, **settings):
    product = HessianProduct(Loss(plain.model, l2=plain.l2))
    return HessianOperator(product, *flatten(plain.model), plain.inputs, plain.targets, **settings)


def columns(operator):
    return torch.stack([operator @ unit for unit in torch.eye(*operator.shape, dtype=operator.dtype)])


def draw(generator, size, dtype=torch.float64):
    return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)


@pytest.fixture(scope="module")
def cut_anyhow(problem):
    """The operator of one residual network for any chunk size; one product holds all the traces."""
    plain = problem("residual", l2=0.01, num_examples=NUM_EXAMPLES)
    product = HessianProduct(Loss(plain.model, l2=0.01))
    state = flatten(plain.model)
    return lambda **settings: HessianOperator(product, *state, plain.inputs, plain.targets, **settings)


@pytest.mark.parametrize(("name", "l2"), [("conv", 0.0), ("conv", 0.05), ("residual", 0.05), ("batch_norm", 0.05)])
def test_equals_the_dense_hessian_when_the_last_chunk_is_short(problem, name, l2):
    plain = problem(name, l2=l2)
    dense = plain.hessian(flatten(plain.model)[0])
    ours = columns(operator_of(plain, chunk_size=3))  # 3, 3, 1
    assert (ours - dense).norm() < 1e-10 * dense.norm()
    assert torch.linalg.eigvalsh(dense)[0] < -1e-3 * dense.norm()  # not a convex case


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


@settings(max_examples=25, deadline=None)
@given(chunk_size=st.integers(1, NUM_EXAMPLES + 2), seed=st.integers(0, 2**32))
def test_the_product_does_not_depend_on_how_examples_are_cut(cut_anyhow, chunk_size, seed):
    whole, cut = cut_anyhow(chunk_size=NUM_EXAMPLES), cut_anyhow(chunk_size=chunk_size)
    vector = draw(torch.Generator().manual_seed(seed), whole.shape[0])
    torch.testing.assert_close(cut @ vector, whole @ vector, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_recomputed_has_the_bits_of_what_is_kept(problem, name, dtype, generator):
    plain = problem(name, l2=0.05, dtype=dtype)
    product = HessianProduct(Loss(plain.model, l2=plain.l2))
    state = flatten(plain.model)
    kept, recomputed, partly = (
        HessianOperator(product, *state, plain.inputs, plain.targets, chunk_size=3, memory_budget=budget)
        for budget in (2**30, 0, 30_000)
    )
    for _ in range(3):
        vector = draw(generator, kept.shape[0], dtype)
        assert torch.equal(recomputed @ vector, kept @ vector)
        assert torch.equal(partly @ vector, kept @ vector)


@pytest.mark.parametrize(("memory_budget", "per_product"), [(0, 3), (2**30, 0)])
def test_only_what_the_memory_holds_is_spared_in_every_product(problem, memory_budget, per_product, generator):
    class Counting(HessianProduct):
        linearised = 0

        def linearise(self, *state):
            self.linearised += 1
            return super().linearise(*state)

    plain = problem("conv")
    product = Counting(Loss(plain.model, l2=0.0))
    state = flatten(plain.model)
    operator = HessianOperator(
        product, *state, plain.inputs, plain.targets, chunk_size=3, memory_budget=memory_budget
    )  # 3, 3, 1
    vector = draw(generator, operator.shape[0])
    for _ in range(2):
        before = product.linearised
        operator @ vector
        assert product.linearised - before == per_product


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
def test_one_trace_serves_all_weights_statistics_and_examples(problem, name, generator):
    places = [problem(name, l2=0.05, seed=seed) for seed in range(3)]
    product = HessianProduct(Loss(places[0].model, l2=0.05))
    operators = [
        HessianOperator(product, *flatten(plain.model), plain.inputs, plain.targets, chunk_size=7, memory_budget=budget)
        for plain, budget in zip(places, (2**30, 0, 2**30), strict=True)
    ]
    vector = draw(generator, operators[0].shape[0])
    # Backwards and twice: an operator must not answer for the weights that came after it.
    for plain, operator in [*zip(places, operators, strict=True)][::-1] * 2:
        expected = plain.hessian(flatten(plain.model)[0]) @ vector
        assert (operator @ vector - expected).norm() < 1e-10 * expected.norm()


def test_curvature_of_the_penalty_counts_once_whatever_the_number_of_examples(problem, generator):
    plain = problem("conv")
    vector = draw(generator, len(flatten(plain.model)[0]))
    on_kernels = plain.flat(
        {name: torch.full_like(p, float(name in plain.kernels)) for name, p in plain.model.named_parameters()}
    )
    difference = operator_of(problem("conv", l2=0.4), chunk_size=2) @ vector - operator_of(plain, chunk_size=2) @ vector
    torch.testing.assert_close(difference, 0.8 * on_kernels * vector)


@pytest.mark.parametrize("memory_budget", [0, 2**30])
def test_nothing_of_the_state_changes(problem, memory_budget, generator):
    plain = problem("batch_norm", l2=0.05)
    plain.model.train()
    weights, buffers = flatten(plain.model)
    vector = draw(generator, len(weights))
    given = [weights, buffers, plain.inputs, plain.targets, vector, *plain.model.state_dict().values()]
    before = [tensor.clone() for tensor in given]

    product = HessianProduct(Loss(plain.model, l2=0.05))
    HessianOperator(product, *given[:4], chunk_size=3, memory_budget=memory_budget) @ vector

    assert all(torch.equal(now, then) for now, then in zip(given, before, strict=True))
    assert plain.model.training
    assert not weights.requires_grad


def test_a_trace_that_double_backward_contradicts_is_refused(problem):
    class Forgetful(Loss):
        """Not a function of its arguments: the second time it is another loss."""

        calls = 0

        def summed(self, *state):
            self.calls += 1
            return self.calls * super().summed(*state)

    plain = problem("conv")
    with pytest.raises(RuntimeError, match="differs from double backward"):
        HessianOperator(
            HessianProduct(Forgetful(plain.model, l2=0.0)), *flatten(plain.model), plain.inputs, plain.targets
        )


@pytest.mark.parametrize("scale", [1.0, 4.0, 5.0, 6.0, 12.0])
def test_a_network_that_fits_its_examples_is_no_contradiction(generator, scale):
    model = models.build("simple_cnn", (3, 12, 12), 10, generator=generator)
    weights, buffers = flatten(model)
    inputs = torch.randn(64, 3, 12, 12, generator=generator)
    loss = Loss(model, l2=0.0)
    # As at the end of training: every example is classified as it should be, the more surely the larger the weights.
    targets = loss.logits(scale * weights, buffers, inputs).argmax(dim=1)
    operator = HessianOperator(HessianProduct(loss), scale * weights, buffers, inputs, targets)
    assert torch.isfinite(operator @ weights).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_lost_weights_are_told_by_the_solver(problem, value, generator):
    plain = problem("conv")
    weights, buffers = flatten(plain.model)
    product = HessianProduct(Loss(plain.model, l2=0.0))
    weights[5] = value
    operator = HessianOperator(product, weights, buffers, plain.inputs, plain.targets)
    with pytest.raises(FloatingPointError, match="not finite"):
        top_eigenpairs(operator, num_pairs=1, tolerance=1e-3, max_products=10, generator=generator)
