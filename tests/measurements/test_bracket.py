"""The bracket of an eigenvalue, against the dense Hessians of a small network on many subsamples."""

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from sharpness.measurements.bracket import elsewhere

NUM_EXAMPLES, SAMPLE = 60, 12


@pytest.fixture(scope="module")
def hessians():
    """The Hessian of each example's own loss, [60, P, P]: that of a sample is the mean over its examples."""
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    weights = torch.randn(sum(p.numel() for p in model.parameters()), generator=generator, dtype=torch.float64)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    inputs = torch.randn(NUM_EXAMPLES, 3, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (NUM_EXAMPLES,), generator=generator)

    def loss(flat, one, target):
        parts = flat.split([shape.numel() for shape in shapes.values()])
        named = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return cross_entropy(functional_call(model, named, (one[None],)), target[None])

    return torch.stack(
        [
            hessian(lambda flat, one=one, target=target: loss(flat, one, target), weights)
            for one, target in zip(inputs, targets, strict=True)
        ]
    )


def draws(hessians, num_pairs, count=400):
    """Of many random samples: the leading eigenvalues there, and the curvatures on two chunks of other examples."""
    generator = torch.Generator().manual_seed(0)
    on_sample, outside = [], []
    for _ in range(count):
        order = torch.randperm(NUM_EXAMPLES, generator=generator)
        values, vectors = torch.linalg.eigh(hessians[order[:SAMPLE]].mean(dim=0))
        chunks = [hessians[part].mean(dim=0) for part in order[SAMPLE : 3 * SAMPLE].split(SAMPLE // 2)]
        on_sample.append(values.flip(0)[:num_pairs])
        outside.append(elsewhere(chunks, vectors.flip(1)[:, :num_pairs].T, fraction=0.5, num_examples=24).curvatures)
    return torch.stack(on_sample), torch.stack(outside)


@pytest.mark.parametrize("num_pairs", [1, 2, 5])
def test_sample_and_elsewhere_bracket_the_sum_of_the_leading_eigenvalues_of_all_examples(hessians, num_pairs):
    whole = torch.linalg.eigvalsh(hessians.mean(dim=0)).flip(0)[:num_pairs].sum()
    upper, lower = (values.sum(dim=1) for values in draws(hessians, num_pairs))
    for values, side in ((upper, 1), (lower, -1)):
        # Both inequalities are strict here, by many standard errors of the mean over the draws.
        assert side * (values.mean() - whole) > 3 * values.std() / len(values) ** 0.5


def test_the_standard_error_is_that_of_the_mean_over_all_other_examples(hessians):
    generator = torch.Generator().manual_seed(1)
    vector = torch.linalg.eigh(hessians[:SAMPLE].mean(dim=0)).eigenvectors[:, -1:].T
    others = torch.arange(SAMPLE, NUM_EXAMPLES)
    truth = vector[0] @ hessians[others].mean(dim=0) @ vector[0]
    errors, told = [], []
    for _ in range(500):
        chosen = others[torch.randperm(len(others), generator=generator)[:24]]
        measured = elsewhere(
            [hessians[part].mean(dim=0) for part in chosen.split(4)], vector, fraction=0.5, num_examples=24
        )
        errors.append(measured.curvatures[0] - truth)
        told.append(measured.standard_errors[0] ** 2)
    errors = torch.stack(errors)
    assert errors.mean().abs() < 4 * errors.std() / len(errors) ** 0.5
    assert float(torch.stack(told).mean()) == pytest.approx(float(errors.var()), rel=0.15)


def test_all_other_examples_leave_no_error_and_one_chunk_tells_none():
    vectors = torch.eye(3)[:2]
    chunks = [torch.diag(torch.tensor([3.0, 1.0, 0.0])), torch.diag(torch.tensor([5.0, 1.0, 0.0]))]
    whole = elsewhere(chunks, vectors, fraction=1.0, num_examples=24)
    assert whole.curvatures.tolist() == [4.0, 1.0]
    assert whole.standard_errors.tolist() == [0.0, 0.0]
    assert elsewhere(chunks, vectors, fraction=0.5, num_examples=24).standard_errors.tolist() == pytest.approx(
        [0.5**0.5, 0.0]
    )
    assert elsewhere(chunks[:1], vectors, fraction=0.5, num_examples=24).standard_errors.isnan().all()


@pytest.mark.parametrize("fraction", [0.0, 1.5, float("nan")])
def test_an_impossible_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match=f"fraction must be .* got {fraction}"):
        elsewhere([torch.eye(2)], torch.eye(2), fraction=fraction, num_examples=24)


def test_no_other_examples_are_refused():
    with pytest.raises(ValueError, match="at least one chunk"):
        elsewhere([], torch.eye(2), fraction=0.5, num_examples=24)
