"""Training: torch's own SGD on the same batches, the nudged updates written out, and what a run leaves behind."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from sharpness import training
from sharpness.data import Dataset, Split, epoch_order
from sharpness.loss import Evaluation, Loss, flatten
from sharpness.streams import stream
from sharpness.training import Descent, Directions

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")

STEPS_PER_EPOCH = 5
SEARCH = {"num_directions": 2, "direction_examples": 5, "direction_tolerance": 0.1, "direction_products": 9}
PLAIN = {"gamma": 1.0, "gamma_outside": 1.0}


def dataset_of(problem, dtype=torch.float32):
    """22 training examples, 9 to validate and 8 to test, with classes that can be learnt."""
    splits = []
    for seed, size in ((1, 22), (2, 9), (3, 8)):
        inputs = problem("conv", num_examples=size, seed=seed, dtype=dtype).inputs
        targets = torch.bucketize(inputs.mean(dim=(1, 2, 3)), torch.tensor([-0.05, 0.05], dtype=dtype))
        splits.append(Split(inputs, targets))
    return Dataset(*splits, num_classes=3)


def batches_of(run, dataset):
    """The batches of a run, in order: the order of each epoch is a stream of its own."""
    inputs, targets = dataset.training.inputs, dataset.training.targets
    for epoch in range(1, run.epochs + 1):
        generator = stream(run.seed, f"order of epoch {epoch}")
        for batch in epoch_order(len(targets), run.examples_per_step, generator=generator):
            yield inputs[batch], targets[batch]


def directions_in(size, *, seed=0, dtype=torch.float32):
    numbers = np.random.default_rng(seed).standard_normal((size, 2))
    rows = torch.from_numpy(np.linalg.qr(numbers)[0].T.copy()).to(dtype)
    return Directions(rows=rows, num_products=17, residual=0.004)


def train(run, plain, dataset, **settings):
    """Train, and gather what is kept."""
    kept = []
    weights, buffers = flatten(plain.model)
    given = {"planned_steps": [], "find_directions": None, "num_evaluated": 10, "keep": kept.append, **settings}
    result = training.train(run, Loss(plain.model, l2=run.l2), dataset, weights, buffers, **given)
    assert torch.equal(weights, flatten(plain.model)[0])
    assert torch.equal(buffers, flatten(plain.model)[1])
    return result, kept


def same(one, other):
    tensors = (one.weights, other.weights), (one.buffers, other.buffers)
    return one.step == other.step and all(torch.equal(ours, theirs) for ours, theirs in tensors)


class Scripted:
    """In place of a loss: evaluations written down beforehand, one of each kind for every epoch from 0 on."""

    def __init__(self, dataset, *, losses=None, accuracies=None):
        self._validation = dataset.validation.inputs
        length = len(losses or accuracies)
        self._losses, self._accuracies = iter(losses or [1.0] * length), iter(accuracies or [0.5] * length)

    def gradient(self, weights, *_, training):
        assert training
        return torch.ones_like(weights)

    def evaluate(self, _weights, _buffers, inputs, _targets):
        if inputs is not self._validation:
            return Evaluation(torch.tensor(1.0), torch.tensor(0.5))
        return Evaluation(torch.tensor(next(self._losses)), torch.tensor(next(self._accuracies)))


def train_scripted(run, problem, planned_steps=(), **script):
    dataset, kept = dataset_of(problem), []
    result = training.train(
        *(run, Scripted(dataset, **script), dataset, torch.zeros(4), torch.zeros(0)),
        planned_steps=planned_steps,
        keep=kept.append,
        find_directions=None,
        num_evaluated=10,
    )
    return result, kept


# The update


@pytest.mark.parametrize("l2", [0.0, 0.02])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", ["conv", "residual", "batch_norm"])
def test_plain_sgd_is_torchs(run, problem, name, momentum, l2):
    run = replace(run, momentum=momentum, l2=l2)
    plain, dataset = problem(name), dataset_of(problem, torch.float64)
    reference = copy.deepcopy(plain.model).train()
    optimiser = torch.optim.SGD(reference.parameters(), lr=run.learning_rate, momentum=momentum)
    for inputs, targets in batches_of(run, dataset):
        penalty = sum(reference.get_parameter(kernel).square().sum() for kernel in plain.kernels)
        optimiser.zero_grad()
        (functional.cross_entropy(reference(inputs), targets) + l2 * penalty).backward()
        optimiser.step()
    weights, buffers = flatten(reference)

    result, _ = train(run, plain, dataset)

    assert result.last.step == 3 * STEPS_PER_EPOCH
    torch.testing.assert_close(result.last.weights, weights, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(result.last.buffers, buffers, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_factors_of_one_are_plain_sgd_bit_for_bit(run, problem, momentum):
    plain, dataset = problem("conv", dtype=torch.float32), dataset_of(problem)
    loss, state = Loss(plain.model, l2=0.01), flatten(plain.model)
    nudged, vanilla = (Descent(loss, *state, learning_rate=0.1, momentum=momentum) for _ in range(2))
    rows = directions_in(len(state[0])).rows
    for batch in batches_of(run, dataset):
        nudged.step(*batch, rows, **PLAIN)
        vanilla.step(*batch, None, **PLAIN)
        assert torch.equal(nudged.weights, vanilla.weights)
    assert not torch.equal(vanilla.weights, state[0])


def test_a_run_with_factors_of_one_never_looks_for_directions_and_has_the_bits_of_sgd(run, problem):
    plain, dataset = problem("conv", dtype=torch.float32), dataset_of(problem)

    def never(*_):
        raise AssertionError("directions were looked for")

    with_search, _ = train(replace(run, num_directions=2), plain, dataset, find_directions=never)
    without, _ = train(run, plain, dataset)
    assert same(with_search.last, without.last)


@pytest.mark.parametrize(("gamma", "gamma_outside"), [(0.0, 1.0), (1.0, 0.0), (0.1, 1.0), (5.0, 1.0), (2.0, 0.5)])
def test_nudged_sgd_moves_by_its_formula(run, problem, gamma, gamma_outside):
    plain, dataset = problem("residual", l2=0.01), dataset_of(problem, torch.float64)
    weights, buffers = flatten(plain.model)
    rows = directions_in(len(weights), dtype=torch.float64).rows
    descent = Descent(Loss(plain.model, l2=0.01), weights, buffers, learning_rate=0.1, momentum=0.0)
    for inputs, targets in batches_of(run, dataset):
        gradient = plain.part(inputs=inputs, targets=targets).gradient(weights)
        inside = rows.T @ rows @ gradient
        weights = weights - 0.1 * (gamma_outside * (gradient - inside) + gamma * inside)
        descent.step(inputs, targets, rows, gamma=gamma, gamma_outside=gamma_outside)
        torch.testing.assert_close(descent.weights, weights, rtol=1e-10, atol=1e-12)


def test_momentum_nudges_the_velocity_and_remembers_it_as_it_was(run, problem):
    plain, dataset = problem("conv", l2=0.01), dataset_of(problem, torch.float64)
    weights, buffers = flatten(plain.model)
    rows = directions_in(len(weights), dtype=torch.float64).rows
    descent = Descent(Loss(plain.model, l2=0.01), weights, buffers, learning_rate=0.1, momentum=0.9)
    velocity = torch.zeros_like(weights)
    for inputs, targets in batches_of(run, dataset):
        velocity = 0.9 * velocity - 0.1 * plain.part(inputs=inputs, targets=targets).gradient(weights)
        inside = rows.T @ rows @ velocity
        weights = weights + (velocity - inside) + 0.1 * inside  # and the velocity stays whole
        descent.step(inputs, targets, rows, gamma=0.1, gamma_outside=1.0)
        torch.testing.assert_close(descent.weights, weights, rtol=1e-10, atol=1e-12)


def test_a_full_batch_is_gradient_descent_on_all_examples(run, problem):
    run = replace(run, batch_size="full", l2=0.01, epochs=4)
    plain, dataset = problem("conv", l2=0.01), dataset_of(problem, torch.float64)
    whole = plain.part(inputs=dataset.training.inputs, targets=dataset.training.targets)
    weights, _ = flatten(plain.model)
    for _ in range(4):
        weights = weights - run.learning_rate * whole.gradient(weights)
    result, _ = train(run, plain, dataset)
    assert result.last.step == 4
    torch.testing.assert_close(result.last.weights, weights, rtol=1e-10, atol=1e-12)


# Randomness


@pytest.mark.parametrize("augment", [False, True])
def test_a_seed_gives_the_same_bits_and_another_seed_others(run, problem, augment):
    run = replace(run, augment=augment, momentum=0.9)
    plain, dataset = problem("batch_norm", dtype=torch.float32), dataset_of(problem)
    first, again, other = (train(replace(run, seed=seed), plain, dataset)[0] for seed in (0, 0, 1))
    assert same(first.last, again.last)
    assert repr(first.history) == repr(again.history)  # its not-a-numbers are equal as words
    assert not torch.equal(first.last.weights, other.last.weights)


def test_augmentation_is_drawn_anew_in_every_epoch(run, problem):
    run = replace(run, augment=True, batch_size="full", epochs=3)
    plain, dataset = problem("conv", dtype=torch.float32), dataset_of(problem)
    # One image only, so that the order of the examples makes no difference.
    one = Split(dataset.training.inputs[:1].expand(22, -1, -1, -1), dataset.training.targets)
    dataset = replace(dataset, training=one)
    seen = []

    class Watching(Loss):
        def gradient(self, weights, buffers, inputs, targets, *, training):
            seen.append(inputs)
            return super().gradient(weights, buffers, inputs, targets, training=training)

    given = {"planned_steps": [], "keep": print, "find_directions": None, "num_evaluated": 10}
    training.train(run, Watching(plain.model, l2=0.0), dataset, *flatten(plain.model), **given)
    assert len(seen) == 3
    assert not any(torch.equal(seen[one], seen[other]) for one, other in ((0, 1), (0, 2), (1, 2)))
    assert all(not torch.equal(images, one.inputs) for images in seen)


# Checkpoints


def test_planned_steps_are_the_states_before_the_update_of_that_number(run, problem):
    plain, dataset = problem("batch_norm", dtype=torch.float32), dataset_of(problem)
    planned = [15, 0, 7, 3, 5, 1, 10, 9, 16, 99]  # the last two are after the end

    _, kept = train(replace(run, momentum=0.9), plain, dataset, planned_steps=planned)

    assert [snapshot.step for snapshot in kept] == [0, 1, 3, 5, 7, 9, 10, 15]
    descent = Descent(Loss(plain.model, l2=0.0), *flatten(plain.model), learning_rate=0.05, momentum=0.9)
    states = [descent.snapshot(0)]
    for step, batch in enumerate(batches_of(run, dataset), start=1):
        descent.step(*batch, None, **PLAIN)
        states.append(descent.snapshot(step))
    assert all(same(snapshot, states[snapshot.step]) for snapshot in kept)
    assert not any(torch.equal(states[step].weights, states[step + 1].weights) for step in range(15))


def test_a_run_that_is_stopped_is_the_beginning_of_a_longer_one(run, problem):
    plain, dataset = problem("conv", dtype=torch.float32), dataset_of(problem)
    long, kept = train(replace(run, epochs=4), plain, dataset, planned_steps=[10])
    short, _ = train(replace(run, epochs=2), plain, dataset)
    assert same(short.last, kept[0])
    assert repr(short.history) == repr(long.history[:3])


def test_without_planned_steps_nothing_is_kept(run, problem):
    _, kept = train(run, problem("conv", dtype=torch.float32), dataset_of(problem))
    assert kept == []


# History


def test_history_is_what_the_plain_model_says_of_the_checkpoints(run, problem):
    plain, dataset = problem("conv"), dataset_of(problem, torch.float64)
    result, kept = train(run, plain, dataset, planned_steps=[0, 5, 10, 15], num_evaluated=10)
    assert [(record.epoch, record.step) for record in result.history] == [(0, 0), (1, 5), (2, 10), (3, 15)]
    assert result.ended == "finished"
    for record, snapshot in zip(result.history, kept, strict=True):
        model = copy.deepcopy(plain.model)
        for name, value in plain.state(snapshot.weights).items():
            model.get_parameter(name).data.copy_(value)

        def of(split, model=model):
            p = model(split.inputs).detach().softmax(dim=1).numpy()
            right = [row[target] for row, target in zip(p, split.targets, strict=True)]
            hits = [row.argmax() == target for row, target in zip(p, split.targets.tolist(), strict=True)]
            return -np.log(right).mean(), np.mean(hits)

        first = Split(dataset.training.inputs[:10], dataset.training.targets[:10])
        assert record.training_loss == pytest.approx(of(first)[0])
        assert (record.validation_loss, record.validation_accuracy) == pytest.approx(of(dataset.validation))
        assert record.test_accuracy == pytest.approx(of(dataset.test)[1])
        moved = (snapshot.weights - flatten(plain.model)[0]).numpy()
        assert record.distance == pytest.approx(np.sqrt((moved**2).sum()))
        assert record.learning_rate == run.learning_rate
        assert not record.diverged
        assert record.direction_products == 0
        assert math.isnan(record.direction_residual)
    assert result.history[0].distance == 0
    assert result.history[-1].training_loss < result.history[0].training_loss


@pytest.mark.parametrize(
    ("accuracies", "best_epoch"),
    [
        ([0.1, 0.5, 0.7, 0.6], 2),
        ([0.1, 0.7, 0.5, 0.7], 1),  # the earliest of equals
        ([0.1, 0.2, 0.3, 0.4], 3),
        ([0.9, 0.2, 0.3, 0.4], 0),
        ([0.3, 0.3, 0.3, 0.3], 0),
    ],
)
def test_the_best_is_the_earliest_of_the_highest_validation_accuracy(run, problem, accuracies, best_epoch):
    result, kept = train_scripted(run, problem, planned_steps=range(0, 16, 5), accuracies=accuracies)
    assert result.best.step == best_epoch * STEPS_PER_EPOCH
    assert torch.equal(result.best.weights, kept[best_epoch].weights)
    assert result.last.step == 15


# Schedules


def test_the_rate_is_cut_to_a_tenth_where_the_validation_loss_does_not_fall(run, problem):
    # From epoch 1 on; initialisation does not count. A fall of half a ten-thousandth is none.
    losses = [0.1, 1.0, 0.5, 0.49995, 0.5, 0.6, 0.49, 0.49, 0.49, 0.3]
    waits = "        -    -    1        2    1    -     1     2     -"  # cut after epochs 4 and 8
    run = replace(run, learning_rate=1.0, plateau_patience=2, epochs=len(waits.split()))

    result, kept = train_scripted(run, problem, planned_steps=range(50), losses=losses)

    of_epochs = [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01]
    assert [record.learning_rate for record in result.history] == pytest.approx([1, *of_epochs])
    # The gradient is one everywhere: the weights are minus the sum of the rates of all updates.
    assert result.last.weights[0].item() == pytest.approx(-STEPS_PER_EPOCH * sum(of_epochs))
    of_updates = [rate for rate in of_epochs for _ in range(STEPS_PER_EPOCH)]
    assert [snapshot.step for snapshot in kept] == list(range(46))
    # A snapshot knows the rate of the update that comes next, at the ends of epochs too.
    assert [snapshot.learning_rate for snapshot in kept[:-1]] == pytest.approx(of_updates)


def test_without_patience_the_rate_stays(run, problem):
    result, _ = train_scripted(replace(run, epochs=6), problem, losses=[1.0] * 7)
    assert {record.learning_rate for record in result.history} == {run.learning_rate}
    assert result.ended == "finished"


def test_training_stops_where_the_validation_accuracy_is_no_better_for_long(run, problem):
    accuracies = [0.9, 0.2, 0.3, 0.3, 0.31, 0.31, 0.1, 0.99, 0.99]  # no better in epochs 5 and 6
    run = replace(run, stop_patience=2, epochs=8)
    result, kept = train_scripted(run, problem, planned_steps=range(41), accuracies=accuracies)
    assert result.ended == "stopped"
    assert [record.epoch for record in result.history] == list(range(7))
    assert result.last.step == 6 * STEPS_PER_EPOCH
    assert [snapshot.step for snapshot in kept] == list(range(6 * STEPS_PER_EPOCH + 1))


# Divergence


@pytest.mark.parametrize("planned", [range(51), [0, 5, 10, 15], [], [3]])
@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_a_run_that_diverges_ends_with_a_row_that_says_so_and_keeps_only_what_is_finite(run, problem, l2, planned):
    run = replace(run, learning_rate=1e6, momentum=0.9, l2=l2, epochs=10)
    plain, dataset = problem("residual", dtype=torch.float32), dataset_of(problem)

    result, kept = train(run, plain, dataset, planned_steps=planned)

    assert result.ended == "diverged"
    assert [record.diverged for record in result.history] == [False] * (len(result.history) - 1) + [True]
    assert math.isnan(result.history[-1].validation_accuracy)
    assert math.isnan(result.history[-1].test_accuracy)
    assert len(result.history) <= 10
    for snapshot in [*kept, result.best, result.last]:
        assert torch.isfinite(snapshot.weights).all()
        assert torch.isfinite(snapshot.buffers).all()
    assert result.last.step == result.history[-2].step
    assert [snapshot.step for snapshot in kept] == sorted(planned)[: len(kept)]
    # Every planned step up to the last finite epoch was handed over.
    assert {step for step in planned if step <= result.last.step} <= {snapshot.step for snapshot in kept}


# Directions


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_directions_are_found_at_the_start_of_every_epoch_from_the_first_on(run, problem, momentum):
    run = replace(run, gamma=0.1, **SEARCH, epochs=4, momentum=momentum)
    plain, dataset = problem("batch_norm", dtype=torch.float32), dataset_of(problem)
    asked = []

    def find(weights, buffers):
        asked.append((weights.clone(), buffers.clone()))
        return replace(directions_in(len(weights), seed=len(asked)), num_products=len(asked), residual=len(asked) / 8)

    result, kept = train(run, plain, dataset, planned_steps=[0, 5, 10, 15], find_directions=find)

    assert len(asked) == 4
    for (weights, buffers), snapshot in zip(asked, kept, strict=True):
        assert torch.equal(weights, snapshot.weights)
        assert torch.equal(buffers, snapshot.buffers)
    assert [record.direction_products for record in result.history] == [0, 1, 2, 3, 4]
    assert [record.direction_residual for record in result.history[1:]] == [1 / 8, 2 / 8, 3 / 8, 4 / 8]


@pytest.mark.parametrize(("gamma", "gamma_outside"), [(0.0, 1.0), (1.0, 0.0)])
def test_what_is_removed_does_not_move_within_an_epoch(run, problem, gamma, gamma_outside):
    run = replace(run, gamma=gamma, gamma_outside=gamma_outside, **SEARCH)
    plain, dataset = problem("conv"), dataset_of(problem, torch.float64)
    found = []

    def find(weights, _):
        found.append(directions_in(len(weights), seed=len(found), dtype=torch.float64))
        return found[-1]

    _, kept = train(run, plain, dataset, planned_steps=[0, 5, 10, 15], find_directions=find)

    for begin, end, directions in zip(kept[:-1], kept[1:], found, strict=True):
        moved = end.weights - begin.weights
        inside = directions.rows.T @ directions.rows @ moved
        still = inside if gamma == 0 else moved - inside
        assert still.norm() < 1e-12 < 1e-4 < moved.norm()


def test_a_nudged_run_without_a_search_for_directions_is_refused(run, problem):
    run = replace(run, gamma=0.1, **SEARCH)
    with pytest.raises(ValueError, match="find_directions"):
        train(run, problem("conv", dtype=torch.float32), dataset_of(problem))


def test_a_snapshot_is_a_copy(run, problem):
    plain, dataset = problem("batch_norm", dtype=torch.float32), dataset_of(problem)
    descent = Descent(Loss(plain.model, l2=0.0), *flatten(plain.model), learning_rate=0.1, momentum=0.9)
    snapshot = descent.snapshot(0)
    for batch in batches_of(run, dataset):
        descent.step(*batch, None, **PLAIN)
    assert torch.equal(snapshot.weights, flatten(plain.model)[0])
    assert torch.equal(snapshot.buffers, flatten(plain.model)[1])
    assert not torch.equal(snapshot.buffers, descent.buffers)
