"""Every loss has torch's value and the derivatives of torch's value, and no digit is lost where a network is sure."""

from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import LOSSES, drawn
from torch import nn
from torch.nn import functional

from sharpness.hessian.losses.choice import criterion_of

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")

SHAPES = [(5, 4), (5, 4, 3), (5, 4, 2, 3), (5, 1)]


ALLOWED = {name: [s for s in SHAPES if not (name == "ignored class" and s[1] == 1)] for name in LOSSES}
CASES = [(name, shape, reduction) for name in LOSSES for shape in ALLOWED[name] for reduction in ("mean", "sum")]


@pytest.mark.parametrize(("name", "shape", "reduction"), CASES)
def test_value_and_both_derivatives_are_torchs_own(name, shape, reduction, generator):
    loss, targets = LOSSES[name](shape, generator)
    loss.reduction = reduction
    outputs, tangent = drawn(shape, generator).requires_grad_(), drawn(shape, generator)
    value = loss(outputs, targets)
    (gradient,) = torch.autograd.grad(value, outputs, create_graph=True)
    product = torch.zeros_like(outputs)
    if gradient.requires_grad:
        (product,) = torch.autograd.grad(gradient, outputs, tangent)

    criterion = criterion_of(loss)
    converted = criterion.converted(targets, torch.float64)
    criterion.check(converted, outputs.shape)
    divisor = criterion.divisor(criterion.weight(converted))
    leaf = outputs.detach().requires_grad_()
    total = criterion.summed(leaf, converted)
    (by_graph,) = torch.autograd.grad(total, leaf, create_graph=True)
    (twice,) = torch.autograd.grad(by_graph, leaf, tangent)
    by_rule, curvature = criterion.gradient_and_curvature(outputs.detach(), converted)

    torch.testing.assert_close(total / divisor, value)
    torch.testing.assert_close(criterion.mean(outputs, converted), value)
    torch.testing.assert_close(criterion.plain_sum(outputs, converted) / divisor, value)
    for ours in (by_graph, by_rule):
        torch.testing.assert_close(ours / divisor, gradient)
    for ours in (twice, curvature.times(tangent)):
        torch.testing.assert_close(ours / divisor, product)


