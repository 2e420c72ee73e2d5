"""The tracker: eigenvalues of dense Hessians along a training, which it does not change by a bit."""

import copy
import csv
import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sharpness import load_pairs
from sharpness.tracking.tracker import CurvatureTracker

NUM_EXAMPLES, CLASSES = 60, 3


def network(seed=0):
    """A small network with everything that a training changes: batch norm, dropout."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, CLASSES))


@pytest.fixture
def examples():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(NUM_EXAMPLES, 4, generator=generator)
    return inputs, (inputs[:, 0] * 2).round().clamp(-1, 1).long() + 1


def dense_hessian(model, inputs, targets):
    """Of the loss in evaluation mode, by torch alone in double precision."""
    model = copy.deepcopy(model).double().eval()
    shapes = {name: weight.shape for name, weight in model.named_parameters()}

    def loss(weights):
        parts = weights.split([shape.numel() for shape in shapes.values()])
        state = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return functional.cross_entropy(torch.func.functional_call(model, state, inputs.double()), targets)

    return torch.autograd.functional.hessian(loss, nn.utils.parameters_to_vector(model.parameters()))


def train(model, examples, optimizer, steps, after_step):
    inputs, targets = examples
    for _ in range(steps):
        batch = torch.randint(0, NUM_EXAMPLES, (16,))
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
        optimizer.step()
        after_step()


EXAMPLES = {"inputs": torch.ones(5, 4)}


def own_loss(model, batch):
    return model(batch["inputs"]).square().sum(), len(batch["inputs"])


CAREFUL = {"tolerance": 1e-3, "renew_residual": 0.01, "products": math.inf, "follow_products": 20, "probe_every": 1}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, CAREFUL], ids=["as usual", "careful"])
def test_tracked_eigenvalues_are_those_of_dense_hessians_along_a_training(examples, settings):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.5)
    tracker = CurvatureTracker(model, examples, None, optimizer, every=5, num_pairs=3, **settings)

    def compare():
        record = tracker.step()
        if record is None:
            return
        dense = torch.linalg.eigvalsh(dense_hessian(model, *examples)).flip(0)
        largest = float(dense.abs().max())
        for value, residual in zip(record.eigenvalues, record.residuals, strict=True):
            # What the residual promises: some eigenvalue is this close, relative to the largest that was found.
            assert float((dense - value).abs().min()) <= residual * record.eigenvalues[0] + 1e-5 * largest
        if settings or record.complete:
            found = torch.tensor(record.eigenvalues, dtype=torch.float64)
            torch.testing.assert_close(found, dense[:3], rtol=0, atol=max(*record.residuals, 1e-4) * largest)
        assert record.stable_below == pytest.approx(2 * 1.5 / 0.2)
        assert record.rate_limit == pytest.approx(3)
        assert record.rate_times_eigenvalue == pytest.approx(0.2 * record.eigenvalues[0])

    train(model, examples, optimizer, 100, compare)
    model.load_state_dict(network(seed=7).state_dict())  # a jump: nothing is left to follow
    train(model, examples, optimizer, 100, compare)

    assert len(tracker.history) == 40
    ways = [record.found_by.partition(":")[0] for record in tracker.history]
    assert set(ways) >= {"first search", "followed"}
    assert ways.count("followed") > 20
    if settings:
        assert "search" in ways
    else:
        later = [record.num_products for record in tracker.history[1:]]
        assert sum(later) <= 6.25 * len(later)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_adaptive_optimizers_are_tracked_by_their_preconditioned_hessian(examples, kind):
    model, (inputs, targets) = network(), examples
    model[4].bias.requires_grad_(False)  # not trained: no part of the Hessian
    optimizer = kind([weight for weight in model.parameters() if weight.requires_grad], lr=0.01)
    loader = [(inputs[:25], targets[:25]), (inputs[25:], targets[25:])]
    tracker = CurvatureTracker(model, loader, nn.CrossEntropyLoss(), optimizer, **CAREFUL, precision="float64")
    with pytest.raises(ValueError, match="let it take a step first"):
        tracker.measure()
    train(model, examples, optimizer, 20, tracker.step)

    record = tracker.measure()

    diagonal = []
    for weight in optimizer.param_groups[0]["params"]:
        state = optimizer.state[weight]
        square = state["square_avg"] if kind is torch.optim.RMSprop else state["exp_avg_sq"] / (1 - 0.999**20)
        diagonal.append(square.double().sqrt().reshape(-1) + 1e-8)
    root = torch.cat(diagonal).rsqrt()
    trained = [weight.requires_grad for weight in model.parameters()]
    kept = torch.cat([torch.full([w.numel()], t) for w, t in zip(model.parameters(), trained, strict=True)])
    dense = dense_hessian(model, inputs, targets)[kept][:, kept] * root * root[:, None]
    values = torch.linalg.eigvalsh(dense).flip(0)
    assert record.eigenvalues == pytest.approx(values[:2].tolist(), rel=1e-3)
    if kind is not torch.optim.RMSprop:
        decay = 0.01 * 1e-2 if kind is torch.optim.AdamW else 0
        assert record.rate_limit == pytest.approx(38 * (1 - decay / 2))


DIVIDED_DECAY = [torch.optim.Adam, torch.optim.NAdam, torch.optim.RMSprop, torch.optim.Adagrad]


@pytest.mark.parametrize("kind", DIVIDED_DECAY)
def test_a_decay_that_is_divided_is_tracked_as_a_penalty_of_the_loss(examples, kind):
    """As the refusal advises: the steps are the same, and the eigenvalues those that they see."""
    decay, (inputs, targets) = 0.3, examples

    def penalised(model, batch):
        values, classes = batch["inputs"], batch["classes"]
        penalty = decay / 2 * sum(weight.square().sum() for weight in model.parameters())
        return functional.cross_entropy(model(values), classes, reduction="sum") + len(classes) * penalty, len(classes)

    decayed, model = network().double(), network().double()
    with pytest.raises(ValueError, match=r"weight_decay=0 and a loss with the penalty 0\.3 / 2 Σ w², in the tracker"):
        CurvatureTracker(decayed, examples, None, kind(decayed.parameters(), lr=0.01, weight_decay=decay))
    optimizers = [kind(decayed.parameters(), lr=0.01, weight_decay=decay), kind(model.parameters(), lr=0.01)]
    batch = {"inputs": inputs.double(), "classes": targets}
    tracker = CurvatureTracker(model, batch, penalised, optimizers[1], **CAREFUL, precision="float64")
    for _ in range(10):
        for network_, optimizer in zip((decayed, model), optimizers, strict=True):
            optimizer.zero_grad()
            loss = functional.cross_entropy(network_.eval()(batch["inputs"]), targets)
            (loss if network_ is decayed else penalised(model, batch)[0] / NUM_EXAMPLES).backward()
            optimizer.step()
    for one, other in zip(decayed.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other)

    record = tracker.measure()

    diagonal = []
    for weight in decayed.parameters():
        state = optimizers[0].state[weight]
        if kind is torch.optim.Adagrad:
            diagonal.append(state["sum"].sqrt().reshape(-1) + 1e-10)
            continue
        square = state["square_avg"] if kind is torch.optim.RMSprop else state["exp_avg_sq"] / (1 - 0.999**10)
        diagonal.append(square.sqrt().reshape(-1) + 1e-8)
    root = torch.cat(diagonal).rsqrt()
    dense = dense_hessian(decayed, inputs, targets)
    dense = (dense + decay * torch.eye(len(dense), dtype=torch.float64)) * root * root[:, None]
    assert record.eigenvalues == pytest.approx(torch.linalg.eigvalsh(dense).flip(0)[:2].tolist(), rel=1e-3)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("share", [0.25, 0.0])
def test_groups_with_rates_of_their_own_are_tracked_by_the_hessian_that_their_steps_see(examples, kind, share):
    model = network()
    first, *others = model.parameters()
    optimizer = kind([{"params": [first], "lr": 0.04 * share}, {"params": others}], lr=0.04, weight_decay=0.0)
    tracker = CurvatureTracker(model, examples, None, optimizer, **CAREFUL, precision="float64")
    train(model, examples, optimizer, 20, tracker.step)

    record = tracker.measure()

    factors = []
    for weight in model.parameters():
        state = optimizer.state[weight]
        square = state["exp_avg_sq"].double() / (1 - 0.999**20) if kind is torch.optim.AdamW else None
        divided = torch.ones_like(weight) if square is None else square.sqrt() + 1e-8
        factors.append(((share if weight is first else 1) / divided.double()).sqrt().reshape(-1))
    root = torch.cat(factors)
    values = torch.linalg.eigvalsh(dense_hessian(model, *examples) * root * root[:, None]).flip(0)
    assert record.eigenvalues == pytest.approx(values[:2].tolist(), rel=1e-3)
    assert record.learning_rate == 0.04
    assert record.rate_limit == pytest.approx(2 if kind is torch.optim.SGD else 38)


def dense_hessian_of_batch_statistics(model, inputs, targets):
    """Of the loss with batch norm in training mode, without dropout, by torch alone in double precision."""
    model = copy.deepcopy(model).double().train()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.eval()
    names, start = zip(*model.named_parameters(), strict=True)

    def loss(*weights):
        state = dict(zip(names, weights, strict=True))
        return functional.cross_entropy(torch.func.functional_call(model, state, inputs.double()), targets)

    blocks = torch.autograd.functional.hessian(loss, start)
    rows = [
        torch.cat([block.reshape(weight.numel(), -1) for block in row], dim=1)
        for row, weight in zip(blocks, start, strict=True)
    ]
    return torch.cat(rows)


def test_batch_statistics_are_those_of_the_training_that_adam_divides_by(examples):
    """A bias before batch norm has no gradient in training, so that D is almost zero there."""
    model, (inputs, targets) = network(), examples
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    settings = {**CAREFUL, "precision": "float64"}
    tracker = CurvatureTracker(model, examples, None, optimizer, batch_statistics=True, **settings)
    train(model, examples, optimizer, 20, tracker.step)

    record = tracker.measure()

    squares = [optimizer.state[weight]["exp_avg_sq"].double() / (1 - 0.999**20) for weight in model.parameters()]
    root = torch.cat([(square.sqrt() + 1e-8).rsqrt().reshape(-1) for square in squares])
    dense = dense_hessian_of_batch_statistics(model, inputs, targets) * root * root[:, None]
    values = torch.linalg.eigvalsh(dense).flip(0)
    assert record.eigenvalues == pytest.approx(values[:2].tolist(), rel=1e-3)
    assert record.rate_times_eigenvalue < record.rate_limit
    in_evaluation = CurvatureTracker(model, examples, None, optimizer, **settings).measure()
    assert in_evaluation.rate_times_eigenvalue > 10 * in_evaluation.rate_limit


def test_the_limit_of_rates_by_group_is_where_full_batch_steps_begin_to_grow(examples):
    """On a quadratic, linear regression, at 0.98 and 1.02 times the limit."""
    inputs = examples[0].flatten(1)[:, :4].double()
    for over, grows in ((0.98, False), (1.02, True)):
        model = nn.Linear(4, 1).double()
        data = inputs, torch.zeros(len(inputs), 1, dtype=torch.float64)
        rates = {"weight": 1.0, "bias": 0.1}
        groups = [{"params": [weight], "lr": rates[name]} for name, weight in model.named_parameters()]
        optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.5)
        tracker = CurvatureTracker(
            model, data, nn.MSELoss(), optimizer, num_pairs=1, tolerance=1e-6, precision="float64"
        )
        record = tracker.measure()
        factor = over * record.rate_limit / record.rate_times_eigenvalue
        for group in optimizer.param_groups:
            group["lr"] *= factor
        losses = []
        for _ in range(800):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(data[0]), data[1])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert (losses[-1] > 100 * losses[0]) == grows
        assert (losses[-1] < losses[0]) != grows


def states():
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def everything(model, optimizer):
    """All that a step of a training leaves behind, as bytes."""
    tensors = [*model.parameters(), *model.buffers(), *(weight.grad for weight in model.parameters())]
    tensors += [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    bits = [tensor.detach().numpy().tobytes() for tensor in tensors]
    of_torch, of_python, of_numpy = states()
    modes = [layer.training for layer in model.modules()]
    return bits, modes, of_torch.numpy().tobytes(), of_python, of_numpy[1].tobytes(), of_numpy[2]


@pytest.mark.parametrize("batch_sharpness", [0, 2])
def test_a_training_with_the_tracker_has_the_same_bits_as_without(examples, batch_sharpness):
    left = []
    for tracked in (False, True):
        model = network()
        random.seed(3)
        np.random.seed(3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, nesterov=True)
        trace = []
        tracker = None
        if tracked:
            tracker = CurvatureTracker(
                model, examples, None, optimizer, every=3, batch_sharpness=batch_sharpness, batch_size=20, probe_every=2
            )
            tracker.measure()

        def after(tracker=tracker, model=model, optimizer=optimizer, trace=trace):
            if tracker is not None:
                tracker.step()
            trace.append(everything(model, optimizer))

        train(model, examples, optimizer, 30, after)
        left.append(trace)

    assert left[0] == left[1]


def test_batch_sharpness_is_the_mean_curvature_along_the_batches_own_gradients(examples):
    model = network().eval()
    inputs, targets = examples
    tracker = CurvatureTracker(model, examples, batch_sharpness=3, batch_size=20, every=1, seed=5)

    record = tracker.measure()

    generator = torch.Generator().manual_seed(5)
    # The search draws first; its draws are repeated by another tracker without mini-batches.
    other = CurvatureTracker(model, examples, every=1, seed=5)
    other.measure()
    generator.set_state(other._generator.get_state())
    double = copy.deepcopy(model).double()
    weights = list(double.parameters())
    curvatures = []
    for _ in range(3):
        chosen = torch.randperm(NUM_EXAMPLES, generator=generator)[:20]
        loss = functional.cross_entropy(double(inputs[chosen].double()), targets[chosen])
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        fixed = [gradient.detach() for gradient in gradients]
        inner = sum((gradient * held).sum() for gradient, held in zip(gradients, fixed, strict=True))
        images = torch.autograd.grad(inner, weights)
        squares = sum(held.square().sum() for held in fixed)
        curvatures.append(float(sum((a * b).sum() for a, b in zip(images, fixed, strict=True)) / squares))
    assert record.batch_sharpness == pytest.approx(np.mean(curvatures), rel=1e-4)
    assert record.batch_sharpness_error == pytest.approx(np.std(curvatures, ddof=1) / math.sqrt(3), rel=1e-3)
    assert record.num_products == other.history[0].num_products + 3


def test_a_mini_batch_without_a_gradient_or_without_a_label_has_no_batch_sharpness():
    inputs, zeros = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(40, 1)
    fitted = nn.Linear(4, 1, bias=False)
    nn.init.zeros_(fitted.weight)
    settings = {"batch_sharpness": 4, "batch_size": 2, "num_pairs": 1}
    record = CurvatureTracker(fitted, (inputs, zeros), nn.MSELoss(), **settings).measure()
    assert math.isnan(record.batch_sharpness)
    assert math.isfinite(record.eigenvalues[0])

    labels = torch.full((40,), -100)
    labels[:5] = torch.tensor([0, 1, 2, 0, 1])
    record = CurvatureTracker(network(), (inputs, labels), **settings).measure()
    assert math.isnan(record.batch_sharpness)
    assert math.isfinite(record.eigenvalues[0])


def test_followed_pairs_say_what_they_are_of_as_searched_ones_do(tmp_path, examples):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = CurvatureTracker(model, examples, None, optimizer, every=1)
    of_search = [tracker.measure(), tracker.pairs.provenance][1]

    record = tracker.measure()

    assert record.found_by == "followed"
    tracker.pairs.save(tmp_path / "pairs.safetensors")
    kept = load_pairs(tmp_path / "pairs.safetensors").provenance
    assert kept == of_search
    assert kept["parameters"] == {name: list(weight.shape) for name, weight in model.named_parameters()}
    assert kept["num_examples"] == NUM_EXAMPLES
    assert kept["versions"]["torch"] == torch.__version__


def test_batch_sharpness_takes_one_batch_for_a_loss_of_ones_own(examples):
    def own(model, batch):
        return functional.cross_entropy(model(batch["inputs"]), batch["classes"], reduction="sum"), batch[
            "inputs"
        ].shape[0]

    batch = dict(zip(("inputs", "classes"), examples, strict=True))
    settings = {"batch_sharpness": 3, "batch_size": 20, "precision": "float64"}
    one = CurvatureTracker(network(), examples, **settings).measure()
    other = CurvatureTracker(network(), batch, own, **settings).measure()
    assert other.batch_sharpness == pytest.approx(one.batch_sharpness, rel=1e-9)


class Scalars:
    """A writer with TensorBoard's method, which keeps what it is told."""

    def __init__(self):
        self.told = {}

    def add_scalar(self, tag, scalar_value, global_step):
        self.told[tag, global_step] = scalar_value


