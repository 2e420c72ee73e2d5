"""Where the original files of a data set are, and whether they are there in the size that was published.

Standard library only, and no file is read, since the workflow asks whenever it plans. What is in them is checked when
they are read, by ``originals``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

VARIABLE = "SHARPNESS_DATA"  # the environment variable that names a folder of original files
_LEAST_GZIP = 18  # bytes of a header and of what follows the packed ones


class SourceError(ValueError):
    """The files of a data set are missing or damaged; the message is one sentence for the user."""


@dataclass(frozen=True)
class Source:
    """What is known of a data set before any of its files is opened."""

    title: str
    input_shape: tuple[int, int, int]  # channels, height, width
    num_classes: int
    num_training: int
    num_validation: int
    num_test: int
    # Bytes of each, unpacked; 0: any number but none. No files: the data set comes with a library.
    files: Mapping[str, int] = field(default_factory=dict)
    archive: str = ""  # what the files are published as, for messages
    folder: str = ""  # where the files lie below the folder into which torchvision downloads
    system_folder: str = ""  # where a package of the operating system puts them


SOURCES = {
    "digits": Source("digits", (1, 16, 16), 10, num_training=1_300, num_validation=247, num_test=250),
    "fashion_mnist": Source(
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
    "cifar10": Source(
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
    "cifar100": Source(
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
DATA_SETS = tuple(SOURCES)


def source(name: str) -> Source:
    """The facts about a data set.

    Raises:
        ValueError: there is no such data set.
    """
    if name not in SOURCES:
        raise ValueError(f"unknown data set {name!r}, known are {', '.join(DATA_SETS)}")
    return SOURCES[name]


def num_training(name: str) -> int:
    """Number of images in the training split."""
    return source(name).num_training


def find(name: str) -> Path | None:
    """The folder of the data set's original files; None where there are none yet, or none are needed.

    Raises:
        SourceError: the user named a folder, and this data set is not in it.
    """
    facts = source(name)
    if not facts.files:
        return None
    named = os.environ.get(VARIABLE)
    if named:
        return _find_below(Path(named).expanduser(), name)
    if facts.system_folder and Path(facts.system_folder).is_dir():
        return Path(facts.system_folder)
    return None


def _find_below(root: Path, name: str) -> Path:
    facts = source(name)
    if not root.is_dir():
        raise SourceError(f"{VARIABLE} names {root}, which is not a folder; {_wanted(facts)}")
    folders = ["", name, name.replace("_", "-"), facts.folder, f"{name}/{facts.folder}"]
    # The fullest folder, so that one stray file beside it does not hide it; of equals the first.
    best = max((root / folder for folder in folders), key=lambda folder: _num_present(folder, facts))
    if _num_present(best, facts) == 0:
        raise SourceError(f"{VARIABLE} names {root}, which does not hold {facts.title}; {_wanted(facts)}")
    return best


def _num_present(folder: Path, facts: Source) -> int:
    return sum(locate(folder, file) is not None for file in facts.files)


def _wanted(facts: Source) -> str:
    return f"put {', '.join(facts.files)} there ({facts.archive})"


def advice(name: str) -> str:
    """What to put where, the end of a sentence that says what went wrong."""
    return f"set {VARIABLE} to a folder and {_wanted(source(name))}"


def locate(folder: Path, file: str) -> Path | None:
    """The path of a file, which may be packed with gzip if it is in the format of MNIST."""
    paths = [folder / file, folder / f"{file}.gz"] if "-idx" in file else [folder / file]
    return next((path for path in paths if path.is_file()), None)


def present(name: str) -> list[Path]:
    """The original files of the data set that are there.

    Raises:
        SourceError: as ``find``.
    """
    folder = find(name)
    paths = [] if folder is None else [locate(folder, file) for file in source(name).files]
    return [path for path in paths if path is not None]


def check(name: str) -> None:
    """Check that the original files are all there, in the size that was published; what will be downloaded passes.

    Raises:
        SourceError: a file is missing or of another size; the message names it and says what to put there.
    """
    folder = find(name)
    if folder is not None:
        whole_files(name, folder)


def whole_files(name: str, folder: Path) -> dict[str, Path]:
    """The path of each original file of the data set in ``folder``.

    Raises:
        SourceError: as ``check``.
    """
    facts = source(name)
    paths = {}
    for file, published in facts.files.items():
        path = locate(folder, file)
        if path is None:
            raise SourceError(f"{folder} lacks {file} of {facts.title}; {_wanted(facts)}")
        size = _size(path)
        if size != (published or size) or not size:
            wanted = f"in place of the {published:,} that were published" if published else "and should not be empty"
            raise SourceError(f"{path} is damaged or cut short: it has {size:,} bytes {wanted}; replace it")
        paths[file] = path
    return paths


def _size(path: Path) -> int:
    """Bytes of a file; of a packed one, what gzip says at its end of the unpacked one."""
    size = path.stat().st_size
    if path.suffix != ".gz" or size < _LEAST_GZIP:
        return 0 if path.suffix == ".gz" else size
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(), "little")
