"""Following eigenpairs through matrices that change: what is seen, what is searched anew, what a probe is for."""

import math

import pytest
import torch

from sharpness.eigen.vectors import subspace_overlap
from sharpness.tracking.following import Follower


def follower(num_pairs=2, **settings):
    chosen = {
        "tolerance": 1e-3,
        "products": math.inf,
        "follow_products": num_pairs + 1,
        "renew_residual": 0.2,
        "renew_overlap": 0.5,
        "probe_every": 0,
        "probe_products": 5,
        "max_products": 200,
        "generator": torch.Generator().manual_seed(0),
    }
    return Follower(num_pairs=num_pairs, **(chosen | settings))


def diagonal(size, **values):
    matrix = torch.linspace(0, 1, size, dtype=torch.float64)
    for place, value in values.items():
        matrix[int(place[1:])] = value
    return torch.diag(matrix)


def test_a_slow_rotation_is_followed_without_a_search():
    generator = torch.Generator().manual_seed(1)
    turning = torch.randn(60, 60, generator=generator, dtype=torch.float64)
    turning = torch.linalg.matrix_exp(0.01 * (turning - turning.T) / math.sqrt(60))
    matrix, following = diagonal(60, _0=9.0, _1=7.0, _2=4.0), follower()
    ways = []
    for _ in range(20):
        found = following.update(matrix)
        ways.append(found.found_by)
        torch.testing.assert_close(
            found.pairs.eigenvalues, torch.tensor([9.0, 7.0], dtype=torch.float64), rtol=2e-3, atol=0
        )
        images = matrix @ found.pairs.eigenvectors.T - found.pairs.eigenvectors.T * found.pairs.eigenvalues
        torch.testing.assert_close(found.pairs.residuals, images.norm(dim=0) / 9, rtol=0.05, atol=1e-6)
        matrix = turning @ matrix @ turning.T
    assert following.since_look == 19
    assert ways == ["first search", *["followed"] * 19]


def test_a_jump_is_noticed_by_the_residual_and_searched_anew():
    generator = torch.Generator().manual_seed(1)
    turned = torch.linalg.qr(torch.randn(300, 300, generator=generator, dtype=torch.float64)).Q
    matrix, following = diagonal(300, _0=1.6, _1=1.4), follower()
    following.update(matrix)

    found = following.update(turned @ matrix @ turned.T)

    assert found.found_by == "search: residual"
    assert found.pairs.converged
    torch.testing.assert_close(
        found.pairs.eigenvalues, torch.tensor([1.6, 1.4], dtype=torch.float64), rtol=1e-3, atol=0
    )
    assert found.num_products > found.pairs.num_products  # those spent on following too


def test_vectors_that_turn_within_the_widened_span_are_searched_anew():
    # In the span of e0 and what the product adds to it, e5 has overtaken: its residual is zero, its overlap too.
    matrix, following = diagonal(60, _0=3.0), follower(num_pairs=1, follow_products=2)
    following.update(matrix)
    following.vectors = torch.eye(60, dtype=torch.float64)[:1]
    other = diagonal(60, _0=3.0, _5=9.0)
    other[0, 5] = other[5, 0] = 0.01

    found = following.update(other)

    assert found.found_by == "search: overlap"
    assert found.overlap < 0.01
    assert float(found.pairs.eigenvalues) == pytest.approx(9.0, rel=1e-3)


def test_a_sharper_direction_outside_the_span_is_seen_by_the_probe_alone():
    before, after = diagonal(300, _0=5.0, _1=4.0), diagonal(300, _0=5.0, _1=4.0, _7=9.0)
    blind, probing = follower(), follower(probe_every=3)
    seen = []
    for each in (blind, probing):
        each.update(before)
        each.vectors = torch.eye(300, dtype=torch.float64)[:2]
        seen.append([each.update(after) for _ in range(4)])

    assert [found.found_by for found in seen[0]] == ["followed"] * 4
    assert [float(found.pairs.eigenvalues[0]) for found in seen[0]] == pytest.approx([5.0] * 4)
    assert [found.found_by for found in seen[1]] == ["followed", "followed", "search: probe", "followed"]
    assert seen[1][2].beyond > 4
    assert float(seen[1][3].pairs.eigenvalues[0]) == pytest.approx(9.0, rel=1e-3)


def test_probes_that_are_too_short_find_it_together():
    matrix = diagonal(3000, _0=1.3, _7=1.4)
    one = torch.eye(3000, dtype=torch.float64)[:1]

    def found_by_probes(warm):
        following = follower(num_pairs=1, probe_every=1, probe_products=3)
        following.vectors = one.clone()
        for number in range(40):
            if not warm:
                following.outside = None
            if following.update(matrix).found_by == "search: probe":
                return number
        return None

    assert found_by_probes(warm=True) is not None
    assert found_by_probes(warm=False) is None


def test_searches_wait_until_their_products_have_been_saved():
    generator = torch.Generator().manual_seed(1)
    turned = torch.linalg.qr(torch.randn(300, 300, generator=generator, dtype=torch.float64)).Q
    matrix, following = diagonal(300, _0=1.6, _1=1.4), follower(products=5.0, follow_products=4, probe_every=4)
    first = following.update(matrix)
    found = []
    for number in range(120):
        if number % 3 == 0:
            matrix = turned @ matrix @ turned.T
        found.append(following.update(matrix))

    searches = [each for each in found if each.found_by.startswith("search")]
    assert searches
    assert sum(each.num_products for each in found) <= 5 * len(found)
    # None of the budget is left for long: it goes to searches and probes.
    assert following.saved < first.num_products + 5
    # A follower that may not search yet says so by its residual.
    waiting = [each for each in found if each.found_by == "followed"]
    assert max(float(each.pairs.residuals.max()) for each in waiting) > 0.2


def test_the_krylov_space_of_their_sum_finds_turned_vectors_in_fewer_products():
    generator = torch.Generator().manual_seed(2)
    size = 400
    turning = torch.randn(size, size, generator=generator, dtype=torch.float64)
    turned = torch.linalg.matrix_exp(1.2 * (turning - turning.T) / math.sqrt(2 * size))
    before = torch.eye(size, dtype=torch.float64)[:2]
    after = turned @ diagonal(size, _0=5.0, _1=4.0) @ turned.T

    def largest(overlap):
        following = follower(follow_products=4, renew_residual=math.inf, renew_overlap=0.0)
        following.vectors, following.overlap = before, overlap
        return float(following.update(after).pairs.eigenvalues[0])

    assert 5 - largest(0.0) < 0.5 * (5 - largest(1.0))


def test_an_operator_as_small_as_its_pairs_has_no_outside():
    matrix, following = torch.diag(torch.tensor([3.0, 2.0])), follower(probe_every=1)
    assert [following.update(matrix).found_by for _ in range(3)] == ["first search", "followed", "followed"]
    torch.testing.assert_close(following.update(matrix).pairs.eigenvalues, torch.tensor([3.0, 2.0]).double())


def test_overlap_is_one_for_the_same_span_and_half_where_one_of_two_is_shared():
    rows = torch.eye(5)
    assert subspace_overlap(rows[:2], rows[[1, 0]]) == 1
    assert subspace_overlap(rows[:2], rows[1:3]) == 0.5
