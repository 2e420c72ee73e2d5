"""The loss after scaled steps: the same mini-batches for every direction and factor."""

from types import SimpleNamespace

import pytest
import torch

from sharpness.measurements.steps import Steps

CURVATURES = torch.tensor([8.0, 1.0])
RATE = 0.1


def rows_of_steps(alphas):
    """Steps on L = w' diag(8, 1) w / 2 at (1, 1), whose mini-batches add noise to the gradient."""
    noise = [torch.tensor([x, 0.0]) for x in (-3.0, 1.0, 2.0)]
    weights = torch.ones(2)
    loss = SimpleNamespace(
        gradient=lambda at, _, some: CURVATURES * at + some, value=lambda at, *_: (CURVATURES * at**2).sum() / 2
    )
    pairs = SimpleNamespace(eigenvectors=torch.eye(2), eigenvalues=torch.tensor([8.0]), residuals=torch.tensor([0.0]))
    landscape = SimpleNamespace(
        loss=loss,
        run=SimpleNamespace(seed=0),
        sharpest=lambda *_: pairs,
        batches=lambda _: iter([(some,) for some in noise]),
        first_examples=lambda _: (),
    )
    checkpoint = SimpleNamespace(step=0, weights=weights, buffers=torch.zeros(0), learning_rate=RATE)
    settings = Steps(num_examples=1, tolerance=0.1, max_products=1, loss_examples=1, num_batches=3, alphas=alphas)
    return list(settings.rows(landscape, checkpoint, None)), [8.0 + float(some[0]) for some in noise]


def test_every_factor_and_direction_takes_the_same_mini_batches():
    rows, slopes = rows_of_steps([0.5, 1, 2])
    top = {(row["alpha"], row["batch"]): row["loss_after"] for row in rows if row["direction"] == "top"}
    for (alpha, batch), after in top.items():
        assert after == pytest.approx(8 * (1 - alpha * RATE * slopes[batch]) ** 2 / 2 + 0.5)
    # Of one batch, the losses lie on a parabola in alpha: its third differences vanish, with 4.5 at alpha = 0.
    for batch in range(3):
        slope, bend = slopes[batch] * RATE, [top[alpha, batch] for alpha in (0.5, 1, 2)]
        assert bend == pytest.approx([4.5 - 8 * alpha * slope + 4 * (alpha * slope) ** 2 for alpha in (0.5, 1, 2)])


def test_each_direction_has_every_factor_and_batch_once():
    rows, _ = rows_of_steps([0.5, 2])
    found = [(row["direction"], row["alpha"], row["batch"]) for row in rows]
    assert sorted(found) == sorted(
        (direction, alpha, batch) for direction in ("top", "random", "full") for alpha in (0.5, 2) for batch in range(3)
    )
