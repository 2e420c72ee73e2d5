"""The two derivatives of cross-entropy are right to rounding, however sure a network is."""

from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sharpness.hessian import cross_entropy

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


def exactly(logits, target, tangent):
    """The gradient and the curvature's product for one example, in 120 digits."""
    with localcontext() as context:
        context.prec = 120
        powers = [Decimal(float(value)).exp() for value in logits]
        p = [power / sum(powers) for power in powers]
        t = [Decimal(float(value)) for value in tangent]
        mean = sum(a * b for a, b in zip(p, t, strict=True))
        gradient = [a - (number == target) for number, a in enumerate(p)]
        product = [a * (b - mean) for a, b in zip(p, t, strict=True)]
        return [torch.tensor([float(value) for value in row], dtype=torch.float64) for row in (gradient, product)]


def by_autograd(logits, targets, tangent):
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy.summed(leaf, targets), leaf, create_graph=True)
    (product,) = torch.autograd.grad(gradient, leaf, tangent)
    return gradient.detach(), product


def by_rule(logits, targets, tangent):
    gradient, curvature = cross_entropy.gradient_and_curvature(logits, targets)
    return gradient, curvature.times(tangent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ways", [by_autograd, by_rule])
@settings(max_examples=150)
@given(margin=st.floats(0, 80), likeliest=st.integers(0, 4), target=st.integers(0, 4), seed=st.integers(0, 2**32))
@example(margin=4.1, likeliest=1, target=1, seed=0)  # about where the form changes
@example(margin=17.0, likeliest=1, target=1, seed=0)  # a loss of 6e-8
@example(margin=80.0, likeliest=1, target=1, seed=0)
def test_derivatives_are_right_to_rounding_however_sure_the_network(ways, dtype, margin, likeliest, target, seed):
    logits, tangent = torch.randn(2, 5, generator=torch.Generator().manual_seed(seed)).to(dtype)
    logits[likeliest] += margin
    found = ways(logits[None], torch.tensor([target]), tangent[None])
    for ours, exact in zip(found, exactly(logits, target, tangent), strict=True):
        assert (ours[0].double() - exact).norm() < 300 * torch.finfo(dtype).eps * exact.norm()


def test_two_classes_have_the_curvature_of_the_logistic_function():
    """p (1 - p) is the product of two sigmoids, of which none cancels."""
    margins = torch.linspace(-700, 700, 57, dtype=torch.float64)
    logits = torch.stack([margins, torch.zeros(57, dtype=torch.float64)], dim=1)
    targets, tangent = torch.zeros(57, dtype=torch.int64), torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(57, 2)
    gradient, product = by_rule(logits, targets, tangent)
    expected = margins.sigmoid() * (-margins).sigmoid()
    torch.testing.assert_close(product, torch.stack([expected, -expected], dim=1), rtol=1e-13, atol=0)
    torch.testing.assert_close(gradient[:, 0], -(-margins).sigmoid(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3), (6, 4, 3, 2), (6, 4, 2, 2, 3), (6, 1), (6, 4, 0)])
@pytest.mark.parametrize("ignored", [0.0, 0.4, 1.0])
def test_value_and_derivatives_are_torchs_own_for_further_axes_and_ignored_labels(shape, ignored, generator):
    logits = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(shape[1], (6, *shape[2:]), generator=generator)
    targets[torch.rand(targets.shape, generator=generator) < ignored] = -100
    tangent = torch.randn(shape, generator=generator, dtype=torch.float64)
    value = functional.cross_entropy(logits, targets, reduction="sum")
    (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
    (product,) = torch.autograd.grad(gradient, logits, tangent)

    ours = cross_entropy.summed(logits, targets)

    torch.testing.assert_close(ours, value)
    for ways in (by_autograd, by_rule):
        torch.testing.assert_close(ways(logits.detach(), targets, tangent), (gradient.detach(), product))
    if cross_entropy.num_terms(targets):
        mean = functional.cross_entropy(logits, targets)
        torch.testing.assert_close(ours / cross_entropy.num_terms(targets), mean)


def test_classes_that_are_impossible_have_no_part_in_it():
    logits = torch.tensor([[1.0, -torch.inf, 0.5], [-torch.inf, 30.0, 0.0]], dtype=torch.float64)
    targets, tangent = torch.tensor([0, 1]), torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]], dtype=torch.float64)
    possible = [[0, 2], [1, 2]]
    for ways in (by_autograd, by_rule):
        gradient, product = ways(logits, targets, tangent)
        for row, chosen in enumerate(possible):
            expected = exactly(logits[row, chosen], chosen.index(int(targets[row])), tangent[row, chosen])
            torch.testing.assert_close([gradient[row, chosen], product[row, chosen]], expected)
    assert gradient[0, 1] == product[0, 1] == gradient[1, 0] == product[1, 0] == 0


def test_logits_of_half_a_precision_are_worked_on_in_single():
    logits = torch.tensor([[1.0, -2.0, 30.0]], dtype=torch.bfloat16)
    gradient, product = by_rule(logits, torch.tensor([2]), torch.ones_like(logits) * torch.tensor([1.0, 2.0, 3.0]))
    assert gradient.dtype == product.dtype == torch.float32
    assert 0 < -gradient[0, 2] < 1e-12
