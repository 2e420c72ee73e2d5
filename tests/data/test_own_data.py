"""A user's own data: arrays, images by class, and functions; split by the seed, and refused in one sentence."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from sharpness.data import arrays, datasets
from sharpness.data.catalogue import DataError
from sharpness.stages.prepare_data import prepare_data

RANDOM = np.random.default_rng(0)
INPUTS, TARGETS = RANDOM.normal(size=(40, 5)), np.arange(40) % 3


@pytest.fixture
def folder(own_folder):
    return own_folder


def loaded(folder, data, num_training=None, seed=0):
    prepare_data(data, folder / "prepared.safetensors")
    number = arrays.num_training(data) if num_training is None else num_training
    return datasets.load(folder / "prepared.safetensors", num_training=number, device="cpu", seed=seed)


def rows(split):
    return [tuple(row) for row in split.inputs.flatten(1).tolist()]


def write(folder, kind, **found):
    if kind == "npz":
        np.savez(folder / "a.npz", **found)
        return "a.npz"
    if kind == "safetensors":
        save_file({name: np.ascontiguousarray(array) for name, array in found.items()}, folder / "a.safetensors")
        return "a.safetensors"
    np.savez(folder / "b.npz", **found)
    (folder / "load.py").write_text(
        "import pathlib\nimport numpy as np\n\n\ndef load():\n"
        "    return dict(np.load(pathlib.Path(__file__).with_name('b.npz')))\n"
    )
    return "load.py:load"


@pytest.mark.parametrize("kind", ["npz", "safetensors", "function"])
def test_every_example_is_in_one_split_and_the_seed_draws_them(folder, kind):
    data = write(folder, kind, inputs=INPUTS, targets=TARGETS)
    dataset, other = loaded(folder, data, 32), loaded(folder, data, 32, seed=1)

    splits = [dataset.training, dataset.validation, dataset.test]
    assert [len(split.targets) for split in splits] == [32, 4, 4]
    assert sorted(row for split in splits for row in rows(split)) == sorted(map(tuple, INPUTS.astype("f4").tolist()))
    assert rows(dataset.test) != rows(other.test)
    assert dataset.num_classes == 3
    assert dataset.training.inputs.dtype == torch.float32
    by_row = dict(zip(map(tuple, INPUTS.astype("f4").tolist()), TARGETS.tolist(), strict=True))
    assert all([by_row[row] for row in rows(split)] == split.targets.tolist() for split in splits)


@pytest.mark.parametrize("kind", ["npz", "safetensors", "function"])
def test_a_test_set_of_ones_own_is_the_test_set(folder, kind):
    data = write(
        folder, kind, inputs=INPUTS[:30], targets=TARGETS[:30], test_inputs=INPUTS[30:], test_targets=TARGETS[30:]
    )
    dataset = loaded(folder, data, 27)
    assert rows(dataset.test) == [*map(tuple, INPUTS[30:].astype("f4").tolist())]
    assert len(dataset.validation.targets) == 3


def test_targets_of_a_regression_and_of_a_text_keep_their_shape(folder):
    regression = loaded(folder, write(folder, "npz", inputs=INPUTS, targets=INPUTS[:, :2]))
    assert (regression.num_classes, regression.training.targets.dtype) == (0, torch.float32)
    assert regression.training.targets.shape == (32, 2)
    text = RANDOM.integers(0, 27, size=(40, 8), dtype=np.uint8)
    tokens = loaded(folder, write(folder, "npz", inputs=text, targets=text))
    assert (tokens.training.inputs.dtype, tokens.training.inputs.shape) == (torch.int64, (32, 8))
    assert tokens.num_classes == text.max() + 1


def test_images_in_folders_of_their_classes_are_normalised_by_the_training_split(folder):
    for name, grey in (("cat", 50), ("dog", 200)):
        (folder / "pets" / name).mkdir(parents=True)
        for number in range(10):
            pixels = RANDOM.integers(grey - 40, grey + 40, size=(4, 6), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pets" / name / f"{number}.png")
    assert arrays.num_training("pets/") == 16
    dataset = loaded(folder, "pets/")
    assert dataset.input_shape == (1, 4, 6)
    assert dataset.num_classes == 2
    torch.testing.assert_close(dataset.training.inputs.mean(dim=0), torch.zeros(1, 4, 6), atol=1e-5, rtol=0)
    bright = dataset.training.inputs.mean(dim=(1, 2, 3)) > 0
    assert torch.equal(bright.long(), dataset.training.targets)


def test_the_content_of_a_file_is_known_whatever_its_date(folder):
    write(folder, "npz", inputs=INPUTS, targets=TARGETS)
    before = arrays.fingerprint("a.npz")
    (folder / "a.npz").touch()
    assert arrays.fingerprint("a.npz") == before
    write(folder, "npz", inputs=INPUTS + 1, targets=TARGETS)
    assert arrays.fingerprint("a.npz") != before


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"inputs": INPUTS}, "lacks the array 'targets'; it has inputs"),
        ({"x": INPUTS}, "lacks the array 'inputs'; it has x"),
        ({"inputs": INPUTS, "targets": TARGETS[:-1]}, "must have as many examples as each other"),
        ({"inputs": INPUTS, "targets": TARGETS, "test_inputs": INPUTS}, "lacks the array 'test_targets'"),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_planning_sees_what_a_file_lacks(folder, kind, found, said):
    data = write(folder, kind, **found)
    with pytest.raises(ValueError, match=said) as told:
        arrays.check(data)
    assert str(folder / data) in str(told.value)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            {"inputs": np.where(INPUTS > 1, np.nan, INPUTS), "targets": TARGETS},
            "values of inputs are not finite numbers",
        ),
        (
            {"inputs": INPUTS.astype(np.float64) * np.where(INPUTS > 1, 1e300, 1), "targets": TARGETS},
            "values of inputs are not finite numbers in float32, as which they are trained on",
        ),
        ({"inputs": INPUTS, "targets": TARGETS - 1}, "targets has the class -1"),
        ({"inputs": INPUTS * 1j, "targets": TARGETS}, "inputs is of complex128"),
        ({"inputs": INPUTS.astype(object), "targets": TARGETS}, "inputs cannot be read"),
        (
            {"inputs": INPUTS, "targets": TARGETS, "test_inputs": INPUTS[:, :2], "test_targets": TARGETS},
            "test_inputs has examples of \\[2\\]",
        ),
    ],
)
def test_arrays_that_nothing_could_be_trained_on_are_refused(folder, found, said):
    data = write(folder, "npz", **found)
    with pytest.raises(ValueError, match=said):
        prepare_data(data, folder / "prepared.safetensors")


def test_bytes_may_be_in_any_order_and_a_mask_is_not_dropped(folder):
    for name, inputs in (("plain", INPUTS), ("swapped", INPUTS.astype(INPUTS.dtype.newbyteorder(">")))):
        data = write(folder, "npz", inputs=inputs, targets=TARGETS.astype(">i4"))
        prepare_data(data, folder / f"{name}.safetensors")
    assert (folder / "plain.safetensors").read_bytes() == (folder / "swapped.safetensors").read_bytes()
    (folder / "load.py").write_text(
        "import numpy as np\n\ndef load():\n    return np.ma.masked_greater(np.ones((9, 2)), 0), np.zeros(9, int)\n"
    )
    with pytest.raises(ValueError, match="inputs is a masked array: leave out what is masked"):
        prepare_data("load.py:load", folder / "prepared.safetensors")


def test_a_function_that_returns_something_else_is_named_with_its_line(folder):
    (folder / "load.py").write_text("\n\ndef load():\n    return 3\n")
    with pytest.raises(ValueError, match=r"load.py, line 3: must return a mapping .* got int"):
        prepare_data("load.py:load", folder / "prepared.safetensors")
    with pytest.raises(ValueError, match="num_training must be given"):
        arrays.num_training("load.py:load")


def test_a_file_that_is_none_is_named(folder):
    (folder / "a.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="is no file of arrays"):
        arrays.check("a.npz")
    with pytest.raises(ValueError, match="does not exist: a path is relative to the study's file"):
        arrays.check("b.npz")


@pytest.mark.parametrize("kind", ["npz", "safetensors", "function"])
def test_an_array_that_no_run_takes_is_refused_with_the_nearest_name(folder, kind):
    data = write(folder, kind, inputs=INPUTS, targets=TARGETS, test_input=INPUTS[:3], test_targets=TARGETS[:3])
    with pytest.raises(DataError, match=r"has the array 'test_input', .* did you mean 'test_inputs'\?"):
        loaded(folder, data, 32)