def test_records_go_to_csv_tensorboard_and_functions(tmp_path, examples):
    model, scalars, records = network(), Scalars(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    path = tmp_path / "new" / "curvature.csv"
    tracker = CurvatureTracker(model, examples, None, optimizer, every=2, to=[path, scalars, records.append])

    train(model, examples, optimizer, 6, tracker.step)

    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    assert records == tracker.history
    for row, record in zip(rows, records, strict=True):
        assert [float(row[f"eigenvalue_{rank}"]) for rank in range(2)] == list(record.eigenvalues)
        assert int(row["num_products"]) == record.num_products > 0
        assert float(row["cpu_seconds"]) > 0
        assert scalars.told["curvature/eigenvalue_1", record.step] == record.eigenvalues[1]
        assert scalars.told["curvature/stable_below", record.step] == pytest.approx(20)
        assert row["batch_sharpness"] == ""
    assert ("curvature/batch_sharpness", 2) not in scalars.told


def test_tensorboards_own_writer_takes_the_records(tmp_path, examples):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        CurvatureTracker(network(), examples, to=writer).measure()
    assert any(tmp_path.iterdir())


def test_a_diverged_training_is_recorded_and_a_later_measurement_starts_anew(examples):
    model = network()
    tracker = CurvatureTracker(model, examples, every=1)
    tracker.measure()
    kept = copy.deepcopy(model.state_dict())
    model[0].weight.data[0, 0] = math.inf

    record = tracker.measure()

    assert record.found_by == "diverged"
    assert all(map(math.isnan, record.eigenvalues))
    assert tracker.pairs is None
    model.load_state_dict(kept)
    again = tracker.measure()
    assert again.found_by == "first search"
    assert again.eigenvalues == pytest.approx(tracker.history[0].eigenvalues, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"every": 0}, ValueError, "every must be at least 1, got 0"),
        ({"every": 2.5}, TypeError, "every must be a whole number, got 2.5"),
        ({"num_pairs": 0}, ValueError, "num_pairs must be at least 1"),
        ({"num_pairs": 64}, ValueError, "num_pairs must be at most 63, the number of weights that have rows, got 64"),
        ({"follow_products": 1}, ValueError, "follow_products must be at least 2"),
        ({"products": 1.5}, ValueError, "products must be a number of at least num_pairs=2, got 1.5"),
        ({"batch_sharpness": 4}, ValueError, "batch_sharpness needs batch_size"),
        ({"batch_sharpness": 1, "batch_size": 8}, ValueError, "at least 2 mini-batches"),
        ({"batch_sharpness": 2, "batch_size": 61}, ValueError, "batch_size must be at most 60"),
        ({"to": "curvature.txt"}, ValueError, r"curvature.txt must end in .csv"),
        ({"to": 3}, TypeError, "to must be a path that ends in .csv"),
        ({"to": [None]}, TypeError, "to must be a path that ends in .csv"),
        (
            {"data": [EXAMPLES, EXAMPLES], "loss": own_loss, "batch_sharpness": 2, "batch_size": 4},
            ValueError,
            "or for a loss of one's own as one batch of tensors, in memory",
        ),
        ({"renew_residual": -1}, ValueError, "renew_residual must be finite and not negative"),
    ],
)
def test_a_wrong_setting_is_refused_in_a_sentence(examples, settings, kind, said):
    with pytest.raises(kind, match=said):
        CurvatureTracker(network(), **({"data": examples} | settings))


