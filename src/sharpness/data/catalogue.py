"""Where the original files of a data set are, and whether they are whole.

Standard library only: the workflow asks before it starts anything expensive.
"""

from __future__ import annotations

import gzip
import math
import os
import pickletools
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

VARIABLE = "SHARPNESS_DATA"  # the environment variable that names a folder of original files


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
    files: tuple[str, ...] = ()  # none: the data set comes with a library
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
        files=(
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        ),
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
        files=(*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
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
        files=("train", "test", "meta"),
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
    """Check that the original files are all there and none is cut short; what will be downloaded passes.

    Raises:
        SourceError: a file is missing or damaged; the message names it and says what to put there.
    """
    folder = find(name)
    if folder is not None:
        whole_files(name, folder)


def whole_files(name: str, folder: Path) -> dict[str, Path]:
    """The path of each original file of the data set in ``folder``, read to its end.

    Raises:
        SourceError: as ``check``.
    """
    facts = source(name)
    paths = {}
    for file in facts.files:
        path = locate(folder, file)
        if path is None:
            raise SourceError(f"{folder} lacks {file} of {facts.title}; {_wanted(facts)}")
        try:
            _read_to_the_end(path)
        # All that reading, unpacking and parsing raise on a file that is cut short or something else.
        except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
            reason = " ".join(str(error).split())
            raise SourceError(f"{path} is damaged or cut short ({reason}); replace it") from error
        paths[file] = path
    return paths


def _read_to_the_end(path: Path) -> None:
    packed = path.suffix == ".gz"
    with cast("BinaryIO", gzip.open(path, "rb")) if packed else path.open("rb") as stream:
        if "-idx" in path.name:
            _read_idx(stream, num_axes=int(path.name.partition("-idx")[2][0]))
        else:
            for _ in pickletools.genops(stream):
                pass


def _read_idx(stream: BinaryIO, *, num_axes: int) -> None:
    """Read a file in the format of MNIST: two zeros, type, number of axes, length of each, unsigned bytes."""
    magic = stream.read(4)
    if magic != bytes([0, 0, 8, num_axes]):
        raise ValueError(f"it starts with {magic.hex(' ') or 'nothing'} in place of 00 00 08 {num_axes:02x}")
    header = stream.read(4 * num_axes)
    if len(header) < 4 * num_axes:
        raise ValueError("it ends within its header")
    expected = math.prod(int.from_bytes(header[4 * axis : 4 * axis + 4], "big") for axis in range(num_axes))
    length = 0
    while block := stream.read(1 << 20):
        length += len(block)
    if length != expected:
        raise ValueError(f"its header announces {expected} bytes, {length} follow")
