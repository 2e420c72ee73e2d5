"""Data sets as tensors: read, split, normalised, augmented and put into batches."""

import gzip
import hashlib
import pickle
import struct
import urllib.error
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from sharpness.data import catalogue, datasets, originals
from sharpness.data.catalogue import DataError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CIFARS = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
CIFAR_FILES = {
    "cifar10": {**{f"data_batch_{number}": 4 for number in (1, 2, 3, 4, 5)}, "test_batch": 3},
    "cifar100": {"train": 20, "test": 3},
}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def no_network_and_no_files_of_this_machine(monkeypatch):
    def refuse(*arguments, **settings):
        raise urllib.error.URLError("Network is\nunreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.delenv("SHARPNESS_DATA", raising=False)
    fashion_mnist = replace(catalogue.FACTS["fashion_mnist"], system_folder="")
    monkeypatch.setitem(catalogue.FACTS, "fashion_mnist", fashion_mnist)


@pytest.fixture
def tiny(monkeypatch):
    """Twenty images to train and validate and three to test, in place of each real data set."""
    for name in ("fashion_mnist", "cifar10", "cifar100"):
        facts = catalogue.FACTS[name]
        files = dict.fromkeys(facts.files, 0)  # of any size
        facts = replace(facts, num_training=15, num_validation=5, num_test=3, files=files)
        monkeypatch.setitem(catalogue.FACTS, name, facts)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def python2_pickle(entry: dict[str, object]) -> bytes:
    """A dictionary as Python 2's cPickle wrote CIFAR: byte strings, and arrays with dtype('u1', 0, 1)."""

    def put(value) -> bytes:
        if isinstance(value, str):
            return b"U" + bytes([len(value)]) + value.encode()
        if isinstance(value, bytes):
            return b"T" + struct.pack("<i", len(value)) + value
        if value is None:
            return b"N"
        if isinstance(value, bool):
            return b"\x88" if value else b"\x89"
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        if isinstance(value, list):
            return b"](" + b"".join(map(put, value)) + b"e"
        if isinstance(value, tuple):
            return b"(" + b"".join(map(put, value)) + b"t"
        if isinstance(value, dict):
            return b"}(" + b"".join(put(key) + put(item) for key, item in value.items()) + b"u"
        assert value.dtype == np.uint8
        dtype = b"cnumpy\ndtype\n" + put(("u1", 0, 1)) + b"R" + put((3, "|", None, None, None, -1, -1, 0)) + b"b"
        empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + put((0,)) + put("b") + b"tR"
        return empty + b"(" + put(1) + put(value.shape) + dtype + put(False) + put(value.tobytes()) + b"tb"

    return b"\x80\x02" + put(entry) + b"."


def write_cifar(folder: Path, name: str, monkeypatch) -> tuple[np.ndarray, list[int]]:
    """Write tiny files in CIFAR's own format; the images [N, 3, 32, 32] and labels in them, file after file."""
    folder.mkdir(parents=True)
    random = np.random.RandomState(3)
    images, labels = [], []
    for file, number in CIFAR_FILES[name].items():
        images.append(random.randint(0, 256, (number, 3072)).astype(np.uint8))
        labels.append(random.randint(0, 100, number).tolist())
        key = "labels" if name == "cifar10" else "fine_labels"
        entry = {"data": images[-1], key: labels[-1], "batch_label": file, "filenames": ["a.png"] * number}
        (folder / file).write_bytes(python2_pickle(entry))
    meta = CIFARS[name].meta
    (folder / meta["filename"]).write_bytes(python2_pickle({meta["key"]: ["cat", "dog"]}))
    checksums = [[file, md5(folder / file)] for file in CIFAR_FILES[name]]
    monkeypatch.setattr(CIFARS[name], "train_list", checksums[:-1])
    monkeypatch.setattr(CIFARS[name], "test_list", checksums[-1:])
    monkeypatch.setattr(CIFARS[name], "meta", {**meta, "md5": md5(folder / meta["filename"])})
    return np.concatenate(images).reshape(-1, 3, 32, 32), [label for part in labels for label in part]


def assert_holds(tensors: dict[str, torch.Tensor], images: np.ndarray, labels: list[int]) -> None:
    """The tiny data set, split as the authors split theirs: 15 of 20, 5 of 20, and 3 that were apart."""
    order = [*np.random.RandomState(0).choice(20, 20, replace=False), 20, 21, 22]
    assert tensors["order"].tolist() == order
    for split, indices in (("training", order[:15]), ("validation", order[15:20]), ("test", order[20:])):
        assert tensors[f"{split}_images"].dtype == torch.uint8
        assert tensors[f"{split}_images"].is_contiguous()
        np.testing.assert_array_equal(tensors[f"{split}_images"].numpy(), images[indices])
        assert tensors[f"{split}_labels"].dtype == torch.int64
        assert tensors[f"{split}_labels"].tolist() == [labels[index] for index in indices]


@pytest.mark.parametrize("layout", ["files", "torchvision"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_exactly_from_a_named_folder(tmp_path, monkeypatch, tiny, name, layout):
    folder = tmp_path / "mine"
    if layout == "torchvision":
        folder /= CIFARS[name].base_folder
    images, labels = write_cifar(folder, name, monkeypatch)
    monkeypatch.setenv("SHARPNESS_DATA", str(tmp_path / "mine"))

    tensors = originals.prepare(name, tmp_path / "unused")

    assert_holds(tensors, images, labels)
    assert not (tmp_path / "unused").exists()


def test_cifar_that_was_downloaded_before_is_read_from_there(tmp_path, monkeypatch, tiny):
    images, labels = write_cifar(tmp_path / "raw" / "cifar-10-batches-py", "cifar10", monkeypatch)
    assert_holds(originals.prepare("cifar10", tmp_path / "raw"), images, labels)


@pytest.mark.parametrize("file", ["data_batch_2", "test_batch", "batches.meta"])
def test_cifar_file_with_another_checksum_is_named(tmp_path, monkeypatch, tiny, file):
    write_cifar(tmp_path / "mine", "cifar10", monkeypatch)
    (tmp_path / "mine" / file).write_bytes(pickle.dumps({"data": 1}))
    monkeypatch.setenv("SHARPNESS_DATA", str(tmp_path / "mine"))
    with pytest.raises(DataError, match=rf"mine/{file} is not the published file"):
        originals.prepare("cifar10", tmp_path / "unused")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist"])
def test_file_of_another_size_than_published_is_named_before_any_is_read(tmp_path, monkeypatch, name):
    if name == "fashion_mnist":
        write_fashion_mnist(tmp_path / "mine", monkeypatch, packed=True)
    else:
        write_cifar(tmp_path / "mine", name, monkeypatch)
    monkeypatch.setenv("SHARPNESS_DATA", str(tmp_path / "mine"))
    file = next(iter(catalogue.FACTS[name].files))
    with pytest.raises(DataError, match=rf"mine/{file}\S* is damaged or cut short: it has [0-9,]+ bytes in place of"):
        originals.prepare(name, tmp_path / "unused")


@pytest.mark.parametrize("damage", ["a wrong byte", "another header"])
def test_packed_file_that_cannot_be_unpacked_is_named(tmp_path, monkeypatch, tiny, damage):
    write_fashion_mnist(tmp_path / "mine", monkeypatch, packed=True)
    path = tmp_path / "mine" / "train-images-idx3-ubyte.gz"
    packed = bytearray(path.read_bytes())
    packed[0 if damage == "another header" else len(packed) // 2] ^= 0xFF
    path.write_bytes(packed)
    monkeypatch.setenv("SHARPNESS_DATA", str(tmp_path / "mine"))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is (damaged|not the published)") as caught:
        originals.prepare("fashion_mnist", tmp_path / "unused")
    assert "\n" not in str(caught.value)


def write_fashion_mnist(folder: Path, monkeypatch, *, packed: bool) -> tuple[np.ndarray, list[int]]:
    folder.mkdir(parents=True)
    random = np.random.RandomState(4)
    images = random.randint(0, 256, (23, 28, 28)).astype(np.uint8)
    labels = random.randint(0, 10, 23).astype(np.uint8)
    for part, chosen in (("train", slice(0, 20)), ("t10k", slice(20, 23))):
        for kind, values in (("images-idx3", images[chosen]), ("labels-idx1", labels[chosen])):
            file = f"{part}-{kind}-ubyte"
            content = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()
            checksum = hashlib.md5(content, usedforsecurity=False).hexdigest()
            monkeypatch.setitem(originals.FASHION_MNIST_MD5, file, checksum)
            if packed:
                (folder / f"{file}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / file).write_bytes(content)
    return images[:, None], labels.tolist()


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_is_read_exactly_packed_or_not(tmp_path, monkeypatch, tiny, packed):
    images, labels = write_fashion_mnist(tmp_path / "fashion-mnist", monkeypatch, packed=packed)
    monkeypatch.setenv("SHARPNESS_DATA", str(tmp_path))
    assert_holds(originals.prepare("fashion_mnist", tmp_path / "unused"), images, labels)


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_under_the_names_of_fashion_mnist_is_refused(tmp_path, monkeypatch, tiny, packed):
    write_fashion_mnist(tmp_path / "mine", monkeypatch, packed=packed)
    monkeypatch.setitem(originals.FASHION_MNIST_MD5, "t10k-labels-idx1-ubyte", "0" * 32)
    monkeypatch.setenv("SHARPNESS_DATA", str(tmp_path / "mine"))
    with pytest.raises(DataError, match=rf"{tmp_path}/mine/t10k-labels-idx1-ubyte.* is not the published file"):
        originals.prepare("fashion_mnist", tmp_path / "unused")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's Fashion-MNIST is not installed")
def test_real_fashion_mnist_has_balanced_classes_and_the_authors_split(monkeypatch, tmp_path):
    monkeypatch.setenv("SHARPNESS_DATA", str(DEBIAN))
    tensors = originals.prepare("fashion_mnist", tmp_path)
    assert [len(tensors[f"{split}_labels"]) for split in ("training", "validation", "test")] == [50_000, 10_000, 10_000]
    assert tensors["test_labels"][:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]  # as everybody sees them
    assert tensors["test_labels"].bincount().tolist() == [1_000] * 10
    both = torch.cat([tensors["training_labels"], tensors["validation_labels"]])
    assert both.bincount().tolist() == [6_000] * 10
    # The published mean and standard deviation of the training file.
    pixels = torch.cat([tensors["training_images"], tensors["validation_images"]]).double() / 255
    assert pixels.mean().item() == pytest.approx(0.2860, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.3530, abs=5e-5)


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "cifar100"])
def test_failed_download_says_in_one_line_what_to_put_where(tmp_path, name):
    with pytest.raises(DataError) as caught:
        originals.prepare(name, tmp_path / "raw")
    message = str(caught.value)
    assert "\n" not in message
    assert "Network is unreachable" in message
    assert f"cannot download {catalogue.facts_of(name).title}" in message
    assert "set SHARPNESS_DATA to a folder and put" in message
    assert all(file in message for file in catalogue.facts_of(name).files)


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_nothing_is_downloaded_where_a_folder_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setenv("SHARPNESS_DATA", str(tmp_path))
    with pytest.raises(DataError, match="does not hold"):
        originals.prepare(name, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def enlarged(image: np.ndarray) -> np.ndarray:
    """Each new pixel lies a quarter of an old one from the centre of its own: 3/4 of it and 1/4 of its neighbour."""
    for axis in (0, 1):
        padded = np.pad(image, [(1, 1) if other == axis else (0, 0) for other in (0, 1)], mode="edge")
        old = np.take(padded, range(1, 9), axis)
        before = np.take(padded, range(8), axis)
        after = np.take(padded, range(2, 10), axis)
        pair = np.stack([0.75 * old + 0.25 * before, 0.75 * old + 0.25 * after], axis=axis + 1)
        image = pair.reshape(16, 8) if axis == 0 else pair.reshape(16, 16)
    return image


def test_digits_are_all_there_once_enlarged_without_rounding(tmp_path):
    tensors = originals.prepare("digits", tmp_path)
    original = load_digits()
    order = np.random.RandomState(0).choice(1797, 1797, replace=False)
    np.testing.assert_array_equal(tensors["order"], order)
    assert sorted(order) == list(range(1797))
    images = torch.cat([tensors[f"{split}_images"] for split in ("training", "validation", "test")])
    labels = torch.cat([tensors[f"{split}_labels"] for split in ("training", "validation", "test")])
    assert [len(tensors[f"{split}_labels"]) for split in ("training", "validation", "test")] == [1300, 247, 250]
    np.testing.assert_array_equal(labels, original.target[order])
    expected = np.stack([enlarged(original.images[index])[None] for index in order])
    np.testing.assert_array_equal(images.numpy(), expected)


def saved(tmp_path: Path, dtype: torch.dtype = torch.uint8) -> tuple[dict[str, torch.Tensor], Path]:
    generator = stream()
    tensors = {}
    for split, number in (("training", 1500), ("validation", 7), ("test", 9)):
        images = torch.randint(0, 200, (number, 3, 4, 5), generator=generator)
        images[:, 1] += 40  # a mean image that differs from pixel to pixel
        images[:, :, 2] //= 3
        tensors[f"{split}_images"] = images.to(dtype)
        tensors[f"{split}_labels"] = torch.randint(0, 6, (number,), generator=generator)
    originals.save(tensors, {"num_classes": "6"}, tmp_path / "new" / "data.safetensors")
    return tensors, tmp_path / "new" / "data.safetensors"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("num_training", [1, 40, 1500])
def test_normalised_by_the_mean_image_and_one_deviation_of_the_training_images_used(tmp_path, num_training, dtype):
    tensors, path = saved(tmp_path, dtype)

    dataset = datasets.load(path, num_training=num_training, device="cpu")

    used = tensors["training_images"].numpy().astype(np.float64)[:num_training]
    for name, split in (("training", dataset.training), ("validation", dataset.validation), ("test", dataset.test)):
        count = num_training if name == "training" else None
        raw = tensors[f"{name}_images"].numpy().astype(np.float64)[:count]
        expected = (raw - used.mean(axis=0)) / used.std()
        assert split.inputs.dtype == torch.float32
        assert split.inputs.is_contiguous()
        np.testing.assert_allclose(split.inputs, expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(split.targets, tensors[f"{name}_labels"][:count])
    assert dataset.num_classes == 6
    assert dataset.input_shape == (3, 4, 5)


@pytest.mark.parametrize("num_training", [0, 1501])
def test_more_training_images_than_there_are_is_an_error_with_the_number(tmp_path, num_training):
    _, path = saved(tmp_path)
    with pytest.raises(ValueError, match=rf"num_training must be from 1 to 1500, .* got {num_training}"):
        datasets.load(path, num_training=num_training, device="cpu")


def test_images_of_one_grey_are_an_error(tmp_path):
    tensors, path = saved(tmp_path)
    originals.save({**tensors, "training_images": torch.full((5, 3, 4, 5), 7.0)}, {"num_classes": "6"}, path)
    with pytest.raises(ValueError, match=rf"^{path}: the training images are all of one grey"):
        datasets.load(path, num_training=5, device="cpu")


NAN = float("nan")
WRONG = {
    "pixels that are not numbers": ({"training_images": [NAN]}, "1 pixels of the training split are not finite"),
    "infinite pixels": ({"test_images": [float("inf"), NAN]}, "2 pixels of the test split are not finite"),
    "a label too large": ({"validation_labels": [6]}, "labels of the validation split must be from 0 to 5, got 0 to 6"),
    "a negative label": ({"training_labels": [-1]}, "labels of the training split must be from 0 to 5, got -1 to 5"),
}


@pytest.mark.parametrize("name", WRONG)
def test_images_and_labels_that_cannot_be_are_named_with_their_file(tmp_path, name):
    changes, reason = WRONG[name]
    tensors, path = saved(tmp_path, torch.float32)
    for tensor, values in changes.items():
        for place, value in enumerate(values):
            tensors[tensor].view(-1)[place] = value
    tensors["validation_labels"][-1] = 0
    tensors["training_labels"][-1] = 5
    originals.save(tensors, {"num_classes": "6"}, path)
    with pytest.raises(ValueError, match=reason) as refused:
        datasets.load(path, num_training=40, device="cpu")
    assert str(refused.value).startswith(str(path))
    assert "grey" not in str(refused.value)


def test_a_set_without_its_parts_is_named(tmp_path):
    tensors, path = saved(tmp_path)
    for lost in ("test_labels", "training_images"):
        originals.save({name: tensor for name, tensor in tensors.items() if name != lost}, {"num_classes": "6"}, path)
        with pytest.raises(ValueError, match=f"{path} holds no images with their labels as its {lost[:4]}"):
            datasets.load(path, num_training=5, device="cpu")
    originals.save({**tensors, "test_labels": tensors["test_labels"][:-1]}, {"num_classes": "6"}, path)
    with pytest.raises(ValueError, match=f"{path} has not as many labels as images in its test split"):
        datasets.load(path, num_training=5, device="cpu")


def test_a_data_set_is_known_by_its_contents(tmp_path):
    tensors, path = saved(tmp_path)

    def digest(**changes):
        originals.save({**tensors, **changes}, {"num_classes": "6"}, path)
        return datasets.load(path, num_training=5, device="cpu").digest

    labels = tensors["training_labels"]
    assert digest() == digest(training_labels=labels.clone())
    assert (
        len({digest(), digest(training_labels=labels.flip(0)), digest(test_images=tensors["test_images"].flip(0))}) == 3
    )


def test_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    tensors, path = saved(tmp_path)
    before = path.read_bytes()

    def fail(*paths):
        raise OSError("disc full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disc full"):
        originals.save({"other": tensors["test_images"]}, {}, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def augmented_slowly(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One pixel at a time, from the definition: shift with the nearest edge, then mirror."""
    number, _, height, width = inputs.shape
    shifts = torch.randint(-4, 5, (2, number, 1), generator=generator).tolist()
    mirrored = (torch.rand(number, 1, generator=generator) < 0.5).tolist()
    outputs = torch.empty_like(inputs)
    for image in range(number):
        down, right = shifts[0][image][0], shifts[1][image][0]
        shifted = torch.empty_like(inputs[image])
        for row in range(height):
            for column in range(width):
                source_row = min(max(row - down, 0), height - 1)
                source_column = min(max(column - right, 0), width - 1)
                shifted[:, row, column] = inputs[image, :, source_row, source_column]
        outputs[image] = shifted.flip(-1) if mirrored[image][0] else shifted
    return outputs


@pytest.mark.parametrize("shape", [(20, 3, 9, 12), (20, 1, 6, 6), (5, 2, 3, 2), (1, 3, 8, 8)])
def test_augmentation_is_that_of_each_image_alone(shape):
    inputs = torch.randn(shape, generator=stream(5))
    before = inputs.clone()
    outputs = datasets.augment(inputs, generator=stream(6))
    assert torch.equal(outputs, augmented_slowly(inputs, stream(6)))
    assert torch.equal(inputs, before)
    assert outputs.is_contiguous()


def test_every_shift_and_both_orientations_are_equally_likely():
    number = 20_000
    # Two marked pixels: their mean place tells the shift, their order the orientation.
    inputs = torch.zeros(number, 1, 21, 21)
    inputs[:, 0, 10, 9], inputs[:, 0, 10, 11] = 1, 2
    before = torch.get_rng_state()

    outputs = datasets.augment(inputs, generator=stream())[:, 0]

    first, second = ((outputs == value).flatten(1).int().argmax(1) for value in (1, 2))
    down, right = first // 21 - 10, (first % 21 + second % 21) // 2 - 10
    mirrored = (first > second).double().mean().item()
    assert mirrored == pytest.approx(0.5, abs=5 * 0.5 / number**0.5)
    for shift in (down, right):
        counts = (shift + 4).bincount()
        assert len(counts) == 9
        expected = number / 9
        assert (counts - expected).abs().max() < 5 * (expected * 8 / 9) ** 0.5
    joint = torch.stack([down, right]).double()
    assert abs(torch.corrcoef(joint)[0, 1].item()) < 5 / number**0.5
    assert torch.equal(torch.get_rng_state(), before)


@given(num_examples=st.integers(1, 200), batch_size=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_epoch_holds_each_example_at_most_once_in_whole_batches(num_examples, batch_size, seed):
    if batch_size > num_examples:
        with pytest.raises(ValueError, match=f"{num_examples} training examples, got {batch_size}"):
            datasets.epoch_order(num_examples, batch_size, generator=stream(seed))
        return
    order = datasets.epoch_order(num_examples, batch_size, generator=stream(seed))
    assert order.shape == (num_examples // batch_size, batch_size)
    assert len(set(order.flatten().tolist())) == order.numel()
    assert set(order.flatten().tolist()) <= set(range(num_examples))
    assert torch.equal(order, datasets.epoch_order(num_examples, batch_size, generator=stream(seed)))


def test_epochs_differ_and_the_examples_left_out_too():
    generator = stream()
    first, second = (datasets.epoch_order(100, 30, generator=generator) for _ in range(2))
    assert not torch.equal(first, second)
    assert set(first.flatten().tolist()) != set(second.flatten().tolist())


def test_batch_size_of_zero_is_an_error():
    with pytest.raises(ValueError, match="batch_size must be from 1"):
        datasets.epoch_order(10, 0, generator=stream())