def test_an_existing_file_is_not_written_over(tmp_path, examples):
    path = tmp_path / "curvature.csv"
    path.write_text("mine\n", encoding="utf-8")
    with pytest.raises(FileExistsError, match="exists, perhaps from another training"):
        CurvatureTracker(network(), examples, to=path)
    assert path.read_text(encoding="utf-8") == "mine\n"


def test_data_in_two_arguments_are_refused_in_a_sentence(examples):
    model, (inputs, targets) = network(), examples
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    said = r"data is one argument, \(inputs, targets\): give CurvatureTracker\(model, \(inputs, targets\), loss, optim"
    for given in ((), (nn.CrossEntropyLoss(),), (nn.CrossEntropyLoss(), optimizer)):
        with pytest.raises(TypeError, match=said):
            CurvatureTracker(model, inputs, targets, *given)


def test_at_a_rate_of_zero_there_is_no_limit_of_the_rate_times_the_eigenvalue(tmp_path, examples):
    model = network()
    path = tmp_path / "curvature.csv"
    record = CurvatureTracker(model, examples, None, torch.optim.SGD(model.parameters(), lr=0.0), to=path).measure()
    assert (record.learning_rate, record.rate_times_eigenvalue, record.rate_limit) == (0, 0, None)
    with path.open(encoding="utf-8") as file:
        assert next(csv.DictReader(file))["rate_limit"] == ""


