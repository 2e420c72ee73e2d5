"""What is said of missed eigenvalues, against spectra that are known: made to order, and of dense float64 Hessians."""

import copy
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import KINDS_OF_BULK, Reflected, random_spectrum
from torch import nn
from torch.nn import functional

from sharpness.eigen.completeness import FAILURE, Spectrum, largest_eigenvalue
from sharpness.eigen.lanczos import top_eigenpairs
from sharpness.hessian.operator import HessianOperator

# What the wanted eigenvalues have most of.
RANKINGS = {"largest": lambda values: values, "smallest": lambda values: -values, "magnitude": abs}


def solve(operator, *, num_pairs, tolerance=1e-3, seed=0, **others):
    return top_eigenpairs(
        operator,
        num_pairs=num_pairs,
        tolerance=tolerance,
        max_products=3 * operator.shape[0],
        generator=torch.Generator().manual_seed(seed),
        **others,
    )


def missed(pairs, eigenvalues, which, slack):
    """How many wanted eigenvalues are not among the pairs, and how many of these are beyond what was promised.

    Args:
        pairs: what was found.
        eigenvalues: all that there are.
        which: the wanted end.
        slack: an eigenvalue within it of the one of its rank is found.
    """
    ranking = RANKINGS[which]
    wanted = np.sort(ranking(np.asarray(eigenvalues)))[::-1][: len(pairs.eigenvalues)]
    found = ranking(pairs.eigenvalues.numpy())
    promised = ranking(pairs.complete_beyond)
    return int((wanted > found + slack).sum()), int((wanted > np.maximum(found, promised) + slack).sum())


def lanczos(matrix, start, num_steps):
    """Ritz values and the lengths of the residuals, by the recurrence in numpy: an independent one."""
    basis, norms = [start / np.linalg.norm(start)], []
    for _ in range(num_steps):
        image = matrix @ basis[-1]
        for vector in [*basis, *basis]:
            image = image - (vector @ image) * vector
        norms.append(float(np.linalg.norm(image)))
        basis.append(image / norms[-1])
    rows = np.array(basis[:num_steps])
    return torch.from_numpy(np.linalg.eigvalsh(rows @ matrix @ rows.T)), norms


@pytest.mark.parametrize("num_steps", [1, 2, 4, 8])
@pytest.mark.parametrize("failure", [0.5, 0.1])
def test_the_largest_eigenvalue_is_above_its_bound_no_more_often_than_stated(num_steps, failure):
    drawn = np.random.default_rng(num_steps)
    eigenvalues = np.append(drawn.uniform(-1, 1, 149), 1.05)
    matrix = np.diag(eigenvalues)
    draws, wrong = 400, 0
    for _ in range(draws):
        values, norms = lanczos(matrix, drawn.standard_normal(150), num_steps)
        bound = largest_eigenvalue(values, norms, dimension=150, failure=failure)
        assert bound >= float(values.max())
        wrong += bound < 1.05
    assert wrong <= draws * failure + 3 * math.sqrt(draws * failure * (1 - failure))


def test_more_steps_and_a_larger_risk_bring_the_bound_closer():
    drawn = np.random.default_rng(0)
    matrix, start = np.diag(drawn.uniform(-1, 1, 400)), drawn.standard_normal(400)
    bounds = [
        [largest_eigenvalue(*lanczos(matrix, start, n), dimension=400, failure=failure) for n in (4, 8, 16, 32)]
        for failure in (0.001, 0.01, 0.1)
    ]
    assert (np.diff(bounds, axis=1) < 0).all()
    assert (np.diff(bounds, axis=0) < 0).all()
    assert bounds[1][-1] < 1.2


def test_the_bound_of_an_invariant_subspace_is_its_largest_value():
    assert largest_eigenvalue(torch.tensor([2.0, 5.0]), [1.0, 0.0], dimension=90, failure=0.01) == 5


