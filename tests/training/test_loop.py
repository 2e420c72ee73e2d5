"""Training: torch's own SGD on the same batches, the nudged updates written out, and what a run leaves behind."""

import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional
from training_cases import dataset_of, digits, of_digits

from sharpness.data.datasets import Split, epoch_order
from sharpness.hessian.loss import Evaluation, Loss, flatten
from sharpness.runtime.streams import stream
from sharpness.training.descent import Descent
from sharpness.training.loop import Trainer
from sharpness.training.progress import Directions

pytestmark = pytest.mark.usefixtures("unmoved_global_generator")

STEPS_PER_EPOCH = 5
SEARCH = {"num_directions": 2, "direction_examples": 5, "direction_tolerance": 0.1, "direction_products": 9}
NUDGED = {**SEARCH, "gamma": 0.1}
PLAIN = {"gamma": 1.0, "gamma_outside": 1.0}


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
    return Directions(rows=rows, num_products=17, residual=0.004, trace=30.0, trace_elsewhere=25.0, trace_error=1.5)


def training_of(run, plain, dataset, **settings):
    """A run of the plain model."""
    given = {"planned_steps": [], "keep": nothing, "find_directions": None, "num_evaluated": 10, **settings}
    given |= {"loss": Loss(plain.model, l2=run.l2)} if "loss" not in settings else {}
    weights, buffers = flatten(plain.model)
    given["planned_steps"] = frozenset(given["planned_steps"])
    return Trainer(run=run, dataset=dataset, weights=weights, buffers=buffers, **given)


def nothing(_): ...


def train(run, plain, dataset, **settings):
    """Train, and gather what is kept."""
    kept = []
    training = training_of(run, plain, dataset, keep=kept.append, **settings)
    progress = training.begin()
    training.resume(progress)
    assert torch.equal(training.weights, flatten(plain.model)[0])
    assert torch.equal(training.buffers, flatten(plain.model)[1])
    return progress, kept


def bits(snapshot):
    """A snapshot as a value that is equal to the bit or not at all."""
    return snapshot.step, snapshot.learning_rate, snapshot.weights.numpy().tobytes(), snapshot.buffers.numpy().tobytes()


def outcome(progress, kept):
    """All that comes out of a run, to the bit; a snapshot that was handed over twice counts once."""
    velocity = progress.descent.velocity
    return {
        "history": repr(progress.history),  # its not-a-numbers are equal as words
        "ended": progress.ended,
        "best": bits(progress.best),
        "last": bits(progress.last),
        "velocity": None if velocity is None else velocity.numpy().tobytes(),
        "kept": list(dict.fromkeys(bits(snapshot) for snapshot in kept)),
    }


