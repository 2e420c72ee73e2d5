"""Eigenvalues with their brackets, of a softmax regression whose Hessian is known in closed form."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from sharpness.data.datasets import EXAMPLES, Dataset, Split
from sharpness.hessian.loss import Loss, flatten
from sharpness.measurements import spectrum
from sharpness.measurements.landscape import Landscape
from sharpness.measurements.spectrum import Spectrum
from sharpness.runtime.streams import stream
from sharpness.stages.train_nudged import finder
from sharpness.study.identity import settings_digest
from sharpness.training.checkpoints import Snapshot

NUM_TRAINING = 200
SETTINGS = Spectrum(
    num_examples=40,
    tolerance=1e-5,
    max_products=21,
    bracket=0.2,
    num_eigenvalues=3,
    resample=False,
    augment=False,
    parameters="*",
    precision="float32",
    probe_products=0,
    frobenius_products=0,
)


@pytest.fixture
def regression(run):
    """A softmax regression on 200 examples of 6 numbers in 3 classes, and its Hessian on some of them in float64."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(NUM_TRAINING, 1, 2, 3, generator=generator) * torch.rand(NUM_TRAINING, 1, 1, 1)
    targets = torch.randint(3, (NUM_TRAINING,), generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    split = Split(inputs, targets)
    weights, buffers = flatten(model)
    order = torch.randperm(NUM_TRAINING, generator=stream(run.seed, EXAMPLES))

    def hessian(chosen):
        """The mean of (diag p - p pᵀ) ⊗ x xᵀ, with a one behind each x; rows in the order of the flat weights."""
        matrix, bias = weights[:18].double().reshape(3, 6), weights[18:].double()
        images = inputs[order[chosen]].double().flatten(1)
        p = torch.softmax(images @ matrix.T + bias, dim=1)
        outer = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        images = torch.cat([images, torch.ones(len(images), 1, dtype=torch.float64)], dim=1)
        whole = torch.einsum("nab,ni,nj->aibj", outer, images, images) / len(images)
        flat = [7 * row + column for row in range(3) for column in range(6)] + [6, 13, 20]
        return whole.reshape(21, 21)[flat][:, flat]

    landscape = Landscape(replace(run, num_training=NUM_TRAINING), Loss(model, l2=0.0), Dataset(split, split, split, 3))
    return landscape, Snapshot(7, weights.detach(), buffers, 0.1), hessian


def rows_of(regression, **changed):
    landscape, checkpoint, _ = regression
    return list(replace(SETTINGS, **changed).rows(landscape, checkpoint, None))


def test_elsewhere_is_the_curvature_along_the_same_eigenvectors_on_other_examples(regression):
    *largest, smallest = rows_of(regression)
    hessian = regression[2]
    values, vectors = torch.linalg.eigh(hessian(slice(0, 40)))

    assert [row["rank"] for row in largest] == [0, 1, 2]
    for row, value, vector in zip(largest, values.flip(0), vectors.T.flip(0), strict=False):
        on_chunks = [vector @ hessian(slice(begin, begin + 4)) @ vector for begin in range(40, 80, 4)]
        assert row["eigenvalue"] == pytest.approx(float(value), rel=1e-5)
        assert row["elsewhere"] == pytest.approx(float(vector @ hessian(slice(40, 80)) @ vector), rel=1e-3)
        # Forty of the other 160 examples, in ten chunks.
        error = torch.stack(on_chunks).std() * ((1 - 40 / 160) / 10) ** 0.5
        assert row["elsewhere_error"] == pytest.approx(float(error), rel=1e-2)
        assert (row["num_examples"], row["num_elsewhere"]) == (40, 40)
    assert smallest["which"] == "smallest"
    assert smallest["elsewhere"] is None


def test_with_all_examples_there_is_no_elsewhere(regression):
    for row in rows_of(regression, num_examples=NUM_TRAINING):
        assert (row["elsewhere"], row["elsewhere_error"], row["num_elsewhere"]) == (None, None, 0)


def test_fewer_other_examples_than_measured_ones_are_all_taken_and_leave_no_error(regression):
    row, *_ = rows_of(regression, num_examples=160)
    vector = torch.linalg.eigh(regression[2](slice(0, 160))).eigenvectors[:, -1]
    assert row["elsewhere"] == pytest.approx(float(vector @ regression[2](slice(160, 200)) @ vector), rel=1e-3)
    assert (row["elsewhere_error"], row["num_elsewhere"]) == (0.0, 40)


@pytest.mark.parametrize(
    "optimizer",
    ['{"name": "adam", "beta2": 0.9, "epsilon": 0.01}', '{"name": "adamw"}', '{"name": "rmsprop", "epsilon": 0.1}'],
)
def test_a_preconditioned_spectrum_is_that_of_the_dense_matrix_scaled_on_both_sides(regression, optimizer):
    landscape, checkpoint, hessian = regression
    run = replace(landscape.run, optimizer=optimizer)
    moment = torch.rand(21, generator=torch.Generator().manual_seed(5)) + 0.01
    state = replace(checkpoint, second_moment=moment)
    rows = list(replace(SETTINGS, preconditioner="optimizer").rows(replace(landscape, run=run), state, None))

    unbiased = moment.double() / (1 - run.update["beta2"] ** 7 if "beta2" in run.update else 1)
    root = (unbiased.sqrt() + run.update["epsilon"]).rsqrt()
    scaled = root[:, None] * hessian(slice(0, 40)) * root
    values, vectors = torch.linalg.eigh(scaled)
    elsewhere = root[:, None] * hessian(slice(40, 80)) * root
    for row, value, vector in zip(rows[:3], values.flip(0), vectors.T.flip(0), strict=False):
        assert row["eigenvalue"] == pytest.approx(float(value), rel=1e-4)
        assert row["elsewhere"] == pytest.approx(float(vector @ elsewhere @ vector), rel=1e-2)
        assert row["preconditioner"] == "optimizer"
    assert "preconditioner" not in rows_of(regression)[0]


def test_a_block_is_preconditioned_by_its_own_part(regression):
    landscape, checkpoint, hessian = regression
    run = replace(landscape.run, optimizer='{"name": "adam"}')
    moment = torch.rand(21, generator=torch.Generator().manual_seed(5)) + 0.01
    chosen = replace(SETTINGS, preconditioner="optimizer", parameters="1.bias", num_eigenvalues=2, max_products=3)
    row, *_ = chosen.rows(replace(landscape, run=run), replace(checkpoint, second_moment=moment), None)

    root = ((moment[18:].double() / (1 - 0.999**7)).sqrt() + 1e-8).rsqrt()
    scaled = root[:, None] * hessian(slice(0, 40))[18:, 18:] * root
    assert row["eigenvalue"] == pytest.approx(float(torch.linalg.eigvalsh(scaled)[-1]), rel=1e-4)


def test_the_rate_that_a_plateau_has_cut_is_told_beside_the_eigenvalues(regression):
    """Nothing else tells it: fields of the run alone do not say when the validation loss waited."""
    landscape, state, _ = regression
    waiting = replace(landscape, run=replace(landscape.run, plateau_patience=2))
    rates = {row["learning_rate_now"] for row in SETTINGS.rows(waiting, replace(state, learning_rate=0.01), None)}
    assert rates == {0.01}
    assert "learning_rate_now" not in rows_of(regression)[0]


def test_a_checkpoint_without_the_optimizers_state_has_no_preconditioned_spectrum(regression):
    with pytest.raises(ValueError, match="the checkpoint of step 7 has no state of the optimizer"):
        rows_of(regression, preconditioner="optimizer")


@pytest.mark.parametrize("bracket", [0.05, 0.1, 0.2, 0.4, 1.0])
def test_the_sample_grows_until_its_bracket_is_narrow(regression, monkeypatch, bracket):
    monkeypatch.setattr(spectrum, "_SAMPLES", (10, 40, 100))
    widths = {}
    for size in (10, 40, 100):
        row, *_ = rows_of(regression, num_examples=size)
        widths[size] = (row["eigenvalue"] - row["elsewhere"] + row["elsewhere_error"]) / row["eigenvalue"]
    expected = next((size for size, width in widths.items() if width <= bracket), NUM_TRAINING)

    grown = rows_of(regression, num_examples="auto", bracket=bracket)

    assert grown == rows_of(regression, num_examples=expected, bracket=bracket)


def test_a_bracket_that_no_sample_has_ends_with_all_examples(regression, monkeypatch):
    monkeypatch.setattr(spectrum, "_SAMPLES", (10, 40))
    row, *_ = rows_of(regression, num_examples="auto", bracket=1e-9)
    assert row["num_examples"] == NUM_TRAINING
    assert row["eigenvalue"] == pytest.approx(float(torch.linalg.eigvalsh(regression[2](slice(None)))[-1]), rel=1e-5)


@pytest.mark.parametrize(
    ("num_training", "sizes"),
    [
        (50_000, [250, 1000, 4000, 50_000]),
        (8_000, [250, 1000, 4000, 8_000]),
        (5_000, [250, 1000, 5000]),
        (500, [250, 500]),
        (300, [300]),
    ],
)
def test_samples_larger_than_half_of_the_training_set_give_way_to_all_of_it(num_training, sizes):
    assert replace(SETTINGS, num_examples="auto").samples(num_training) == sizes


def test_directions_of_a_nudged_run_have_their_curvature_on_a_quarter_as_many_other_examples(regression):
    landscape, checkpoint, hessian = regression
    run = replace(
        landscape.run, num_directions=2, direction_examples=40, direction_tolerance=1e-5, direction_products=21
    )
    vectors = torch.linalg.eigh(hessian(slice(0, 40))).eigenvectors[:, -2:]

    found = finder(run, landscape.dataset, landscape.loss)(checkpoint.weights, checkpoint.buffers)

    def trace(begin, end):
        return float((vectors.T @ hessian(slice(begin, end)) @ vectors).trace())

    on_chunks = torch.tensor([trace(begin, begin + 2) for begin in range(40, 48, 2)])
    assert found.trace == pytest.approx(trace(0, 40), rel=1e-4)
    assert found.trace_elsewhere == pytest.approx(trace(40, 48), rel=1e-3)
    # Ten of the other 160 examples are a quarter of forty, eight of them in four chunks of equal size.
    error = float(on_chunks.std()) * ((1 - 8 / 160) / 4) ** 0.5
    assert found.trace_error == pytest.approx(error, rel=1e-2)


def test_tables_of_before_there_were_brackets_have_the_digest_of_settings_that_ask_for_none():
    settings = {"num_examples": 250, "tolerance": 0.01}
    assert settings_digest(settings | {"bracket": 0.2}, Spectrum.later) == settings_digest(settings)
    assert settings_digest(settings | {"bracket": 0.3}, Spectrum.later) != settings_digest(settings)
