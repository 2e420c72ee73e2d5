"""Plots of a notebook: what is drawn are the numbers themselves, computed here by torch alone."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import sharpness
from sharpness import (
    CurvatureTracker,
    HessianOperator,
    plot_density,
    plot_plane,
    plot_slice,
    plot_spectrum,
    spectral_density,
    top_eigenpairs,
)


@pytest.fixture(autouse=True)
def _no_windows():
    before = mpl.get_backend()
    mpl.use("Agg")
    yield
    from matplotlib import pyplot

    pyplot.close("all")
    mpl.use(before)


@pytest.fixture
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))
    inputs = torch.randn(40, 2, 3, 3)
    return model, inputs, torch.randint(0, 3, (40,))


def loss_at(problem, displacement):
    model, inputs, targets = copy.deepcopy(problem[0]).double(), problem[1].double(), problem[2]
    weights = parameters_to_vector(model.parameters()).detach()
    vector_to_parameters(weights + displacement.double(), model.parameters())
    return functional.cross_entropy(model(inputs), targets).item()


def line_of(axes, label):
    (line,) = [line for line in axes.lines if line.get_label().startswith(label)]
    return line.get_xdata(), line.get_ydata()


def test_a_slice_is_the_loss_along_the_vector_itself(problem):
    operator = HessianOperator(*problem)
    vector = top_eigenpairs(operator, 1).eigenvectors[0]

    axes = plot_slice(operator, vector, distance=0.5, num_points=5)

    places, losses = line_of(axes, "loss")
    assert list(places) == pytest.approx([-0.5, -0.25, 0, 0.25, 0.5])
    assert list(losses) == pytest.approx([loss_at(problem, place * vector) for place in places], rel=1e-5)
    # The parabola has the loss, its slope and its curvature here.
    places, parabola = line_of(axes, "parabola")
    step = 1e-3
    around = [loss_at(problem, place * vector) for place in (-step, 0, step)]
    slope, curvature = (around[2] - around[0]) / (2 * step), (around[2] - 2 * around[1] + around[0]) / step**2
    expected = [around[1] + slope * place + curvature * place**2 / 2 for place in places]
    assert list(parabola) == pytest.approx(expected, rel=1e-3)


def test_a_slice_of_a_preconditioned_operator_goes_where_its_eigenvalue_is_the_curvature(problem):
    """Along D^-1/2 v, for a D that is far from a multiple of one."""
    size = HessianOperator(*problem).shape[0]
    divisor = torch.linspace(0.05, 2, size, dtype=torch.float64)
    operator = HessianOperator(*problem, preconditioner=divisor)
    vector = top_eigenpairs(operator, 1, tolerance=1e-5).eigenvectors[0]
    direction = vector.double() / divisor.sqrt()
    assert torch.allclose(operator.direction(vector).double(), direction, rtol=1e-5)

    axes = plot_slice(operator, vector, distance=0.2, num_points=3)

    _, losses = line_of(axes, "loss")
    assert list(losses) == pytest.approx([loss_at(problem, place * direction) for place in (-0.2, 0, 0.2)], rel=1e-5)
    step = 1e-3
    around = [loss_at(problem, place * direction) for place in (-step, 0, step)]
    (_, parabola), curvature = line_of(axes, "parabola"), (around[2] - 2 * around[1] + around[0]) / step**2
    assert (parabola[2] - 2 * parabola[1] + parabola[0]) / 0.2**2 == pytest.approx(curvature, rel=1e-3)
    words, _, number = axes.lines[0].get_label().partition(" = ")
    assert (words, float(number)) == ("parabola of v'D^-½HD^-½v", pytest.approx(curvature, rel=1e-3))
    vectors = top_eigenpairs(operator, 2).eigenvectors
    contours = plot_plane(operator, vectors, distance=0.2, num_points=3).collections[0]
    first, second = vectors.double() / divisor.sqrt()
    corners = [loss_at(problem, x * first + y * second) for x in (-0.2, 0, 0.2) for y in (-0.2, 0, 0.2)]
    assert (contours.zmin, contours.zmax) == pytest.approx((min(corners), max(corners)), rel=1e-5)


@pytest.mark.parametrize(("kind", "letter"), [("hessian", "H"), ("ggn", "G"), ("gradient_covariance", "C")])
def test_a_parabola_is_named_by_its_curvature(problem, kind, letter):
    operator = HessianOperator(*problem, curvature=kind)
    vector = top_eigenpairs(operator, 1).eigenvectors[0]
    axes = plot_slice(operator, vector, num_points=3)
    assert axes.lines[0].get_label() == f"parabola of v'{letter}v = {float(vector @ (operator @ vector)):.4g}"


@pytest.mark.parametrize(
    ("vector", "error", "said"),
    [
        (torch.ones(4) / 2, ValueError, "vector must be one vector [66], such as pairs.eigenvectors[0], got [4]"),
        ([1.0, 0.0], TypeError, "vector must be a tensor [P], such as pairs.eigenvectors[0], got list"),
    ],
    ids=["length", "kind"],
)
def test_what_is_no_vector_of_the_operator_is_refused(problem, vector, error, said):
    with pytest.raises(error) as told:
        plot_slice(HessianOperator(*problem), vector)
    assert str(told.value) == said
    with pytest.raises(TypeError, match="operator must be a HessianOperator, whose loss is drawn, got Tensor"):
        plot_slice(torch.eye(4), torch.ones(4) / 2)
    unit = torch.eye(66)[0].double()
    assert plot_slice(HessianOperator(*problem), unit, num_points=3).lines  # of another type, converted


def test_a_slice_goes_by_itself_as_far_as_the_curvature_doubles_the_loss(problem):
    operator = HessianOperator(*problem)
    pairs = top_eigenpairs(operator, 1, tolerance=1e-5)
    places, _ = line_of(plot_slice(operator, pairs.eigenvectors[0], num_points=3), "loss")
    assert float(pairs.eigenvalues[0]) * places[-1] ** 2 / 2 == pytest.approx(operator.value(), rel=1e-3)


def test_a_plane_is_the_loss_in_the_plane_of_the_vectors_in_one_scale(problem):
    operator = HessianOperator(*problem)
    vectors = top_eigenpairs(operator, 2).eigenvectors
    axes = plot_plane(operator, vectors, distance=0.4, num_points=5)

    contours = axes.collections[0]
    places = torch.linspace(-0.4, 0.4, 5).tolist()
    losses = [loss_at(problem, x * vectors[0] + y * vectors[1]) for x in places for y in places]
    assert (contours.zmin, contours.zmax) == pytest.approx((min(losses), max(losses)), rel=1e-5)
    assert axes.get_aspect() == 1
    assert axes.get_xlim() == axes.get_ylim() == pytest.approx((-0.4, 0.4))


def test_a_spectrum_over_training_is_the_trackers_own_numbers(tmp_path, problem):
    model, inputs, targets = problem
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    path = tmp_path / "curvature.csv"
    tracker = CurvatureTracker(model, (inputs, targets), None, optimizer, every=2, to=path)
    for _ in range(6):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        tracker.step()

    for history in (tracker, tracker.history, str(path)):
        axes = plot_spectrum(history)
        for rank, label in enumerate(("λ₁", "λ₂")):
            steps, values = line_of(axes, label)
            assert list(steps) == [2, 4, 6]
            assert list(values) == pytest.approx([record.eigenvalues[rank] for record in tracker.history])
        assert list(line_of(axes, "stability limit")[1]) == pytest.approx([20] * 3)


def test_without_an_optimizer_there_is_no_limit_and_without_records_nothing(problem):
    model, inputs, targets = problem
    tracker = CurvatureTracker(model, (inputs, targets))
    with pytest.raises(ValueError, match="has not measured yet"):
        plot_spectrum(tracker)
    tracker.measure()
    assert [line.get_label() for line in plot_spectrum(tracker).lines] == ["λ₁", "λ₂"]


@pytest.mark.parametrize(
    ("written", "missing"),
    [
        (b"", "step"),
        (b"epoch,loss\n1,0.5\n", "step"),
        (b"step,loss\n1,0.5,7\n", "eigenvalue_0"),
        (b"step,eigenvalue_1,residual_1,stable_below\n1,2,0.1,20\n", "eigenvalue_0"),
        (b"step,eigenvalue_0,stable_below\n1,2,20\n", "residual_0"),
        (b"\xff\xfe\x00\x01", "step"),
    ],
)
def test_a_file_that_is_not_a_trackers_is_refused_in_a_sentence(tmp_path, written, missing):
    path = tmp_path / "b.csv"
    path.write_bytes(written)
    with pytest.raises(ValueError, match=rf"b\.csv has no column '{missing}': give the CSV file that a Curvature"):
        plot_spectrum(path)


def test_a_density_is_drawn_with_the_leading_eigenvalues(problem):
    operator = HessianOperator(*problem)
    pairs = top_eigenpairs(operator, 2)
    density = spectral_density(operator, num_probes=2, num_steps=10, generator=torch.Generator().manual_seed(0))

    axes = plot_density(density, pairs, width=0.05)

    line = axes.lines[0]
    grid = torch.as_tensor(line.get_xdata())
    expected = density.density(grid, 0.05)
    shown = expected > expected.max() * 1e-6
    torch.testing.assert_close(torch.as_tensor(line.get_ydata())[shown], expected[shown])
    assert list(line_of(axes, "leading")[0]) == pytest.approx(pairs.eigenvalues.tolist())
    plot_density(density)  # a width of its own


def test_given_axes_are_drawn_on(problem):
    axes = Figure().subplots()
    operator = HessianOperator(*problem)
    vectors = top_eigenpairs(operator, 2).eigenvectors
    assert plot_slice(operator, vectors[0], num_points=3, axes=axes) is axes
    assert plot_plane(operator, vectors, num_points=3, axes=Figure().subplots()) is not axes


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda op, v: plot_slice(op, 2 * v[0]), "vector must have length 1, as eigenvectors have, got length 2"),
        (lambda op, v: plot_slice(op, v), "vector must be one vector"),
        (lambda op, v: plot_slice(op, v[0], distance=-1.0), "distance must be positive and finite, got -1.0"),
        (lambda op, v: plot_slice(op, v[0], num_points=1), "num_points must be at least 3"),
        (lambda op, v: plot_plane(op, v[0]), "vectors must be two rows"),
        (lambda op, v: plot_plane(op, v[[0, 0]]), "vectors must be orthogonal.*their cosine is 1"),
        (lambda op, v: plot_plane(op, torch.stack([v[0], 3 * v[1]])), r"vectors\[1\] must have length 1"),
    ],
)
def test_vectors_that_are_no_eigenvectors_are_refused(problem, draw, said):
    operator = HessianOperator(*problem)
    with pytest.raises(ValueError, match=said):
        draw(operator, top_eigenpairs(operator, 2).eigenvectors)


WITHOUT = """
import sys
sys.modules["matplotlib"] = None
import torch, sharpness
density = sharpness.spectral_density(torch.diag(torch.arange(5.0)), num_probes=1, num_steps=3,
                                     generator=torch.Generator().manual_seed(0))
try:
    sharpness.plot_density(density)
except ModuleNotFoundError as error:
    assert str(error) == "plots are drawn by matplotlib: pip install matplotlib", error
else:
    raise AssertionError
"""


@pytest.mark.slow
def test_without_matplotlib_a_sentence_says_what_to_install():
    environment = {**os.environ, "PYTHONPATH": str(Path(sharpness.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