KINDS = [torch.optim.SGD, torch.optim.Adam]


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimizer_of_other_weights_than_those_with_rows_is_refused_by_name(examples, kind):
    model = network()
    of_last, of_all = kind(model[4].parameters(), lr=0.1), kind(model.parameters(), lr=0.1)
    for optimizer, parameters, said in (
        (of_last, "trained", "does not train 0.weight, which has rows: give parameters .* such as '4.bias'"),
        (of_last, ["1.*", "4.*"], "does not train 1.weight, which has rows"),
        (
            kind(network().parameters(), lr=0.1),
            "trained",
            r"of shape \[6, 4\] that the model does not have",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            CurvatureTracker(model, examples, None, optimizer, parameters=parameters)
    CurvatureTracker(model, examples, None, of_last, parameters="4.*")
    # A block of what is trained may be asked for by its names.
    if kind is torch.optim.SGD:
        record = CurvatureTracker(model, examples, None, of_all, **CAREFUL, parameters="4.*").measure()
        block = torch.linalg.eigvalsh(dense_hessian(model, *examples)[-21:, -21:]).flip(0)
        assert record.eigenvalues == pytest.approx(block[:2].tolist(), rel=2e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parameters", ["trained", "4.*"])
def test_frozen_weights_in_the_optimizer_have_no_part_in_it(examples, kind, parameters):
    model = network()
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith("4."))
    optimizer = kind(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"0\.weight has rows but requires no gradient: give parameters='trained'"):
        CurvatureTracker(model, examples, None, optimizer, parameters="*")
    tracker = CurvatureTracker(model, examples, None, optimizer, **CAREFUL, parameters=parameters)
    train(model, examples, optimizer, 3, tracker.step)

    record = tracker.measure()

    dense = dense_hessian(model, *examples)[-21:, -21:]
    if kind is torch.optim.Adam:
        squares = [optimizer.state[weight]["exp_avg_sq"].double() / (1 - 0.999**3) for weight in model[4].parameters()]
        root = torch.cat([(square.sqrt() + 1e-8).rsqrt().reshape(-1) for square in squares])
        dense = dense * root * root[:, None]
    values = torch.linalg.eigvalsh(dense).flip(0)
    assert record.eigenvalues == pytest.approx(values[:2].tolist(), rel=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_trained_or_frozen_later_are_refused_by_name(examples, kind):
    model = network()
    model[0].requires_grad_(False)
    optimizer = kind([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    tracker = CurvatureTracker(model, examples, None, optimizer)
    train(model, examples, optimizer, 1, tracker.measure)
    model[0].requires_grad_(True)
    tracker.measure()  # still not trained
    optimizer.add_param_group({"params": [model[0].weight]})
    with pytest.raises(ValueError, match=r"trains 0\.weight, which has no rows: .* make a new tracker"):
        tracker.measure()
    model[0].requires_grad_(False)
    tracker.measure()
    model[4].bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"4\.bias has rows but requires no gradient: .* make a new tracker"):
        tracker.measure()