@pytest.mark.parametrize("name", [name for name in LOSSES if not name.startswith("ignored")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_of_less_precision_are_worked_on_in_single(name, dtype, generator):
    loss, targets = LOSSES[name]((5, 4), generator)
    outputs, tangent = drawn((5, 4), generator).to(dtype), drawn((5, 4), generator)
    criterion = criterion_of(loss)
    precise = criterion.gradient_and_curvature(outputs.double(), criterion.converted(targets, torch.float64))
    gradient, curvature = criterion.gradient_and_curvature(outputs, criterion.converted(targets, torch.float32))
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient.double(), precise[0], rtol=1e-4, atol=1e-6)
    product, expected = curvature.times(tangent.to(dtype)), precise[1].times(tangent.to(dtype).double())
    torch.testing.assert_close(product.double(), expected, rtol=1e-4, atol=1e-6)


def logistic_exactly(output, target, weight, positive):
    """Gradient and second derivative of torch's loss for one output, in 120 digits."""
    with localcontext() as context:
        context.prec = 120
        x, y, w, p = (Decimal(float(value)) for value in (output, target, weight, positive))
        rising = 1 / (1 + (-x).exp())
        return [
            float(w * ((1 - y) * rising - p * y * (1 - rising))),
            float(w * (1 - y + p * y) * rising * (1 - rising)),
        ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=100)
@given(output=st.floats(-80, 80), target=st.sampled_from([0.0, 1.0, 0.25]), positive=st.floats(0.125, 8))
def test_the_logistic_loss_is_right_to_rounding_however_sure_the_network(dtype, output, target, positive):
    outputs, positive = torch.tensor([[output]], dtype=dtype), torch.tensor([positive], dtype=torch.float32)
    loss = nn.BCEWithLogitsLoss(weight=torch.tensor([0.75]), pos_weight=positive)
    criterion = criterion_of(loss)
    targets = torch.tensor([[target]], dtype=dtype)
    gradient, curvature = criterion.gradient_and_curvature(outputs, targets)
    leaf = outputs.clone().requires_grad_()
    (by_graph,) = torch.autograd.grad(criterion.summed(leaf, targets), leaf, create_graph=True)
    (twice,) = torch.autograd.grad(by_graph, leaf)
    slope, second = logistic_exactly(outputs.item(), target, 0.75, positive.item())
    tiny, allowed = torch.finfo(dtype).tiny, 20 * torch.finfo(dtype).eps
    # With a label between 0 and 1 the two parts of the gradient cancel where the network is right.
    parts = 0.75 * (positive.item() + 1)
    scale = abs(slope) if target in (0.0, 1.0) else parts
    assert abs(gradient.item() - slope) <= allowed * scale + tiny
    assert abs(curvature.times(torch.ones_like(outputs)).item() - second) <= allowed * second + tiny
    assert abs(by_graph.item() - slope) <= allowed * max(scale, abs(slope)) + allowed * parts
    assert abs(twice.item() - second) <= 50 * allowed * second + tiny


@settings(max_examples=60)
@given(margin=st.floats(0, 200), likeliest=st.integers(0, 3), label=st.integers(0, 3), seed=st.integers(0, 2**32))
def test_weighted_classes_lose_no_digit_however_sure_the_network(margin, likeliest, label, seed):
    """With one weight for all classes it is that many times the plain loss, which is right to rounding."""
    logits, tangent = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits[0, likeliest] += margin
    plain, weighted = criterion_of(None), criterion_of(nn.CrossEntropyLoss(weight=torch.full((4,), 3.0)))
    labels = torch.tensor([label])
    gradient, curvature = plain.gradient_and_curvature(logits, labels)
    other, other_curvature = weighted.gradient_and_curvature(logits, labels)
    assert (other - 3 * gradient).norm() <= 1e-13 * other.norm()
    expected = 3 * curvature.times(tangent)
    assert (other_curvature.times(tangent) - expected).norm() <= 1e-13 * expected.norm()


def test_a_class_that_is_impossible_and_unlabelled_changes_nothing():
    logits = torch.tensor([[1.0, -torch.inf, 0.5]], dtype=torch.float64, requires_grad=True)
    criterion = criterion_of(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])))
    total = criterion.summed(logits, torch.tensor([2]))
    (gradient,) = torch.autograd.grad(total, logits, create_graph=True)
    expected = functional.cross_entropy(
        logits[:, [0, 2]], torch.tensor([1]), torch.tensor([1.0, 3.0]).double(), reduction="sum"
    )
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(gradient, criterion.gradient_and_curvature(logits.detach(), torch.tensor([2]))[0])
    assert gradient[0, 1] == 0


REFUSED = {
    "absolute": (
        nn.L1Loss(),
        ValueError,
        r"L1Loss has no rule here: give torch.nn.CrossEntropyLoss, .*a function loss\(model",
    ),
    "several": (nn.MSELoss(reduction="none"), ValueError, "reduction='none' is not one number"),
    "a class": (nn.MSELoss, TypeError, r"give MSELoss\(\)"),
    "a list": ([nn.MSELoss()], TypeError, "got .MSELoss"),
    "a word": ("mse", TypeError, "got 'mse'"),
    "negative": (
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, -1.0])),
        ValueError,
        "weight must be finite and not neg",
    ),
    "nan": (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([torch.nan])), ValueError, "pos_weight must be finite"),
}


@pytest.mark.parametrize(("loss", "error", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_loss_is_refused_in_a_sentence(loss, error, sentence):
    with pytest.raises(error, match=sentence) as refusal:
        criterion_of(loss)
    assert "\n" not in str(refusal.value)


def test_a_loss_that_only_derives_from_one_of_torchs_has_no_rule():
    class Focal(nn.CrossEntropyLoss):
        def forward(self, outputs, targets):
            return super().forward(outputs, targets) ** 2

    with pytest.raises(ValueError, match="Focal has no rule"):
        criterion_of(Focal())


@pytest.mark.parametrize(
    "function", [functional.cross_entropy, functional.mse_loss, functional.binary_cross_entropy_with_logits]
)
def test_torchs_functions_are_their_modules(function, generator):
    outputs = drawn((5, 4), generator)
    targets = outputs.sigmoid().flip(0) if function is not functional.cross_entropy else torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(criterion_of(function).mean(outputs, targets), function(outputs, targets))
