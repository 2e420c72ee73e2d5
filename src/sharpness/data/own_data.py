"""Read a user's own data into tensors: a file of arrays, a folder of images by class, or what a function returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from safetensors.torch import load_file
from torch import Tensor

from sharpness.data import arrays
from sharpness.data.arrays import INPUTS, TARGETS
from sharpness.data.catalogue import DataError
from sharpness.runtime import own

_NAMES = ("inputs", "targets", "test_inputs", "test_targets")


def prepare(data: str) -> dict[str, Tensor]:
    """Read a user's data.

    Floating-point arrays become float32; whole numbers int64, but images of uint8 stay as they are, to be normalised.

    Args:
        data: as a study names them.

    Returns:
        ``inputs`` and ``targets`` [N, ...], and ``test_inputs`` and ``test_targets`` where there are.

    Raises:
        DataError: an array is missing, empty, of another type, or not finite, or they do not fit to one another.
        OwnError: the user's function failed.
    """
    if arrays.is_function(data):
        place = own.place_of_definition(data)
        found = _named(own.call(data, own.load(data)), place)
    elif (path := arrays.path_of(data)).is_dir():
        place, found = str(path), _images(data)
    else:
        place, found = str(path), _file(path)
    if unknown := sorted(str(name) for name in found if name not in _NAMES):
        near = get_close_matches(unknown[0], _NAMES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_NAMES)}"
        raise DataError(f"{place}: has the array {unknown[0]!r}, which no run takes; {hint}")
    tensors = {name: _tensor(found[name], name, place) for name in _NAMES if name in found}
    _check(tensors, place)
    return tensors


def _named(returned: Any, place: str) -> Mapping[str, Any]:
    """What a function returned, by name."""
    if isinstance(returned, Mapping):
        return returned
    if isinstance(returned, tuple | list) and len(returned) in (2, 4):
        return dict(zip(_NAMES, returned, strict=False))
    raise DataError(
        f"{place}: must return a mapping with inputs and targets (and test_inputs, test_targets), or a tuple of these "
        f"two or four, got {type(returned).__name__}"
    )


def _file(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    with np.load(path, allow_pickle=False) as file:
        return {name: _array(file, name, path) for name in file}


def _array(file: Mapping[str, Any], name: str, path: Path) -> Any:
    try:
        return file[name]
    except ValueError as error:  # objects, which would be unpickled
        raise DataError(f"{path}: {name} cannot be read ({' '.join(str(error).split())})") from None


def _images(data: str) -> dict[str, Any]:
    """Images of one size, as uint8 [N, channels, H, W], and the index of each one's class in alphabetical order."""
    parts = arrays.images_of(data)
    classes = sorted({name for images in parts.values() for name, _ in images})
    found: dict[str, Any] = {}
    for (part, images), inputs, targets in zip(parts.items(), INPUTS, TARGETS, strict=False):
        pixels = [_pixels(file) for _, file in images]
        for (_, file), image in zip(images, pixels, strict=True):
            if image.shape != pixels[0].shape:
                raise DataError(
                    f"{file} has the shape {list(image.shape)}, {images[0][1]} {list(pixels[0].shape)}: all images "
                    "must have one size, and all or none colours"
                )
        found[inputs] = np.stack(pixels)
        found[targets] = np.array([classes.index(name) for name, _ in images])
        assert part in ("", "train", "test")
    return found


def _pixels(file: Path) -> Any:
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA", "I;16") else "RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is no image that can be read ({' '.join(str(error).split())})") from None
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _tensor(array: Any, name: str, place: str) -> Tensor:
    if isinstance(array, np.ma.MaskedArray):
        raise DataError(f"{place}: {name} is a masked array: leave out what is masked, or give .filled(value)")
    try:
        if isinstance(array, Tensor):
            tensor = array.detach().cpu()
        else:
            given = np.asarray(array)
            tensor = torch.from_numpy(given.astype(given.dtype.newbyteorder("=")))
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: {name} is no array of numbers ({' '.join(str(error).split())})") from None
    if tensor.is_complex() or (tensor.dtype == torch.bool and "targets" not in name):
        raise DataError(f"{place}: {name} is of {str(tensor.dtype)[6:]}, must be real or whole numbers")
    if not tensor.dim() or not tensor.numel():
        raise DataError(f"{place}: {name} has the shape {list(tensor.shape)}, must have at least one example")
    if tensor.is_floating_point():
        stored = tensor.float().contiguous()
        if not bool(torch.isfinite(stored).all()):
            number, missing = int((~torch.isfinite(stored)).sum()), int((~torch.isfinite(tensor)).sum())
            raise DataError(
                f"{place}: {number:,} values of {name} are not finite numbers"
                f"{'' if missing else ' in float32, as which they are trained on'}"
            )
        return stored
    is_image = tensor.dtype == torch.uint8 and "inputs" in name and tensor.dim() > 2
    return tensor.contiguous() if is_image else tensor.long().contiguous()


def _check(tensors: Mapping[str, Tensor], place: str) -> None:
    """Check that inputs and targets fit to each other, and the test set to them."""
    for inputs, targets in zip(INPUTS, TARGETS, strict=True):
        pair: Sequence[str] = [name for name in (inputs, targets) if name in tensors]
        if len(pair) == 1 or (inputs == "inputs" and not pair):
            raise DataError(f"{place}: lacks the array {(targets if inputs in pair else inputs)!r}")
        if pair and len(tensors[inputs]) != len(tensors[targets]):
            raise DataError(f"{place}: has {len(tensors[inputs])} {inputs} and {len(tensors[targets])} {targets}")
    for name in ("inputs", "targets"):
        other = tensors.get(f"test_{name}", tensors[name])
        if other.shape[1:] != tensors[name].shape[1:] or other.dtype != tensors[name].dtype:
            raise DataError(
                f"{place}: test_{name} has examples of {list(other.shape[1:])}, {str(other.dtype)[6:]}, {name} of "
                f"{list(tensors[name].shape[1:])}, {str(tensors[name].dtype)[6:]}"
            )
    # -100 is no class: cross-entropy leaves such places out.
    for name in TARGETS:
        if name in tensors and not tensors[name].is_floating_point():
            lowest = int(tensors[name].min())
            if lowest < 0 and lowest != -100:
                raise DataError(f"{place}: {name} has the class {lowest}, classes are 0, 1, 2, ...")
    if len(tensors["inputs"]) < 3:
        raise DataError(f"{place}: needs at least three examples, for training, validation and test")
