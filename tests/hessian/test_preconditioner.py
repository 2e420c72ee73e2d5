"""A preconditioned operator is D^-1/2 H D^-1/2, and D is what an optimiser divides its step by."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sharpness.eigen.lanczos import top_eigenpairs
from sharpness.hessian.operator import HessianOperator

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")


def columns(operator):
    return operator @ torch.eye(operator.shape[0], dtype=operator.dtype)


@pytest.fixture
def plain(problem):
    return problem("batch_norm")  # with a kernel of four axes


@pytest.mark.parametrize("kind", ["hessian", "ggn", "gradient_covariance"])
@pytest.mark.parametrize("of", [torch.tensor, lambda d, **_: np.array(d)], ids=["tensor", "array"])
def test_a_vector_scales_rows_and_columns(plain, kind, of, generator):
    settings = {"curvature": kind, "precision": "float64", "l2": 0.1}
    matrix = columns(HessianOperator(plain.model, plain.inputs, plain.targets, **settings))
    diagonal = torch.rand(len(matrix), generator=generator, dtype=torch.float64) + 0.1
    given = of(diagonal.tolist(), dtype=torch.float64)
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, preconditioner=given, **settings)
    expected = matrix / diagonal.sqrt() / diagonal.sqrt()[:, None]
    assert (columns(operator) - expected).norm() < 1e-12 * expected.norm()


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_its_pairs_are_certified(plain, precision, generator):
    matrix = columns(HessianOperator(plain.model, plain.inputs, plain.targets, precision="float64"))
    diagonal = torch.rand(len(matrix), generator=generator, dtype=torch.float64) + 0.1
    values = torch.linalg.eigvalsh(matrix / diagonal.sqrt() / diagonal.sqrt()[:, None]).flip(0)[:3]
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, preconditioner=diagonal, precision=precision)
    pairs = top_eigenpairs(operator, 3)
    assert pairs.residuals.max() < 1e-3
    assert (pairs.eigenvalues - values).abs().max() < 1e-3 * values[0]


OPTIMISERS = {
    "Adam": lambda p: torch.optim.Adam(p, lr=0.02, eps=1e-4),
    "AMSGrad": lambda p: torch.optim.Adam(p, lr=0.02, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.02, betas=(0.8, 0.95), weight_decay=0.0),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.02, eps=1e-3),
    "centred RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.02, centered=True, eps=1e-3),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.02),
}


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
def test_the_diagonal_is_what_the_optimiser_divided_its_last_step_by(plain, make):
    """Observed from outside: the step that it takes, and the (averaged, unbiased) gradient that it takes it along."""
    optimiser = make(plain.model.parameters())
    parameters = list(plain.model.parameters())
    averages, steps = [torch.zeros_like(p) for p in parameters], 4
    for _ in range(steps):
        before = [p.detach().clone() for p in parameters]
        optimiser.zero_grad()
        functional.cross_entropy(plain.model(plain.inputs), plain.targets).backward()
        beta = optimiser.param_groups[0].get("betas", (0.0,))[0]
        averages = [beta * a + (1 - beta) * p.grad for a, p in zip(averages, parameters, strict=True)]
        optimiser.step()
    gradients = [a / (1 - beta**steps) for a in averages]
    taken = [(b - p.detach()) / 0.02 for b, p in zip(before, parameters, strict=True)]
    observed = torch.cat([(g / s).flatten() for g, s in zip(gradients, taken, strict=True)])
    seen = torch.isfinite(observed) & (observed > 0)  # a gradient of zero shows nothing

    settings = {"precision": "float64", "curvature": "ggn"}
    matrix = columns(HessianOperator(plain.model, plain.inputs, plain.targets, **settings))
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, preconditioner=optimiser, **settings)
    expected = matrix.diagonal() / observed
    assert seen.sum() > 0.8 * len(seen)
    torch.testing.assert_close(columns(operator).diagonal()[seen], expected[seen], rtol=1e-6, atol=1e-12)


def test_adam_on_a_quadratic_is_stable_up_to_its_limit(generator):
    """With a frozen preconditioner Adam is heavy ball: (2 + 2β) / (1 - β) bounds η times the largest eigenvalue."""
    with torch.random.fork_rng(devices=[]):
        model = nn.Linear(1, 1, bias=False).double()
    inputs, targets = torch.full((2, 1), 3.0).double(), torch.zeros(2, 1).double()  # L = 9 w², H = 18
    beta, limit = 0.9, 38.0
    operator = HessianOperator(
        model, inputs, targets, loss=nn.MSELoss(), preconditioner=torch.tensor([4.0]), precision="float64"
    )
    sharpness = float(top_eigenpairs(operator, 1).eigenvalues)
    assert sharpness == pytest.approx(18 / 4)
    for factor, grows in ((0.99, False), (1.01, True)):
        rate, weight, velocity = factor * limit / sharpness, 1.0, 0.0
        for _ in range(2000):
            velocity = beta * velocity + (1 - beta) * 18 * weight
            weight -= rate * velocity / 4
        assert (abs(weight) > 1) == grows


def test_only_rows_that_are_asked_for_need_a_preconditioner(plain):
    trained = list(plain.model[4].parameters())
    optimiser = torch.optim.Adam(trained, lr=0.01)
    functional.cross_entropy(plain.model(plain.inputs), plain.targets).backward()
    optimiser.step()
    operator = HessianOperator(plain.model, plain.inputs, plain.targets, preconditioner=optimiser, parameters="4.*")
    assert operator.shape == (183, 183)
    with pytest.raises(ValueError, match=r"does not train 0.weight: give parameters='trained'"):
        HessianOperator(plain.model, plain.inputs, plain.targets, preconditioner=optimiser)


@pytest.mark.parametrize(
    ("entry", "value", "sentence"),
    [(2, 0.0, "entry 2 is 0"), (5, -1.0, "entry 5 is -1"), (0, torch.nan, "entry 0 is nan")],
)
def test_numbers_that_are_not_positive_are_named(plain, entry, value, sentence):
    diagonal = torch.ones(sum(parameter.numel() for parameter in plain.model.parameters()))
    diagonal[entry] = value
    with pytest.raises(ValueError, match=sentence):
        HessianOperator(plain.model, plain.inputs, plain.targets, preconditioner=diagonal)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (lambda _: torch.ones(3), r"must be a vector \[\d+\], got shape \[3\]"),
        (torch.optim.SGD, "SGD has no diagonal preconditioner.*Adam, AdamW"),
        (torch.optim.Adam, "no state of 0.weight yet: let it take a step"),
        (lambda _: "adam", "got str"),
    ],
)
def test_what_is_no_preconditioner_is_refused_in_a_sentence(plain, given, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        HessianOperator(plain.model, plain.inputs, plain.targets, preconditioner=given(plain.model.parameters()))
