"""Eigenvectors that a spectrum has kept are what the other measurements of its checkpoints take, without a search."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from sharpness.data import originals
from sharpness.eigen import saving
from sharpness.measurements import landscape
from sharpness.measurements.density import Density
from sharpness.measurements.gradients import Gradients
from sharpness.measurements.measuring import Part, measure
from sharpness.measurements.slices import Slices
from sharpness.measurements.spectrum import Spectrum
from sharpness.measurements.steps import Steps
from sharpness.measurements.variants import Variants
from sharpness.runtime.sealed import DamagedError
from sharpness.stages.train import Job, train
from sharpness.study.records import read_rows

STEPS = [0, 3, 5]
SEARCH = {"num_examples": 30, "tolerance": 1e-2, "max_products": 80}
LOSSES = SEARCH | {"loss_examples": 20}
SPECTRUM = Spectrum(
    num_examples=30, tolerance=1e-3, max_products=100, bracket=0.2, num_eigenvalues=3, resample=False, augment=False,
    parameters="*", precision="float32", probe_products=3, frobenius_products=0, keep_vectors=True,
)  # fmt: skip
OTHERS = {
    "slices": Slices(**LOSSES, num_batches=2, scales=[-1, 0, 1], unit="step"),
    "steps": Steps(**LOSSES, num_batches=2, alphas=[1]),
    "gradients": Gradients(**LOSSES, num_eigenvalues=2, num_batches=2),
    "density": Density(
        **SEARCH, num_eigenvalues=3, num_probes=1, num_steps=3, trace_products=4, frobenius_products=2
    ),
    "variants": Variants(
        **LOSSES, num_directions=2, num_steps=2, measure_every=2, renew_every=None, follow_products=2, gamma=0.5,
        gamma_outside=1.0,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(run, tmp_path_factory):
    """A trained run with convolutions, and the spectrum of its checkpoints, with its eigenvectors."""
    folder, generator = tmp_path_factory.mktemp("run"), torch.Generator().manual_seed(0)
    tensors = {}
    for split, size in (("training", 40), ("validation", 10), ("test", 10)):
        tensors[f"{split}_labels"] = torch.randint(0, 10, (size,), generator=generator)
        tensors[f"{split}_images"] = torch.rand(size, 1, 8, 8, generator=generator)
    data = folder / "data.safetensors"
    originals.save(tensors, {"num_classes": "10"}, data)
    small = replace(run, data="digits", num_training=40, batch_size=8, model="resnet8", epochs=1)
    files = [folder / "0.safetensors", folder / "1.safetensors"]
    job = Job(
        data, STEPS, 40, [], 1, folder / "state", 60.0, False, files, folder / "best.safetensors",
        folder / "last.safetensors", folder / "history.csv", folder / "run.yaml",
    )  # fmt: skip
    train(small, job)
    kept = folder / "spectrum-vectors"
    whole = Part(data, files[:1], STEPS[:2], [], [], small.name, folder / "run.yaml", [], "s", 1, kept)
    measure(SPECTRUM, replace(whole, output=folder / "spectrum.csv"))
    return SimpleNamespace(part=whole, kept=kept)


def rows_of(name, settings, part, kept=()):
    measure(settings, replace(part, output=part.output.with_name(f"{name}.csv"), kept=list(kept)))
    return read_rows(part.output.with_name(f"{name}.csv"), name)


def no_search(*words, **settings):
    raise AssertionError("an eigenvector was looked for")


def assert_similar(found, expected, name, by):
    found, expected = ([float(row[name]) for row in rows if row[name]] for rows in (found, expected))
    assert found == pytest.approx(expected, rel=by)


@pytest.mark.parametrize("name", ["slices", "steps", "gradients", "density"])
def test_what_needs_them_measures_the_same_without_a_search(place, monkeypatch, name):
    anew = rows_of(name, OTHERS[name], place.part)
    monkeypatch.setattr(landscape, "top_eigenpairs", no_search)
    shared = rows_of(name, OTHERS[name], place.part, [place.kept])

    assert {int(row["step"]) for row in shared} == set(STEPS[:2])
    assert len(shared) == len(anew)
    value = "value" if name == "density" else "eigenvalue"
    chosen = [[row for row in rows if row.get("quantity", "eigenvalue") == "eigenvalue"] for rows in (shared, anew)]
    # Twice the square of the residuals; the kept ones are the better.
    assert_similar(*chosen, value, by=1e-3)
    assert all(float(row["residual"]) <= 1e-3 for row in chosen[0])
    if name == "slices":
        assert_similar(shared, anew, "loss", by=1e-3)
        assert_similar(shared, anew, "scale", by=0.05)
    if name == "gradients":
        assert_similar(shared, anew, "overlap", by=0.02)


@pytest.mark.slow
def test_a_variant_starts_from_them_and_looks_for_others_later(place, monkeypatch):
    anew = rows_of("variants", OTHERS["variants"], place.part)
    searches = []
    search = landscape.top_eigenpairs
    monkeypatch.setattr(
        landscape, "top_eigenpairs", lambda *words, **told: searches.append(1) or search(*words, **told)
    )
    shared = rows_of("variants", OTHERS["variants"], place.part, [place.kept])

    begin = [float(row["step"]) == 0 for row in shared]
    assert [int(row["num_products"]) == 0 for row in shared] == begin
    assert len(searches) == begin.count(False) == begin.count(True) == 2
    assert_similar(shared, anew, "eigenvalue", by=1e-2)


def test_without_them_each_checkpoint_has_a_search_of_its_own(place, monkeypatch, tmp_path):
    monkeypatch.setattr(landscape, "top_eigenpairs", no_search)
    (tmp_path / "of a run that diverged at once").mkdir()
    for kept in ([], [tmp_path / "of a run that diverged at once"]):
        with pytest.raises(AssertionError, match="was looked for"):
            rows_of("steps", OTHERS["steps"], place.part, kept)


def test_those_that_have_not_converged_are_looked_for_again(place, monkeypatch):
    monkeypatch.setattr(landscape, "top_eigenpairs", no_search)
    with pytest.raises(AssertionError, match="was looked for"):
        rows_of("steps", replace(OTHERS["steps"], tolerance=1e-9), place.part, [place.kept])


@pytest.fixture
def copied(place, tmp_path):
    for path in place.kept.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_damaged_file_is_told(place, copied):
    path = copied / "3.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"3\.safetensors is damaged: its tensor eigen"):
        rows_of("steps", OTHERS["steps"], place.part, [copied])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"weights": "0a1b"}, r"of another weights \(0a1b, here it is .*: remove .*, and it is made anew"),
        ({"num_examples": 29}, r"of another num examples \(29, here it is 30\)"),
        ({"run": "simple_cnn"}, r"of another run \(simple_cnn, here it is digits-40"),
        ({"l2": 0.5}, r"of another l2 \(0\.5, here it is 0\.0\)"),
    ],
)
def test_those_of_something_else_are_refused(place, copied, change, sentence):
    path = copied / "0.safetensors"
    pairs = saving.load_pairs(path)
    replace(pairs, provenance={**pairs.provenance, **change}).save(path)
    with pytest.raises(DamagedError, match=sentence):
        rows_of("steps", OTHERS["steps"], place.part, [copied])


@pytest.mark.parametrize(
    ("change", "is_kept_for"),
    [
        ({}, {"slices", "steps", "gradients", "density", "variants"}),
        ({"keep_vectors": False}, set()),
        ({"num_examples": 29}, set()),
        ({"num_examples": "auto"}, set()),
        ({"tolerance": 0.02}, set()),
        ({"tolerance": 0.01, "num_eigenvalues": 2}, {"slices", "steps", "gradients", "variants"}),
        ({"num_eigenvalues": 1}, {"slices", "steps"}),
        ({"resample": True}, set()),
        ({"augment": True}, set()),
        ({"parameters": "layer*"}, set()),
        ({"precision": "bfloat16"}, set()),
    ],
)
def test_a_spectrum_keeps_them_for_what_looks_for_the_same(change, is_kept_for):
    spectrum = replace(SPECTRUM, **change)
    assert {name for name, other in OTHERS.items() if spectrum.keeps_for(other)} == is_kept_for
    assert not spectrum.keeps_for(replace(SPECTRUM, tolerance=0.1))
