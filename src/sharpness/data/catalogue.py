"""Locate the original files of a data set, and check that they have the published sizes.

Standard library only, and no file is read, since every planning calls this. ``originals`` checks the contents when it
reads them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

VARIABLE = "SHARPNESS_DATA"  # the environment variable that names a folder of original files
_LEAST_GZIP = 18  # bytes of gzip's header and trailer


class DataError(ValueError):
    """The files of a data set are missing or damaged; the message is one sentence for the user."""


@dataclass(frozen=True)
class Facts:
    """Facts about a data set that are known without its files."""

    title: str
    input_shape: tuple[int, int, int]  # channels, height, width
    num_classes: int
    num_training: int
    num_validation: int
    num_test: int
    # Bytes of each file, unpacked; 0: unknown, but not empty. No files: the data set comes with a library.
    files: Mapping[str, int] = field(default_factory=dict)
    archive: str = ""  # the published archive, for messages
    folder: str = ""  # subfolder of torchvision's download folder with the files
    system_folder: str = ""  # where a package of the operating system installs them


FACTS = {
    "digits": Facts("digits", (1, 16, 16), 10, num_training=1_300, num_validation=247, num_test=250),
    "fashion_mnist": Facts(
        "Fashion-MNIST",
        (1, 28, 28),
        10,
        num_training=50_000,
        num_validation=10_000,
        num_test=10_000,
        files={
            "train-images-idx3-ubyte": 47_040_016,
            "train-labels-idx1-ubyte": 60_008,
            "t10k-images-idx3-ubyte": 7_840_016,
            "t10k-labels-idx1-ubyte": 10_008,
        },
        archive="the four .gz files of Fashion-MNIST, packed or unpacked",
        folder="FashionMNIST/raw",
        system_folder="/usr/share/datasets/fashion-mnist",  # Debian's package dataset-fashion-mnist
    ),
    "cifar10": Facts(
        "CIFAR-10",
        (3, 32, 32),
        10,
        num_training=45_000,
        num_validation=5_000,
        num_test=10_000,
        files={
            "data_batch_1": 31_035_704,
            "data_batch_2": 31_035_320,
            "data_batch_3": 31_035_999,
            "data_batch_4": 31_035_696,
            "data_batch_5": 31_035_623,
            "test_batch": 31_035_526,
            "batches.meta": 158,
        },
        archive="cifar-10-python.tar.gz, unpacked",
        folder="cifar-10-batches-py",
    ),
    "cifar100": Facts(
        "CIFAR-100",
        (3, 32, 32),
        100,
        num_training=45_000,
        num_validation=5_000,
        num_test=10_000,
        files={"train": 155_249_918, "test": 0, "meta": 0},
        archive="cifar-100-python.tar.gz, unpacked",
        folder="cifar-100-python",
    ),
}
DATA_SETS = tuple(FACTS)


def facts_of(name: str) -> Facts:
    """Look up the facts about a data set.

    Raises:
        ValueError: there is no such data set.
    """
    if name not in FACTS:
        raise ValueError(f"unknown data set {name!r}, known are {', '.join(DATA_SETS)}")
    return FACTS[name]


def num_training(name: str) -> int:
    """Number of images in the training split of a data set."""
    return facts_of(name).num_training


def find(name: str) -> Path | None:
    """Find the folder with a data set's original files; None if they are to be downloaded, or not needed.

    Raises:
        DataError: the folder named in the environment does not hold this data set.
    """
    facts = facts_of(name)
    if not facts.files:
        return None
    named = os.environ.get(VARIABLE)
    if named:
        return _find_below(Path(named).expanduser(), name)
    if facts.system_folder and Path(facts.system_folder).is_dir():
        return Path(facts.system_folder)
    return None


def _find_below(root: Path, name: str) -> Path:
    facts = facts_of(name)
    if not root.is_dir():
        raise DataError(f"{VARIABLE} names {root}, which is not a folder; {_wanted(facts)}")
    folders = ["", name, name.replace("_", "-"), facts.folder, f"{name}/{facts.folder}"]
    # The folder with most of the files, so that a stray file elsewhere does not win; the first of equals.
    best = max((root / folder for folder in folders), key=lambda folder: _num_present(folder, facts))
    if _num_present(best, facts) == 0:
        raise DataError(f"{VARIABLE} names {root}, which does not hold {facts.title}; {_wanted(facts)}")
    return best


def _num_present(folder: Path, facts: Facts) -> int:
    return sum(locate(folder, file) is not None for file in facts.files)


def _wanted(facts: Facts) -> str:
    return f"put {', '.join(facts.files)} there ({facts.archive})"


def advice(name: str) -> str:
    """Say which files to put where, as the end of an error message."""
    return f"set {VARIABLE} to a folder and {_wanted(facts_of(name))}"


def locate(folder: Path, file: str) -> Path | None:
    """Return the path of a file, which may be gzipped if it has MNIST's format; None if it is not there."""
    paths = [folder / file, folder / f"{file}.gz"] if "-idx" in file else [folder / file]
    return next((path for path in paths if path.is_file()), None)


def present(name: str) -> list[Path]:
    """List the original files of the data set that are present.

    Raises:
        DataError: as ``find``.
    """
    folder = find(name)
    paths = [] if folder is None else [locate(folder, file) for file in facts_of(name).files]
    return [path for path in paths if path is not None]


def check(name: str) -> None:
    """Check that all original files are present in their published sizes, unless they are to be downloaded.

    Raises:
        DataError: a file is missing or has another size; the message names it and what to put there.
    """
    folder = find(name)
    if folder is not None:
        whole_files(name, folder)


def whole_files(name: str, folder: Path) -> dict[str, Path]:
    """Return the path of each original file of the data set in ``folder``, by name.

    Raises:
        DataError: as ``check``.
    """
    facts = facts_of(name)
    paths = {}
    for file, published in facts.files.items():
        path = locate(folder, file)
        if path is None:
            raise DataError(f"{folder} lacks {file} of {facts.title}; {_wanted(facts)}")
        size = _size(path)
        if size != (published or size) or not size:
            wanted = f"in place of the {published:,} that were published" if published else "and should not be empty"
            raise DataError(f"{path} is damaged or cut short: it has {size:,} bytes {wanted}; replace it")
        paths[file] = path
    return paths


def _size(path: Path) -> int:
    """Size of a file in bytes, unpacked; that of a gzipped file is read from its end."""
    size = path.stat().st_size
    if path.suffix != ".gz" or size < _LEAST_GZIP:
        return 0 if path.suffix == ".gz" else size
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(), "little")
