"""Where the original files of a data set are, and whether they are whole."""

import gzip
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sharpness.data import catalogue

CIFAR10_FILES = [*(f"data_batch_{number}" for number in (1, 2, 3, 4, 5)), "test_batch", "batches.meta"]
FASHION_MNIST_FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
PUBLISHED = catalogue.FACTS["fashion_mnist"]
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(autouse=True)
def small_files_and_none_of_this_machine(monkeypatch):
    """A megabyte or more of each published file is not needed to see how many bytes there are."""
    monkeypatch.delenv("SHARPNESS_DATA", raising=False)
    for name, files in SIZES.items():
        monkeypatch.setitem(catalogue.FACTS, name, replace(catalogue.FACTS[name], system_folder="", files=files))


SIZES = {
    "fashion_mnist": {file: 3920 if "images" in file else 13 for file in FASHION_MNIST_FILES},
    "cifar10": {file: 40 + len(file) for file in CIFAR10_FILES},
    "cifar100": {"train": 50, "test": 0, "meta": 0},
}


def content(file: str, size: int) -> bytes:
    return (file.encode() * size)[:size]


def write_fashion_mnist(folder: Path, *, packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, size in SIZES["fashion_mnist"].items():
        if packed:
            (folder / f"{file}.gz").write_bytes(gzip.compress(content(file, size)))
        else:
            (folder / file).write_bytes(content(file, size))


def write_cifar(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, size in SIZES[name].items():
        (folder / file).write_bytes(content(file, size or 7))


def write_cifar10(folder: Path) -> None:
    write_cifar(folder, "cifar10")


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
    facts = catalogue.facts_of(name)
    assert (facts.num_training, facts.num_validation, facts.num_test) == sizes
    assert (facts.input_shape, facts.num_classes) == (input_shape, num_classes)
    assert catalogue.num_training(name) == sizes[0]


@pytest.mark.parametrize("function", [catalogue.facts_of, catalogue.find, catalogue.check, catalogue.num_training])
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
    facts = replace(catalogue.facts_of("fashion_mnist"), system_folder=str(tmp_path))
    monkeypatch.setitem(catalogue.FACTS, "fashion_mnist", facts)
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
            catalogue.DataError, match=r"SHARPNESS_DATA names .*missing, which is not a folder; put data_b"
        ):
            function("cifar10")


def test_folder_of_another_data_set_names_the_expected_files(monkeypatch, tmp_path):
    write_fashion_mnist(tmp_path, packed=False)
    monkeypatch.setenv("SHARPNESS_DATA", str(tmp_path))
    message = (
        rf"{tmp_path}, which does not hold CIFAR-10; put {', '.join(CIFAR10_FILES)} there \(cifar-10-python.tar.gz"
    )
    with pytest.raises(catalogue.DataError, match=message):
        catalogue.check("cifar10")


@pytest.mark.parametrize(
    ("name", "file"), [("cifar10", "data_batch_3"), ("fashion_mnist", "t10k-labels-idx1-ubyte.gz")]
)
def test_missing_file_is_named_with_its_folder(monkeypatch, tmp_path, name, file):
    WRITERS[name](tmp_path / name)
    (tmp_path / name / file).unlink()
    monkeypatch.setenv("SHARPNESS_DATA", str(tmp_path))
    with pytest.raises(catalogue.DataError, match=rf"{tmp_path / name} lacks {file.removesuffix('.gz')} .*; put "):
        catalogue.check(name)


def test_cifar_file_packed_with_gzip_is_missing_as_nothing_reads_it(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "test_batch").rename(tmp_path / "test_batch.gz")
    with pytest.raises(catalogue.DataError, match="lacks test_batch"):
        catalogue.whole_files("cifar10", tmp_path)


@pytest.mark.parametrize("size", [0, 1, 17, 0.5, -1])
@pytest.mark.parametrize(
    ("name", "packed", "file"),
    [
        ("cifar10", False, "test_batch"),
        ("cifar10", False, "batches.meta"),
        ("cifar100", False, "train"),
        ("fashion_mnist", True, "train-images-idx3-ubyte.gz"),
        ("fashion_mnist", True, "t10k-labels-idx1-ubyte.gz"),
        ("fashion_mnist", False, "train-images-idx3-ubyte"),
        ("fashion_mnist", False, "t10k-labels-idx1-ubyte"),
    ],
)
def test_file_that_is_cut_short_is_named(tmp_path, name, packed, file, size):
    if name == "fashion_mnist":
        write_fashion_mnist(tmp_path, packed=packed)
    else:
        write_cifar(tmp_path, name)
    whole = (tmp_path / file).read_bytes()
    kept = int(size * len(whole)) if isinstance(size, float) else min(size, len(whole) - 1)
    (tmp_path / file).write_bytes(whole[:kept])
    with pytest.raises(catalogue.DataError, match=rf"{tmp_path / file} is damaged or cut short: it has") as caught:
        catalogue.whole_files(name, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", [True, False])
def test_longer_file_is_named_with_both_sizes(tmp_path, packed):
    write_fashion_mnist(tmp_path, packed=packed)
    path = tmp_path / f"train-images-idx3-ubyte{'.gz' if packed else ''}"
    longer = content(path.name, 3921)
    path.write_bytes(gzip.compress(longer) if packed else longer)
    with pytest.raises(catalogue.DataError, match=rf"{path} .*: it has 3,921 bytes in place of the 3,920 that were"):
        catalogue.whole_files("fashion_mnist", tmp_path)


@pytest.mark.parametrize("file", ["test", "meta"])
def test_file_of_unknown_size_is_not_empty(tmp_path, file):
    write_cifar(tmp_path, "cifar100")
    assert set(catalogue.whole_files("cifar100", tmp_path)) == {"train", "test", "meta"}
    (tmp_path / file).write_bytes(b"")
    with pytest.raises(catalogue.DataError, match=rf"{tmp_path / file} is damaged or cut short: it has 0 bytes"):
        catalogue.whole_files("cifar100", tmp_path)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's Fashion-MNIST is not installed")
def test_planning_reads_no_file_of_the_real_fashion_mnist(monkeypatch):
    monkeypatch.setitem(catalogue.FACTS, "fashion_mnist", PUBLISHED)
    start = time.process_time()
    assert len(catalogue.whole_files("fashion_mnist", DEBIAN)) == 4
    assert time.process_time() - start < 0.05