@pytest.mark.slow
@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(3, 30),
    num_rows=st.integers(1, 29),
    flat=st.booleans(),
    signs=st.sampled_from([(1,), (-1,), (1, -1)]),
)
def test_no_more_eigenvalues_lie_beyond_a_number_than_the_projection_allows(seed, size, num_rows, flat, signs):
    drawn = np.random.default_rng(seed)
    num_rows = min(num_rows, size - 1)
    matrix = drawn.standard_normal((size, size))
    matrix = (matrix + matrix.T) / 2
    if flat:  # then the count is exact: Haynsworth's additivity of inertia
        matrix[num_rows:, num_rows:] = 0.3 * np.eye(size - num_rows)
    projected, coupling, complement = (
        matrix[:num_rows, :num_rows],
        matrix[num_rows:, :num_rows],
        matrix[num_rows:, num_rows:],
    )
    bounds = {sign: float(np.linalg.eigvalsh(sign * complement).max()) for sign in signs}
    of_projection = torch.linalg.eigh(torch.from_numpy(projected))
    spectrum = Spectrum(*of_projection, torch.from_numpy(coupling), bounds)
    eigenvalues = np.concatenate([sign * np.linalg.eigvalsh(matrix) for sign in signs])
    for number in max(bounds.values()) + drawn.uniform(1e-3, 10, 20):
        there = int((eigenvalues > number).sum())
        assert there <= spectrum.most_beyond(number)
        if flat and len(signs) == 1:
            assert there == spectrum.most_beyond(number)
    for rank in range(num_rows):
        bound = spectrum.upper_bound(rank)
        assert int((eigenvalues > bound + 1e-9).sum()) <= rank


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
@pytest.mark.parametrize("probe_products", [2, 8])
@pytest.mark.parametrize("gap", [1e-2, 1e-3, 1e-4, 1e-5])
def test_the_copy_that_waits_to_be_multiplied_is_found_above_a_flat_bulk(gap, probe_products, precision):
    eigenvalues = torch.zeros(100, dtype=precision)
    eigenvalues[:3] = torch.tensor([5, 3, 3 * (1 - gap)])
    for seed in range(40):
        pairs = solve(torch.diag(eigenvalues), num_pairs=3, seed=seed, probe_products=probe_products)
        assert pairs.converged
        np.testing.assert_allclose(pairs.eigenvalues.numpy(), [5, 3, 3], atol=5e-3 + 3 * gap)
        assert pairs.complete or probe_products == 2
        assert pairs.complete_beyond < 3 or probe_products == 2


@pytest.mark.slow
@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(2, 2000),
    num_pairs=st.integers(1, 10),
    kind=st.sampled_from(KINDS_OF_BULK),
    which=st.sampled_from(list(RANKINGS)),
    precision=st.sampled_from([torch.float64, torch.float32]),
    noise=st.sampled_from([0.0, 0.0, 1e-4]),
    probe_products=st.sampled_from([1, 4, 8, 20]),
)
def test_no_eigenvalue_beyond_what_is_promised_is_missed(
    seed, size, num_pairs, kind, which, precision, noise, probe_products
):
    num_pairs = min(num_pairs, size)
    eigenvalues = random_spectrum(np.random.default_rng(seed), kind, size, num_pairs)
    eigenvalues = -eigenvalues if which == "smallest" else eigenvalues
    operator = Reflected(eigenvalues, precision, seed + 1, noise)
    pairs = solve(operator, num_pairs=num_pairs, seed=seed, which=which, probe_products=probe_products)
    # Residuals within the tolerance leave a value within it, and a cluster's values within it each.
    _, broken = missed(pairs, eigenvalues, which, (1.1e-3 + 3 * noise) * abs(eigenvalues).max())
    assert not (pairs.converged and broken)