@pytest.fixture
def num_threads():
    """Sets the number of threads, for this test only."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def same(one, other):
    tensors = (one.weights, other.weights), (one.buffers, other.buffers)
    return one.step == other.step and all(torch.equal(ours, theirs) for ours, theirs in tensors)


class Scripted:
    """In place of a loss: evaluations written down beforehand, one of each kind for every epoch from 0 on.

    The losses of the mini-batches are written down by the number of their update; they are one where nothing is.
    """

    def __init__(self, dataset, *, losses=None, accuracies=None, batch_losses=None, length=20):
        self._validation = dataset.validation.inputs
        self._losses, self._accuracies = iter(losses or [1.0] * length), iter(accuracies or [0.5] * length)
        self._batch_losses = batch_losses or {}
        self.num_updates = 0

    def value_and_gradient(self, weights, *_, training, low_precision):
        assert training
        assert not low_precision
        self.num_updates += 1
        return torch.tensor(self._batch_losses.get(self.num_updates - 1, 1.0)), torch.ones_like(weights)

    def evaluate(self, _weights, _buffers, inputs, _targets):
        if inputs is not self._validation:
            return Evaluation(torch.tensor(1.0), torch.tensor(0.5))
        return Evaluation(torch.tensor(next(self._losses)), torch.tensor(next(self._accuracies)))


def train_scripted(run, problem, planned_steps=(), evaluation_epochs=(), **script):
    """Train four weights, all zero at first; the gradient is one everywhere."""
    dataset, kept = dataset_of(problem, num_training=run.num_training), []
    training = Trainer(
        run=run,
        loss=Scripted(dataset, **script),
        dataset=dataset,
        weights=torch.zeros(4),
        buffers=torch.zeros(0),
        planned_steps=frozenset(planned_steps),
        keep=kept.append,
        find_directions=None,
        num_evaluated=10,
        evaluation_epochs=frozenset(evaluation_epochs),
    )
    progress = training.begin()
    training.resume(progress)
    return progress, kept


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

    progress, _ = train(run, plain, dataset)

    assert progress.last.step == 3 * STEPS_PER_EPOCH
    torch.testing.assert_close(progress.last.weights, weights, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(progress.last.buffers, buffers, rtol=1e-10, atol=1e-12)


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
    progress, _ = train(run, plain, dataset)
    assert progress.last.step == 4
    torch.testing.assert_close(progress.last.weights, weights, rtol=1e-10, atol=1e-12)


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
        def value_and_gradient(self, weights, buffers, inputs, targets, **settings):
            seen.append(inputs)
            return super().value_and_gradient(weights, buffers, inputs, targets, **settings)

    train(run, plain, dataset, loss=Watching(plain.model, l2=0.0))
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
    progress, kept = train(run, plain, dataset, planned_steps=[0, 5, 10, 15], num_evaluated=10)
    assert [(record.epoch, record.step) for record in progress.history] == [(0, 0), (1, 5), (2, 10), (3, 15)]
    assert progress.ended == "finished"
    assert all(math.isnan(record.test_accuracy) for record in progress.history)
    tested = training_of(run, plain, dataset).tested(progress)
    assert repr([replace(record, test_accuracy=math.nan) for record in tested]) == repr(progress.history)
    for record, snapshot in zip(tested, kept, strict=True):
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
        if snapshot.step in (progress.best.step, progress.last.step):
            assert record.test_accuracy == pytest.approx(of(dataset.test)[1])
        else:
            assert math.isnan(record.test_accuracy)
        moved = (snapshot.weights - flatten(plain.model)[0]).numpy()
        assert record.distance == pytest.approx(np.sqrt((moved**2).sum()))
        assert record.learning_rate_now == run.learning_rate
        assert not record.diverged
        assert record.num_direction_products == 0
        assert math.isnan(record.direction_residual)
    assert progress.history[0].distance == 0
    assert progress.history[-1].training_loss < progress.history[0].training_loss


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
    progress, kept = train_scripted(run, problem, planned_steps=range(0, 16, 5), accuracies=accuracies)
    assert progress.best.step == best_epoch * STEPS_PER_EPOCH
    assert torch.equal(progress.best.weights, kept[best_epoch].weights)
    assert progress.last.step == 15


# Schedules


def test_the_rate_is_cut_to_a_tenth_where_the_validation_loss_does_not_fall(run, problem):
    # From epoch 1 on; initialisation does not count. A fall of half a ten-thousandth is none.
    losses = [0.1, 1.0, 0.5, 0.49995, 0.5, 0.6, 0.49, 0.49, 0.49, 0.3]
    waits = "        -    -    1        2    1    -     1     2     -"  # cut after epochs 4 and 8
    run = replace(run, learning_rate=1.0, plateau_patience=2, epochs=len(waits.split()))

    progress, kept = train_scripted(run, problem, planned_steps=range(50), losses=losses)

    of_epochs = [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01]
    assert [record.learning_rate_now for record in progress.history] == pytest.approx([1, *of_epochs])
    # The gradient is one everywhere: the weights are minus the sum of the rates of all updates.
    assert progress.last.weights[0].item() == pytest.approx(-STEPS_PER_EPOCH * sum(of_epochs))
    of_updates = [rate for rate in of_epochs for _ in range(STEPS_PER_EPOCH)]
    assert [snapshot.step for snapshot in kept] == list(range(46))
    # A snapshot knows the rate of the update that comes next, at the ends of epochs too.
    assert [snapshot.learning_rate for snapshot in kept[:-1]] == pytest.approx(of_updates)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_rate_is_multiplied_after_each_of_the_listed_epochs(run, problem, factor):
    # The last of them is the end of the run: only the last snapshot knows.
    run = replace(run, learning_rate=1.0, learning_rate_epochs=(1, 4, 6), learning_rate_factor=factor, epochs=6)

    progress, kept = train_scripted(run, problem, planned_steps=range(31))

    of_epochs = [1, factor, factor, factor, factor**2, factor**2]
    assert [record.learning_rate_now for record in progress.history] == pytest.approx([1, *of_epochs])
    assert progress.last.weights[0].item() == pytest.approx(-STEPS_PER_EPOCH * sum(of_epochs))
    of_updates = [rate for rate in of_epochs for _ in range(STEPS_PER_EPOCH)]
    assert [snapshot.learning_rate for snapshot in kept] == pytest.approx([*of_updates, factor**3])
    assert progress.last.learning_rate == pytest.approx(factor**3)


def test_the_listed_epochs_and_the_plateaus_both_change_the_rate(run, problem):
    losses = [1.0, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8, 0.7, 0.7, 0.6]  # no better in epochs 2 and 3, and in 5 and 6
    schedule = {"learning_rate_epochs": (2, 3, 7), "learning_rate_factor": 0.5}
    run = replace(run, learning_rate=1.0, plateau_patience=2, epochs=9, **schedule)

    progress, kept = train_scripted(run, problem, planned_steps=range(0, 46, 5), losses=losses)

    of_epochs = [1, 1, 0.5, 0.025, 0.025, 0.025, 0.0025, 0.00125, 0.00125]
    assert [record.learning_rate_now for record in progress.history] == pytest.approx([1, *of_epochs])
    assert progress.last.weights[0].item() == pytest.approx(-STEPS_PER_EPOCH * sum(of_epochs))
    assert [snapshot.learning_rate for snapshot in kept[:-1]] == pytest.approx(of_epochs)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_velocity_keeps_the_rate_of_its_steps_where_the_rate_changes(run, problem, momentum):
    schedule = {"learning_rate_epochs": (1, 2), "learning_rate_factor": 0.1}
    run = replace(run, momentum=momentum, **schedule)
    plain, dataset = problem("conv"), dataset_of(problem, torch.float64)
    velocity, weights = 0.0, flatten(plain.model)[0]
    for step, (inputs, targets) in enumerate(batches_of(run, dataset)):
        gradient = plain.part(inputs=inputs, targets=targets).gradient(weights)
        # As in Keras, and not in torch, the velocity is made of steps: it keeps the rate at which they were taken.
        velocity = momentum * velocity - run.learning_rate * 0.1 ** (step // STEPS_PER_EPOCH) * gradient
        weights = weights + velocity

    progress, _ = train(run, plain, dataset)

    torch.testing.assert_close(progress.last.weights, weights, rtol=1e-10, atol=1e-12)


def test_without_patience_the_rate_stays(run, problem):
    progress, _ = train_scripted(replace(run, epochs=6), problem, losses=[1.0] * 7)
    assert {record.learning_rate_now for record in progress.history} == {run.learning_rate}
    assert progress.ended == "finished"


def test_training_stops_where_the_validation_accuracy_is_no_better_for_long(run, problem):
    accuracies = [0.9, 0.2, 0.3, 0.3, 0.31, 0.31, 0.1, 0.99, 0.99]  # no better in epochs 5 and 6
    run = replace(run, stop_patience=2, epochs=8)
    progress, kept = train_scripted(run, problem, planned_steps=range(41), accuracies=accuracies)
    assert progress.ended == "stopped"
    assert [record.epoch for record in progress.history] == list(range(7))
    assert progress.last.step == 6 * STEPS_PER_EPOCH
    assert [snapshot.step for snapshot in kept] == list(range(6 * STEPS_PER_EPOCH + 1))


# Divergence


@pytest.mark.parametrize("planned", [range(51), [0, 5, 10, 15], [], [3]])
@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_a_run_that_diverges_ends_with_a_row_that_says_so_and_keeps_only_what_is_finite(run, problem, l2, planned):
    run = replace(run, learning_rate=1e6, momentum=0.9, l2=l2, epochs=10)
    plain, dataset = problem("residual", dtype=torch.float32), dataset_of(problem)

    progress, kept = train(run, plain, dataset, planned_steps=planned)

    assert progress.ended == "diverged"
    assert [record.diverged for record in progress.history] == [False] * (len(progress.history) - 1) + [True]
    assert math.isnan(progress.history[-1].validation_accuracy)
    tested = training_of(run, plain, dataset).tested(progress)
    assert math.isnan(tested[-1].test_accuracy)
    assert not math.isnan(tested[-2].test_accuracy)
    assert len(progress.history) <= 10
    for snapshot in [*kept, progress.best, progress.last]:
        assert torch.isfinite(snapshot.weights).all()
        assert torch.isfinite(snapshot.buffers).all()
    assert progress.last.step == progress.history[-2].step
    assert [snapshot.step for snapshot in kept] == sorted(planned)[: len(kept)]
    # Every planned step up to the last finite epoch was handed over.
    assert {step for step in planned if step <= progress.last.step} <= {snapshot.step for snapshot in kept}


# Every way to be lost: the loss of a mini-batch, and the bound.
LOST = [(math.nan, None), (math.inf, None), (math.nan, 10.0), (math.inf, 10.0), (10.5, 10.0)]


@pytest.mark.parametrize("step", range(5, 10))
@pytest.mark.parametrize(("value", "bound"), LOST)
def test_a_loss_beyond_the_bound_or_not_finite_ends_the_run_in_that_epoch(run, problem, value, bound, step):
    run = replace(run, loss_bound=bound, epochs=6)

    progress, kept = train_scripted(run, problem, planned_steps=range(0, 31, 5), batch_losses={step: value})

    assert progress.ended == "diverged"
    assert [(record.epoch, record.diverged) for record in progress.history] == [(0, False), (1, False), (2, True)]
    assert progress.last.step == STEPS_PER_EPOCH
    assert torch.equal(progress.last.weights, torch.full((4,), -STEPS_PER_EPOCH * run.learning_rate))
    assert [snapshot.step for snapshot in kept] == [0, 5]


def test_a_loss_beyond_the_bound_at_the_first_update_leaves_initialisation(run, problem):
    progress, _ = train_scripted(replace(run, loss_bound=0.5), problem)
    assert progress.ended == "diverged"
    assert [record.diverged for record in progress.history] == [False, True]
    assert progress.last.step == progress.best.step == 0
    assert torch.equal(progress.last.weights, torch.zeros(4))


def test_a_loss_at_the_bound_is_not_beyond_it(run, problem):
    progress, _ = train_scripted(replace(run, loss_bound=10.0), problem, batch_losses={3: 10.0, 14: 10.0})
    assert progress.ended == "finished"
    assert not any(record.diverged for record in progress.history)


@pytest.mark.parametrize("lost_at", [0, 1, 48, 49, 50, 99, 130, 198, 199, 200, 201, 260])
@pytest.mark.parametrize(("value", "bound"), [(math.nan, None), (10.5, 10.0)])
def test_a_run_lost_in_the_middle_of_an_epoch_ends_within_fifty_updates(run, problem, value, bound, lost_at):
    run = replace(run, num_training=200, batch_size=1, loss_bound=bound)
    dataset = dataset_of(problem, num_training=200)
    loss = Scripted(dataset, batch_losses={lost_at: value})

    progress, _ = train(run, problem("conv"), dataset, loss=loss)

    assert progress.ended == "diverged"
    assert lost_at < loss.num_updates <= lost_at + 50
    assert progress.last.step == (0 if lost_at < 200 else 200)


@pytest.mark.parametrize("name", ["conv", "batch_norm"])
def test_a_bound_that_is_not_reached_changes_no_bit(run, problem, name):
    run = replace(run, momentum=0.9, augment=True)
    plain, dataset = problem(name, dtype=torch.float32), dataset_of(problem)
    bounded, free = (
        outcome(*train(replace(run, loss_bound=bound), plain, dataset, planned_steps=range(16)))
        for bound in (1e3, None)
    )
    assert bounded == free


@pytest.mark.parametrize("settings", [{}, {"loss_bound": 1e3}, {"precision": "bfloat16"}, {"batch_size": "full"}])
@pytest.mark.parametrize("name", ["simple_cnn", "resnet8"])
def test_far_too_large_a_rate_is_reported_and_raises_nothing(run, name, settings):
    run = replace(run, num_training=100, learning_rate=10.0, batch_size=20, epochs=8)
    run = replace(run, **settings)

    progress, kept = train(run, of_digits(name), digits(), planned_steps=range(8 * run.steps_per_epoch + 1))

    assert progress.ended == "diverged"
    assert [record.diverged for record in progress.history] == [False] * (len(progress.history) - 1) + [True]
    assert progress.last.step == progress.history[-2].step
    for snapshot in [*kept, progress.best, progress.last]:
        assert torch.isfinite(snapshot.weights).all()


# Low precision


@pytest.mark.parametrize("changes", [{}, {"momentum": 0.9, "augment": True}, NUDGED], ids=str)
@pytest.mark.parametrize("name", ["conv", "batch_norm"])
def test_in_low_precision_a_run_has_the_same_bits_each_time_and_stays_near_the_precise_one(run, problem, name, changes):
    run = replace(run, **changes, precision="bfloat16")
    plain, dataset = problem(name, dtype=torch.float32), dataset_of(problem)

    def trained(run):
        return train(run, plain, dataset, planned_steps=range(16), find_directions=Finder())

    first, kept = trained(run)
    again = trained(run)
    precise, precise_kept = trained(replace(run, precision="float32"))

    assert outcome(first, kept) == outcome(*again)
    tensors = [first.descent.weights, first.descent.velocity, first.descent.buffers, first.last.weights]
    assert {tensor.dtype for tensor in tensors if tensor is not None} == {torch.float32}
    # What is measured is precise in both.
    assert repr(first.history[0]) == repr(precise.history[0])
    first_steps = [one[1].weights - one[0].weights for one in (kept, precise_kept)]
    assert not torch.equal(*first_steps)
    assert (first_steps[0] - first_steps[1]).norm() < 0.03 * first_steps[1].norm()
    difference = (first.last.weights - precise.last.weights).norm().item()
    assert 0 < difference < 0.1 * precise.history[-1].distance


# Pausing


class Paused(Exception):  # noqa: N818 (nothing is wrong)
    """Raised by what is called between updates."""


class Finder:
    """Finds other directions each time: looked for once too often, they would be wrong ones."""

    def __init__(self):
        self.num_searches = 0

    def __call__(self, weights, _buffers):
        self.num_searches += 1
        return directions_in(len(weights), seed=self.num_searches)


KINDS = {
    "plain": ("conv", {}),
    "momentum": ("residual", {"momentum": 0.9, "l2": 0.01}),
    "augmentation": ("conv", {"augment": True}),
    "batch norm": ("batch_norm", {}),
    "low precision": ("conv", {"precision": "bfloat16"}),
    "nudged": ("conv", NUDGED),
    "all": ("batch_norm", {**NUDGED, "momentum": 0.9, "l2": 0.01, "augment": True, "plateau_patience": 1}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_progress_is_whole_between_every_two_updates(run, problem, kind):
    name, changes = KINDS[kind]
    run, plain, dataset = replace(run, **changes), problem(name, dtype=torch.float32), dataset_of(problem)
    _, states = train(run, plain, dataset, planned_steps=range(16), find_directions=Finder())
    seen = []

    def pause(progress):
        step = (progress.epoch - 1) * STEPS_PER_EPOCH + progress.index
        assert bits(progress.descent.snapshot(step)) == bits(states[step])
        assert progress.ended is None
        assert len(progress.history) == progress.epoch
        assert progress.last.step == progress.history[-1].step == (progress.epoch - 1) * STEPS_PER_EPOCH
        assert progress.directions is None or run.is_nudged
        seen.append(((progress.epoch, progress.index), progress.directions is None))

    train(run, plain, dataset, pause=pause, find_directions=Finder())

    # Before the first update of an epoch twice: the search for directions lies between.
    places = [(epoch, index) for epoch in (1, 2, 3) for index in (0, *range(STEPS_PER_EPOCH))]
    assert [place for place, _ in seen] == places
    if run.is_nudged:
        assert [lacking for _, lacking in seen] == ([True] + [False] * STEPS_PER_EPOCH) * 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_paused_anywhere_goes_on_to_the_same_bits(run, problem, kind):
    name, changes = KINDS[kind]
    run, plain, dataset = replace(run, **changes), problem(name, dtype=torch.float32), dataset_of(problem)

    def trained(pauses_at):
        kept, find, number = [], Finder(), itertools.count(1)

        def pause(_):
            if next(number) in pauses_at:
                raise Paused

        training = training_of(
            *(run, plain, dataset), planned_steps=range(16), keep=kept.append, pause=pause, find_directions=find
        )
        progress = training.begin()
        for _ in pauses_at:
            with pytest.raises(Paused):
                training.resume(progress)
            assert progress.ended is None
        training.resume(progress)
        return outcome(progress, kept), find.num_searches

    expected, num_searches = trained([])
    assert num_searches == (3 if run.is_nudged else 0)
    for moment in range(1, 3 * (STEPS_PER_EPOCH + 1) + 1):
        assert trained([moment]) == (expected, num_searches)
    # After every update but the last: going on, it is asked twice before the update at which it was paused.
    assert trained(range(3, 43, 3)) == (expected, num_searches)


def test_a_run_that_has_ended_does_not_go_on(run, problem):
    kept, moments = [], []
    plain, dataset = problem("conv", dtype=torch.float32), dataset_of(problem)
    training = training_of(run, plain, dataset, keep=kept.append, pause=moments.append)
    progress = training.begin()
    training.resume(progress)
    before, num_moments = outcome(progress, kept), len(moments)
    training.resume(progress)
    assert outcome(progress, kept) == before
    assert len(moments) == num_moments


def test_every_row_after_the_first_is_reported_when_it_is_made(run, problem):
    rows = []
    plain, dataset = problem("conv", dtype=torch.float32), dataset_of(problem)
    progress, _ = train(run, plain, dataset, on_record=rows.append)
    assert repr(rows) == repr(progress.history[1:])


# Threads


@pytest.mark.parametrize("name", ["simple_cnn", pytest.param("resnet8", marks=pytest.mark.slow)])
def test_the_number_of_threads_changes_the_last_bits_only(run, num_threads, name):
    run = replace(run, num_training=100, batch_size=50, momentum=0.9)
    trained = {}
    for number in (1, 2):
        num_threads(number)
        trained[number], _ = train(run, of_digits(name), digits())
    one, two = trained[1], trained[2]
    # Sums are taken in another order: rounding of 1e-7, a little grown by six updates. Measured: 7e-7 of the way.
    assert (one.last.weights - two.last.weights).norm() < 1e-5 * one.history[-1].distance
    for ours, theirs in zip(one.history, two.history, strict=True):
        assert ours.training_loss == pytest.approx(theirs.training_loss, rel=1e-5)
        assert ours.validation_accuracy == pytest.approx(theirs.validation_accuracy, abs=0.03)


# Directions


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_directions_are_found_at_the_start_of_every_epoch_from_the_first_on(run, problem, momentum):
    run = replace(run, gamma=0.1, **SEARCH, epochs=4, momentum=momentum)
    plain, dataset = problem("batch_norm", dtype=torch.float32), dataset_of(problem)
    asked = []

    def find(weights, buffers):
        asked.append((weights.clone(), buffers.clone()))
        number = len(asked)
        return replace(
            directions_in(len(weights), seed=number),
            num_products=number,
            residual=number / 8,
            trace_elsewhere=number / 4,
        )

    progress, kept = train(run, plain, dataset, planned_steps=[0, 5, 10, 15], find_directions=find)

    assert len(asked) == 4
    for (weights, buffers), snapshot in zip(asked, kept, strict=True):
        assert torch.equal(weights, snapshot.weights)
        assert torch.equal(buffers, snapshot.buffers)
    assert [record.num_direction_products for record in progress.history] == [0, 1, 2, 3, 4]
    assert [record.direction_residual for record in progress.history[1:]] == [1 / 8, 2 / 8, 3 / 8, 4 / 8]
    assert [record.direction_trace_elsewhere for record in progress.history[1:]] == [1 / 4, 2 / 4, 3 / 4, 4 / 4]
    assert math.isnan(progress.history[0].direction_trace)
    assert progress.history[-1].direction_trace == 30.0


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


@pytest.mark.parametrize("nudged", [{}, NUDGED])
def test_a_run_that_is_evaluated_now_and_then_takes_the_same_steps(run, problem, nudged):
    run = replace(run, **nudged, epochs=6)
    plain, dataset = problem("batch_norm", dtype=torch.float32), dataset_of(problem)

    def trained(**settings):
        finder = Finder()

        def find(weights, buffers):
            found = finder(weights, buffers)
            number = finder.num_searches
            return replace(found, num_products=10**number, residual=(0.3, 0.1, 0.2, 0.1, 0.5, 0.4)[number - 1])

        return train(run, plain, dataset, planned_steps=[0, 4, 5, 20, 30], find_directions=find, **settings)

    (often, all_kept), (seldom, kept) = trained(), trained(evaluation_epochs=frozenset({2, 3, 6}))

    assert [bits(one) for one in kept] == [bits(one) for one in all_kept]
    assert bits(seldom.last) == bits(often.last)
    assert [record.epoch for record in seldom.history] == [0, 2, 3, 6]
    rows = {record.epoch: record for record in often.history}
    for record in seldom.history:
        spent = {
            "num_direction_products": record.num_direction_products,
            "direction_residual": record.direction_residual,
        }
        assert repr(record) == repr(replace(rows[record.epoch], **spent))
    spent = [(record.num_direction_products, record.direction_residual) for record in seldom.history]
    if nudged:
        # All that was spent since the row before, and the worst residual.
        assert spent[1:] == [(110, 0.3), (1000, 0.2), (1110000, 0.5)]
    else:
        assert repr(spent) == repr([(0, float("nan"))] * 4)
    best = max(seldom.history, key=lambda record: record.validation_accuracy)
    assert seldom.best.step == best.step


def test_a_run_that_diverges_between_evaluations_has_a_row_of_that_epoch(run, problem):
    script = {"batch_losses": {STEPS_PER_EPOCH + 2: float("nan")}, "evaluation_epochs": [3]}
    progress, _ = train_scripted(replace(run, epochs=3), problem, **script)

    assert progress.ended == "diverged"
    assert [(record.epoch, record.diverged) for record in progress.history] == [(0, False), (2, True)]
    assert progress.last.step == STEPS_PER_EPOCH
    assert progress.best.step == 0


@pytest.mark.parametrize("evaluation_epochs", [{3}, {1, 3}])
def test_a_search_that_is_lost_after_an_epoch_without_evaluation_gives_it_a_row(run, problem, evaluation_epochs):
    run, find = replace(run, **NUDGED, epochs=3), Finder()
    plain, dataset = problem("conv", dtype=torch.float32), dataset_of(problem)

    def lost(weights, buffers):
        if find.num_searches == 2:
            raise FloatingPointError("product 1 with the operator is not finite")
        return find(weights, buffers)

    settings = {"find_directions": lost, "evaluation_epochs": frozenset(evaluation_epochs)}
    progress, _ = train(run, plain, dataset, **settings)

    assert progress.ended == "diverged"
    rows = [(record.epoch, record.diverged) for record in progress.history]
    assert rows == [(epoch, False) for epoch in (0, 1) if epoch == 0 or epoch in evaluation_epochs] + [(2, True)]


@pytest.mark.parametrize("lost_in", [1, 2, 3])
def test_a_run_whose_curvature_is_not_finite_ends_as_diverged(run, problem, lost_in):
    run = replace(run, **NUDGED)
    plain, dataset = problem("conv", dtype=torch.float32), dataset_of(problem)
    find = Finder()

    def lost(weights, buffers):
        if find.num_searches + 1 == lost_in:
            raise FloatingPointError("product 1 with the operator is not finite")
        return find(weights, buffers)

    unlost, states = train(run, plain, dataset, planned_steps=range(16), find_directions=Finder())
    progress, kept = train(run, plain, dataset, planned_steps=range(16), find_directions=lost)

    assert progress.ended == "diverged"
    # Up to the search it is the same run; the loss of its last row is finite still.
    assert progress.history[-1].diverged
    rows = [*progress.history[:-1], replace(progress.history[-1], diverged=False)]
    assert repr(rows) == repr(unlost.history[:lost_in])
    assert [bits(snapshot) for snapshot in kept] == [bits(state) for state in states[: len(kept)]]
    assert progress.last.step == kept[-1].step == (lost_in - 1) * STEPS_PER_EPOCH


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
