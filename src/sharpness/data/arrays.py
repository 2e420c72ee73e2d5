"""A user's own data, as far as planning knows it: a file of arrays, a folder of images by class, or a function.

Standard library only: of a file only the header is read, and a function is never called.
"""

from __future__ import annotations

import ast
import hashlib
import json
import struct
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sharpness.data import catalogue
from sharpness.data.catalogue import DATA_SETS, DataError
from sharpness.runtime import own

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
INPUTS, TARGETS = ("inputs", "test_inputs"), ("targets", "test_targets")
_ARRAYS = (".npz", ".safetensors")
# Of the examples that are not a test set of the user's own, a part for validation, and one for the test.
_FRACTION = 10
_MOST_HASHED = 2**28  # bytes; of a larger file, its size and date are compared


def is_own(data: str) -> bool:
    """Whether a study's ``data`` is a user's own, and no data set of the catalogue."""
    return data not in DATA_SETS


def is_function(data: str) -> bool:
    """Whether it is what a user's function returns."""
    return is_own(data) and own.is_reference(data)


def path_of(data: str) -> Path:
    """Return the path of a file or a folder, which is relative to the study's file."""
    return own.folder() / data


def check(data: str) -> None:
    """Check what can be known of a user's data without running anything.

    Raises:
        DataError, OwnError: there is no such file, folder or function, or it lacks the arrays.
    """
    if is_function(data):
        own.check(data)
    elif is_own(data):
        _sizes(data)


def num_training(data: str) -> int:
    """Return the number of examples in the training split.

    Raises:
        DataError: it cannot be known without running a user's function, or the data are not there.
    """
    if not is_own(data):
        return catalogue.num_training(data)
    if is_function(data):
        raise DataError(
            f"num_training must be given with data {data!r}: planning does not run your function to count examples"
        )
    return split_sizes(*_sizes(data))[0]


def split_sizes(num_examples: int, num_test: int) -> tuple[int, int, int]:
    """Divide examples into a training, a validation and a test split.

    Args:
        num_examples: without the user's own test set.
        num_test: of that set; 0 if there is none, so that one is drawn too.
    """
    part = max(1, num_examples // _FRACTION)
    drawn = 0 if num_test else part
    return num_examples - part - drawn, part, num_test or drawn


def fingerprint(data: str) -> str:
    """Hash the content of a file or a folder; of a large one, its size and date."""
    if is_function(data):
        return ""
    path = path_of(data)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    states = [file.stat() for file in files]
    is_small = sum(state.st_size for state in states) <= _MOST_HASHED
    found = hashlib.sha256()
    for file, state in zip(files, states, strict=True):
        found.update(f"{file.relative_to(path)} {state.st_size} {'' if is_small else state.st_mtime_ns}\n".encode())
        if is_small:
            found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:12]


def images_of(data: str) -> dict[str, list[tuple[str, Path]]]:
    """List class and file of each image, by the split: "" for all, or "train" and "test" where there are such folders.

    Raises:
        DataError: there is no image in a folder of a class.
    """
    root = path_of(data)
    parts = ("train", "test") if (root / "train").is_dir() and (root / "test").is_dir() else ("",)
    found = {part: list(_in_classes(root / part)) for part in parts}
    if not all(found.values()):
        raise DataError(
            f"{root} has no images in folders of classes, as {root}/cat/1.png; the endings are {', '.join(IMAGES)}"
        )
    return found


def _in_classes(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        yield from (
            (folder.name, file) for file in sorted(folder.iterdir()) if file.suffix.lower() in IMAGES and file.is_file()
        )


def _sizes(data: str) -> tuple[int, int]:
    """Return the numbers of examples and of a user's own test examples."""
    path = path_of(data)
    state = path.stat() if path.exists() else None
    return _sizes_at(data, path, None if state is None else state.st_mtime_ns)


@cache
def _sizes_at(data: str, path: Path, _: int | None) -> tuple[int, int]:
    if path.is_dir():
        counts = [len(images) for images in images_of(data).values()]
        return counts[0], sum(counts[1:])
    if not path.is_file():
        raise DataError(
            f"data is {data!r}, but {path} does not exist: a path is relative to the study's file, and known data sets "
            f"are {', '.join(DATA_SETS)}"
        )
    if path.suffix not in _ARRAYS:
        raise DataError(f"data is {data!r}, must end with {' or '.join(_ARRAYS)}, or be a folder or file.py:function")
    shapes = _shapes(path)
    numbers = []
    for inputs, targets in zip(INPUTS, TARGETS, strict=True):
        pair = [name for name in (inputs, targets) if name in shapes]
        if len(pair) == 1 or (inputs == "inputs" and not pair):
            lacking = targets if inputs in shapes else inputs
            raise DataError(f"{path} lacks the array {lacking!r}; it has {', '.join(shapes) or 'none'}")
        lengths = {name: (shapes[name] or [0])[0] for name in pair}
        if len(set(lengths.values())) > 1 or 0 in lengths.values():
            raise DataError(
                f"{path}: {inputs} and {targets} must have as many examples as each other, at least one, got "
                f"{' and '.join(str(list(shapes[name])) for name in pair)}"
            )
        numbers.append(next(iter(lengths.values()), 0))
    return numbers[0], numbers[1]


def _shapes(path: Path) -> Mapping[str, list[int]]:
    """Read the shape of each array from the headers of a file."""
    try:
        return dict(_of_npz(path) if path.suffix == ".npz" else _of_safetensors(path))
    except (OSError, ValueError, KeyError, SyntaxError, struct.error, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path} is no file of arrays ({' '.join(str(error).split())})") from None


def _of_npz(path: Path) -> Iterator[tuple[str, list[int]]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                magic, (major, _) = file.read(6), file.read(2)
                if magic != b"\x93NUMPY":
                    raise ValueError(f"{member} is no array")
                (length,) = struct.unpack("<H" if major == 1 else "<I", file.read(2 if major == 1 else 4))
                header: dict[str, Any] = ast.literal_eval(file.read(length).decode("latin1"))
            yield member.removesuffix(".npy"), list(header["shape"])


def _of_safetensors(path: Path) -> Iterator[tuple[str, list[int]]]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > path.stat().st_size:
            raise ValueError("its header is longer than the file")
        header = json.loads(file.read(length))
    yield from ((name, entry["shape"]) for name, entry in header.items() if name != "__metadata__")
