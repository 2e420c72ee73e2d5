"""Where the original files of a data set are, and whether they are whole."""

import gzip
import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sharpness.data import catalogue

CIFAR10_FILES = [*(f"data_batch_{number}" for number in (1, 2, 3, 4, 5)), "test_batch", "batches.meta"]
FASHION_MNIST_FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(autouse=True)
def no_files_of_this_machine(monkeypatch):
    monkeypatch.delenv("SHARPNESS_DATA", raising=False)
    fashion_mnist = replace(catalogue.SOURCES["fashion_mnist"], system_folder="")
    monkeypatch.setitem(catalogue.SOURCES, "fashion_mnist", fashion_mnist)


def idx_file(shape: tuple[int, ...]) -> bytes:
    header = bytes([0, 0, 8, len(shape)]) + b"".join(length.to_bytes(4, "big") for length in shape)
    size = 1
    for length in shape:
        size *= length
    return header + bytes(index % 251 for index in range(size))


def write_fashion_mnist(folder: Path, *, packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in FASHION_MNIST_FILES:
        content = idx_file((5, 28, 28) if "idx3" in file else (5,))
        path = folder / (f"{file}.gz" if packed else file)
        path.write_bytes(gzip.compress(content) if packed else content)


def write_cifar10(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in CIFAR10_FILES:
        (folder / file).write_bytes(pickle.dumps({"data": bytes(3072), "labels": [1, 2, 3]}, protocol=2))


WRITERS = {
    "cifar10": write_cifar10,
    "fashion_mnist": lambda folder: write_fashion_mnist(folder, packed=True),
}


def test_data_sets_are_the_four_known_ones():
    assert catalogue.DATA_SETS == ("digits", "fashion_mnist", "cifar10", "cifar100")


@pytest.mark.parametrize(
    ("name", "sizes", "input_shape", "num_classes"),
    [
        ("digits", (1_300, 247, 250), (1, 16, 16), 10),
        ("fashion_mnist", (50_000, 10_000, 10_000), (1, 28, 28), 10),
        ("cifar10", (45_000, 5_000, 10_000), (3, 32, 32), 10),
        ("cifar100", (45_000, 5_000, 10_000), (3, 32, 32), 100),
    ],
)
def test_facts_about_each_data_set(name, sizes, input_shape, num_classes):
    facts = catalogue.source(name)
    assert (facts.num_training, facts.num_validation, facts.num_test) == sizes
    assert (facts.input_shape, facts.num_classes) == (input_shape, num_classes)
    assert catalogue.num_training(name) == sizes[0]


@pytest.mark.parametrize("function", [catalogue.source, catalogue.find, catalogue.check, catalogue.num_training])
def test_unknown_data_set_is_an_error_that_lists_the_known_ones(function):
    with pytest.raises(ValueError, match=r"'imagenet'.*digits, fashion_mnist, cifar10, cifar100"):
        function("imagenet")


def test_module_needs_the_standard_library_only():
    code = "import sys, sharpness.data.catalogue; print(*{name.partition('.')[0] for name in sys.modules})"
    environment = {**os.environ, "PYTHONPATH": str(Path(catalogue.__file__).parents[2])}
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert not {"torch", "numpy", "torchvision", "pandas", "yaml"} & set(run.stdout.split())


@pytest.mark.parametrize("name", catalogue.DATA_SETS)
def test_without_a_named_folder_nothing_is_found_and_nothing_is_wrong(name):
    assert catalogue.find(name) is None
    catalogue.check(name)


def test_empty_variable_counts_as_none(monkeypatch):
    monkeypatch.setenv("SHARPNESS_DATA", "")
    assert catalogue.find("cifar10") is None


def test_digits_need_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SHARPNESS_DATA", str(tmp_path / "missing"))
    assert catalogue.find("digits") is None
    catalogue.check("digits")


def test_fashion_mnist_of_the_system_is_found(monkeypatch, tmp_path):
    facts = replace(catalogue.source("fashion_mnist"), system_folder=str(tmp_path))
    monkeypatch.setitem(catalogue.SOURCES, "fashion_mnist", facts)
    write_fashion_mnist(tmp_path, packed=True)
    assert catalogue.find("fashion_mnist") == tmp_path
    catalogue.check("fashion_mnist")


@pytest.mark.parametrize(
    ("name", "below"),
    [
        ("cifar10", "."),
        ("cifar10", "cifar10"),
        ("cifar10", "cifar-10-batches-py"),
        ("cifar10", "cifar10/cifar-10-batches-py"),
        ("fashion_mnist", "."),
        ("fashion_mnist", "fashion_mnist"),
        ("fashion_mnist", "fashion-mnist"),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("fashion_mnist", "fashion_mnist/FashionMNIST/raw"),
    ],
)
def test_files_are_found_in_every_usual_layout(monkeypatch, tmp_path, name, below):
    WRITERS[name](tmp_path / below)
    monkeypatch.setenv("SHARPNESS_DATA", str(tmp_path))
    assert catalogue.find(name).samefile(tmp_path / below)
    catalogue.check(name)


def test_stray_file_does_not_hide_the_whole_folder(monkeypatch, tmp_path):
    write_cifar10(tmp_path / "cifar-10-batches-py")
    (tmp_path / "test_batch").touch()
    monkeypatch.setenv("SHARPNESS_DATA", str(tmp_path))
    assert catalogue.find("cifar10") == tmp_path / "cifar-10-batches-py"


@pytest.mark.parametrize("packed", [True, False])
def test_whole_files_have_their_paths(tmp_path, packed):
    write_fashion_mnist(tmp_path, packed=packed)
    suffix = ".gz" if packed else ""
    expected = {file: tmp_path / f"{file}{suffix}" for file in FASHION_MNIST_FILES}
    assert catalogue.whole_files("fashion_mnist", tmp_path) == expected


def test_folder_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SHARPNESS_DATA", str(tmp_path / "missing"))
    for function in (catalogue.find, catalogue.check):
        with pytest.raises(
            catalogue.SourceError, match=r"SHARPNESS_DATA names .*missing, which is not a folder; put data_b"
        ):
            function("cifar10")


def test_folder_of_another_data_set_names_the_expected_files(monkeypatch, tmp_path):
    write_fashion_mnist(tmp_path, packed=False)
    monkeypatch.setenv("SHARPNESS_DATA", str(tmp_path))
    message = (
        rf"{tmp_path}, which does not hold CIFAR-10; put {', '.join(CIFAR10_FILES)} there \(cifar-10-python.tar.gz"
    )
    with pytest.raises(catalogue.SourceError, match=message):
        catalogue.check("cifar10")


@pytest.mark.parametrize(
    ("name", "file"), [("cifar10", "data_batch_3"), ("fashion_mnist", "t10k-labels-idx1-ubyte.gz")]
)
def test_missing_file_is_named_with_its_folder(monkeypatch, tmp_path, name, file):
    WRITERS[name](tmp_path / name)
    (tmp_path / name / file).unlink()
    monkeypatch.setenv("SHARPNESS_DATA", str(tmp_path))
    with pytest.raises(catalogue.SourceError, match=rf"{tmp_path / name} lacks {file.removesuffix('.gz')} .*; put "):
        catalogue.check(name)


def test_cifar_file_packed_with_gzip_is_missing_as_nothing_reads_it(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "test_batch").rename(tmp_path / "test_batch.gz")
    with pytest.raises(catalogue.SourceError, match="lacks test_batch"):
        catalogue.whole_files("cifar10", tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 20, 0.5, -1])
@pytest.mark.parametrize(
    ("name", "packed", "file"),
    [
        ("cifar10", False, "test_batch"),
        ("cifar10", False, "batches.meta"),
        ("fashion_mnist", True, "train-images-idx3-ubyte.gz"),
        ("fashion_mnist", True, "t10k-labels-idx1-ubyte.gz"),
        ("fashion_mnist", False, "train-images-idx3-ubyte"),
        ("fashion_mnist", False, "t10k-labels-idx1-ubyte"),
    ],
)
def test_file_that_is_cut_short_is_named(tmp_path, name, packed, file, kept):
    if name == "cifar10":
        write_cifar10(tmp_path)
    else:
        write_fashion_mnist(tmp_path, packed=packed)
    content = (tmp_path / file).read_bytes()
    length = int(kept * len(content)) if isinstance(kept, float) else min(kept, len(content) - 1)
    (tmp_path / file).write_bytes(content[:length])
    with pytest.raises(catalogue.SourceError, match=rf"{tmp_path / file} is damaged or cut short") as caught:
        catalogue.whole_files(name, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_file((5, 28, 28)) + b"x", "announces 3920 bytes, 3921 follow"),
        (idx_file((5,)), "starts with 00 00 08 01 in place of 00 00 08 03"),
        (b"<html>not found</html>", "starts with"),
    ],
)
def test_file_with_other_content_is_named(tmp_path, content, message):
    write_fashion_mnist(tmp_path, packed=False)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(catalogue.SourceError, match=rf"train-images-idx3-ubyte is damaged .*{message}"):
        catalogue.whole_files("fashion_mnist", tmp_path)


def test_wrong_byte_inside_a_packed_file_is_noticed(tmp_path):
    write_fashion_mnist(tmp_path, packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(catalogue.SourceError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        catalogue.whole_files("fashion_mnist", tmp_path)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's Fashion-MNIST is not installed")
def test_real_fashion_mnist_is_whole_and_quickly_checked():
    start = time.process_time()
    catalogue.whole_files("fashion_mnist", DEBIAN)
    assert time.process_time() - start < 2
