"""On a GPU: the answers of the CPU, the same bits twice, and no wait within a step of training."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from loss_cases import LOSSES
from training_cases import KINDS, dataset_of, digits, of_digits

from sharpness.data import datasets
from sharpness.data.datasets import Dataset, Split
from sharpness.eigen.estimators import trace
from sharpness.eigen.lanczos import follow_eigenpairs, top_eigenpairs
from sharpness.hessian.loss import Loss, flatten
from sharpness.hessian.operator import HessianOperator
from sharpness.hessian.recording import Recorder
from sharpness.runtime.device import choose_device
from sharpness.stages.train_nudged import finder
from sharpness.training.loop import Trainer
from sharpness.training.state import StateFolder

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: torch.cuda.is_available() is false"),
    pytest.mark.usefixtures("unmoved_global_generator", "unmoved_generator_of_the_gpu"),
]

NETWORKS = ["conv", "residual", "batch_norm", "linear"]
SEARCH = {"direction_examples": 20, "direction_tolerance": 0.1, "direction_products": 12}


@pytest.fixture(scope="module")
def gpu():
    return choose_device(threads=1)


@pytest.fixture
def unmoved_generator_of_the_gpu():
    before = torch.cuda.get_rng_state()
    yield
    assert torch.equal(torch.cuda.get_rng_state(), before)


def moved(plain, device):
    """The same problem in the memory of a device."""
    model = copy.deepcopy(plain.model).to(device)
    return replace(plain, model=model, inputs=plain.inputs.to(device), targets=plain.targets.to(device))


def data_on(dataset, device):
    parts = (dataset.training, dataset.validation, dataset.test)
    splits = (Split(part.inputs.to(device), part.targets.to(device)) for part in parts)
    return Dataset(*splits, num_classes=dataset.num_classes)


def operator_of(plain, **settings):
    return HessianOperator(plain.model, plain.inputs, plain.targets, l2=plain.l2, **settings)


# Curvature


@pytest.mark.parametrize("budget", [2**30, 30_000], ids=["kept", "streamed"])
@pytest.mark.parametrize("kind", ["hessian", "ggn", "gradient_covariance"])
@pytest.mark.parametrize("name", ["smoothing and weights", "probabilities", "squares", "binary with weights"])
def test_batches_of_the_cpu_are_moved_and_have_the_curvature_that_they_have_there(
    problem, generator, gpu, name, kind, budget
):
    plain = problem("conv", num_examples=30)
    loss, targets = LOSSES[name]((30, 3), generator)
    batches = list(zip(plain.inputs.split(7), targets.split(7), strict=True))
    settings = {"loss": loss, "curvature": kind, "precision": "float64", "chunk_size": 4}
    expected = HessianOperator(plain.model, plain.inputs, targets, **settings)
    operator = HessianOperator(moved(plain, gpu).model, batches, memory_budget=budget, **settings)
    vector = torch.randn(expected.shape[0], generator=generator, dtype=torch.float64)
    image = expected @ vector
    for _ in range(8):  # from the sixth on it is replayed where it can be
        assert (operator @ vector.to(gpu) - image.to(gpu)).norm() < 1e-11 * image.norm()


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize(
    ("precision", "least", "most"),
    [("float64", 0, 1e-12), ("float32", 1e-8, 1e-5), ("tf32", 1e-8, 0.05), ("bfloat16", 1e-4, 0.05)],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_product_is_that_of_the_dense_hessian(
    problem, generator, gpu, name, precision, least, most, batch_statistics
):
    dtype = torch.float64 if precision == "float64" else torch.float32
    settings = {"num_examples": 30, "l2": 0.05}
    exact = problem(name, **settings).in_torchs_order
    plain = moved(problem(name, dtype=dtype, **settings), gpu)
    if batch_statistics:
        exact.model.train()
    operator = operator_of(
        plain, precision=precision, chunk_size=30 if batch_statistics else 8, batch_statistics=batch_statistics
    )
    dense = exact.hessian(exact.weights)
    before = [value.clone() for value in plain.model.state_dict().values()]
    for _ in range(4):  # from the sixth on by a recording
        vector = torch.randn(len(dense), generator=generator, dtype=torch.float64)
        product = operator @ vector.to(gpu, dtype)
        assert product.device.type == "cuda"
        assert torch.equal(operator @ vector.to(gpu, dtype), product)
        difference = (product.cpu().double() - dense @ vector).norm() / (dense @ vector).norm()
        assert least <= difference <= most
    assert all(torch.equal(one, other) for one, other in zip(before, plain.model.state_dict().values(), strict=True))


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("name", ["simple_cnn", "resnet32"])
def test_products_of_the_networks_are_those_of_the_cpu(generator, gpu, name, precision):
    images = digits().training
    model = of_digits(name).model
    vector = torch.randn(sum(weight.numel() for weight in model.parameters()), generator=generator)
    exact = HessianOperator(model, images.inputs, images.targets, precision="float32") @ vector
    operator = HessianOperator(
        model.to(gpu), images.inputs.to(gpu), images.targets.to(gpu), precision=precision, chunk_size=64
    )
    product = operator @ vector.to(gpu)
    for _ in range(4):  # from the sixth on by a recording
        operator @ torch.ones_like(product)
        assert torch.equal(operator @ vector.to(gpu), product)
    difference = (product.cpu() - exact).norm() / exact.norm()
    assert difference < (1e-5 if precision == "float32" else 0.1)


def test_memory_is_flat_over_products(generator, gpu):
    images = digits().training
    model = of_digits("simple_cnn").model.to(gpu)
    for budget in (2**22, 2**30):  # what does not fit is computed anew
        operator = HessianOperator(
            model, images.inputs.to(gpu), images.targets.to(gpu), chunk_size=25, memory_budget=budget
        )
        vector = torch.randn(operator.shape[0], generator=generator).to(gpu)
        for _ in range(6):  # the sixth is recorded
            operator @ vector
        peaks = []
        for _ in range(4):
            torch.cuda.reset_peak_memory_stats()
            for _ in range(50):
                operator @ vector
            peaks.append((torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated()))
        assert len(set(peaks)) == 1


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float64", 1e-9), ("float32", 1e-3), ("tf32", 1e-3), ("bfloat16", 1e-2)]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_eigenpairs_are_those_of_the_dense_solver(problem, gpu, name, precision, tolerance):
    dtype = torch.float64 if precision == "float64" else torch.float32
    settings = {"num_examples": 30, "l2": 0.05}
    exact = problem(name, **settings).in_torchs_order
    plain = moved(problem(name, dtype=dtype, **settings), gpu)
    dense = exact.hessian(exact.weights)
    values = torch.linalg.eigvalsh(dense).flip(0)
    operator = operator_of(plain, precision=precision, chunk_size=8)

    def solve():
        return top_eigenpairs(
            operator,
            num_pairs=4,
            tolerance=tolerance,
            max_products=150,
            generator=torch.Generator().manual_seed(0),
            probe_products=2,
        )

    pairs, again = solve(), solve()
    assert torch.equal(pairs.eigenvalues, again.eigenvalues)
    assert torch.equal(pairs.eigenvectors, again.eigenvectors)
    assert pairs.converged
    vectors, largest = pairs.eigenvectors.cpu().double(), values.abs().max()
    found = pairs.eigenvalues.cpu().double()
    residuals = (vectors @ dense - found[:, None] * vectors).norm(dim=1) / largest
    assert residuals.max() < tolerance + 1e-5 * (dtype == torch.float32)
    # In single precision a residual of its own rounding may be reported a little off.
    assert (residuals - pairs.residuals.cpu().double()).abs().max() < 1e-12 + 1e-5 * (dtype == torch.float32)
    assert ((found - values[:4]).abs() / largest).max() < 2 * tolerance
    followed = follow_eigenpairs(operator, pairs.eigenvectors, tolerance=tolerance, max_products=20)
    assert followed.residuals.max() <= tolerance


def test_a_trace_is_within_its_error(problem, gpu):
    plain = problem("conv", num_examples=30)
    exact = torch.trace(plain.hessian(flatten(plain.model)[0]))
    operator = operator_of(moved(plain, gpu), precision="float64")
    found = trace(operator, num_products=60, generator=torch.Generator().manual_seed(0))
    assert abs(found.value - float(exact)) < 5 * found.standard_error + 1e-9


# Training


def training_of(run, plain, dataset, device, **settings):
    model, dataset = copy.deepcopy(plain.model).to(device), data_on(dataset, device)
    loss = Loss(model, l2=run.l2)
    weights, buffers = flatten(model)
    given = {"planned_steps": frozenset(), "keep": lambda _: None, **settings}
    return Trainer(
        run=run,
        loss=loss,
        dataset=dataset,
        weights=weights,
        buffers=buffers,
        find_directions=finder(run, dataset, loss) if run.is_nudged else None,
        num_evaluated=10,
        **given,
    )


@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", ["conv", "residual", "batch_norm"])
def test_training_is_that_of_the_cpu(run, problem, gpu, name, fields):
    run = replace(run, **(fields | SEARCH | {"direction_tolerance": 1e-9, "direction_products": 60}))
    plain, dataset = problem(name), dataset_of(problem, torch.float64)
    ends = []
    for device in (torch.device("cpu"), gpu):
        training = training_of(run, plain, dataset, device)
        progress = training.begin()
        training.resume(progress)
        assert progress.ended == "finished"
        ends.append(progress.last)
    for one, other in ((ends[0].weights, ends[1].weights), (ends[0].buffers, ends[1].buffers)):
        assert other.device.type == "cuda"
        torch.testing.assert_close(other.cpu(), one, rtol=1e-7, atol=1e-9)


def _pictures(run, name):
    return replace(run, model=name, num_training=100, batch_size=20, epochs=3, learning_rate=0.02)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["plain", "nudged and augmented, with momentum"])
@pytest.mark.parametrize("name", ["simple_cnn", "resnet32"])
def test_nothing_in_a_step_waits_for_the_gpu(run, gpu, name, kind, precision):
    run = _pictures(replace(run, **(KINDS[kind] | SEARCH), precision=precision), name)
    seen = []

    def pause(progress):
        seen.append(progress.index)
        # The step is recorded in the first epoch. Before the first step and after the last one the loss is looked at.
        waits = progress.epoch == 1 or progress.index in (0, run.steps_per_epoch - 1)
        torch.cuda.set_sync_debug_mode("default" if waits else "error")

    training = training_of(run, of_digits(name), digits(), gpu, pause=pause)
    try:
        training.resume(training.begin())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert max(seen) == run.steps_per_epoch - 1 == 4


@pytest.mark.parametrize("kind", ["augmented", "nudged", "nudged and augmented, with momentum"])
@pytest.mark.parametrize("name", ["simple_cnn", "resnet32"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(run, gpu, tmp_path, name, kind):
    run = _pictures(replace(run, **(KINDS[kind] | SEARCH)), name)
    plain, dataset = of_digits(name), digits()
    whole = training_of(run, plain, dataset, gpu)
    progress = whole.begin()
    whole.resume(progress)
    folder = StateFolder(tmp_path / "state" / str(run.epochs), {"run": "this"}, {"device": "cuda"})

    def stop(progress):
        if (progress.epoch, progress.index) == (2, 3):
            folder.save(progress)
            raise KeyboardInterrupt

    stopped = training_of(run, plain, dataset, gpu, pause=stop)
    with pytest.raises(KeyboardInterrupt):
        stopped.resume(stopped.begin())
    again = training_of(run, plain, dataset, gpu)
    found, _ = folder.find(again)
    again.resume(found)
    assert torch.equal(found.last.weights, progress.last.weights)
    assert repr(found.history) == repr(progress.history)


def test_a_recording_is_of_one_shape_and_of_what_stays_in_its_place(gpu):
    recorder, factor = Recorder(), torch.full((), 2.0, device=gpu)
    other = torch.full((), 5.0, device=gpu)
    for count in range(1, 7):
        for size in (3, 4):
            values = torch.arange(size, device=gpu) + count
            for held in (factor, other):
                doubled, summed = recorder(
                    lambda given, held=held: (held * given, given.sum()), values, in_place=[held]
                )
                assert doubled.tolist() == (float(held) * values).tolist()
                assert summed.item() == values.sum().item()
        factor += 1


def test_augmented_images_are_those_of_the_cpu(generator, gpu):
    images = torch.randn(50, 3, 12, 9, generator=generator)
    draws = (torch.Generator().manual_seed(1) for _ in range(2))
    ours, theirs = (
        datasets.augment(images.to(device), generator=draw) for device, draw in zip(("cpu", gpu), draws, strict=True)
    )
    np.testing.assert_array_equal(ours.numpy(), theirs.cpu().numpy())