def rates_of_spectra(numbers):
    """By kind of bulk: spectra solved, complete answers, and those that lack a pair."""
    counts = {kind: Counter() for kind in KINDS_OF_BULK}
    for number in numbers:
        drawn = np.random.default_rng(number)
        kind, which = KINDS_OF_BULK[number % 6], list(RANKINGS)[number // 6 % 3]
        precision = (torch.float64, torch.float32)[number // 18 % 2]
        size = int(np.exp(drawn.uniform(np.log(2), np.log(2000))))
        num_pairs = int(drawn.integers(1, min(size, 10) + 1))
        eigenvalues = random_spectrum(drawn, kind, size, num_pairs) * (-1 if which == "smallest" else 1)
        operator = Reflected(eigenvalues, precision, number + 10**6)
        pairs = solve(operator, num_pairs=num_pairs, seed=number, which=which)
        _count(counts[kind], pairs, eigenvalues, which)
    return counts


def _count(counts, pairs, eigenvalues, which):
    counts["solved"] += 1
    if pairs.converged:
        lost, broken = missed(pairs, eigenvalues, which, 1.1e-3 * max(abs(eigenvalues).max(), 1e-30))
        counts["lack a promised pair"] += broken > 0
        counts["complete"] += pairs.complete is True
        counts["lack a pair"] += pairs.complete is True and lost > 0
        counts["undecided"] += pairs.complete is None and lost > 0


def _say(name, counts):
    return (
        f"  {name}: of {counts['solved']} solved, {counts['lack a promised pair']} lack a pair beyond complete_beyond "
        f"(promised: {FAILURE * counts['solved']:.1f} at most); {counts['complete']} are complete, of which "
        f"{counts['lack a pair']} lack a pair; of the others {counts['undecided']} do"
    )


@pytest.mark.slow
def test_no_generated_spectrum_lacks_a_promised_pair(capsys):
    counts = rates_of_spectra(range(3000))
    with capsys.disabled():
        print("\nGenerated spectra, 8 probe products, by the kind of their bulk:")
        print("\n".join(_say(kind, of_kind) for kind, of_kind in counts.items()))
    of_all = sum(counts.values(), Counter())
    assert of_all["lack a promised pair"] <= FAILURE * of_all["solved"]
    assert of_all["lack a pair"] == 0
    # Of the others, the last wanted pair lies close to the next, or in the bulk.
    assert of_all["complete"] > 2000
    assert counts["flat"]["complete"] > 480


def small_network(drawn, seed):
    """A linear, ReLU or tanh network on a few examples, with all its eigenvalues from a dense Hessian in float64."""
    inside, classes, width = int(drawn.integers(2, 7)), int(drawn.integers(2, 5)), int(drawn.integers(2, 9))
    activation = [nn.Identity, nn.ReLU, nn.Tanh][int(drawn.integers(3))]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        deep = [nn.Linear(inside, width), activation(), nn.Linear(width, classes)]
        model = nn.Sequential(*(deep if drawn.random() < 0.8 else [nn.Linear(inside, classes)])).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2.0
    return model, inside, classes


def dense_eigenvalues(model, inputs, targets, l2):
    parameters = list(copy.deepcopy(model).parameters())
    names = [name for name, _ in model.named_parameters()]

    def loss(flat):
        parts = torch.split(flat, [parameter.numel() for parameter in parameters])
        state = {n: part.view_as(p) for n, part, p in zip(names, parts, parameters, strict=True)}
        value = functional.cross_entropy(torch.func.functional_call(model, state, (inputs,)), targets)
        return value + l2 * sum(part.square().sum() for part, p in zip(parts, parameters, strict=True) if p.dim() > 1)

    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    hessian = torch.autograd.functional.hessian(loss, flat)
    return np.linalg.eigvalsh((hessian + hessian.T).numpy() / 2)


def rates_of_networks(numbers):
    """The same for the Hessians of small networks on one to eight examples, with and without an L2 term."""
    counts = Counter()
    for number in numbers:
        drawn = np.random.default_rng(10_000 + number)
        model, inside, classes = small_network(drawn, number)
        num_examples = int(drawn.choice([1, 2, 3, 6, 7, 8]))
        inputs = torch.from_numpy(drawn.standard_normal((num_examples, inside)))
        targets = torch.from_numpy(drawn.integers(0, classes, num_examples))
        l2 = float(drawn.choice([0.0, 1e-3]))
        operator = HessianOperator(model, inputs, targets, l2=l2, precision="float64")
        pairs = solve(operator, num_pairs=int(drawn.integers(1, min(10, operator.shape[0]) + 1)), seed=number)
        _count(counts, pairs, dense_eigenvalues(model, inputs, targets, l2), "largest")
    return counts


@pytest.mark.slow
def test_no_pair_of_a_small_network_on_few_examples_is_missed(capsys):
    counts = rates_of_networks(range(1000))
    with capsys.disabled():
        print("\nHessians on one to eight examples:\n" + _say("small networks", counts))
    assert counts["complete"] > 900
    assert counts["lack a pair"] == counts["lack a promised pair"] == 0
