"""Read the original files of a data set, split it, and save it as one file of tensors."""

from __future__ import annotations

import gzip
import http.client
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import check_integrity

from sharpness.data import catalogue
from sharpness.data.catalogue import DataError
from sharpness.runtime.sealed import save_sealed

CIFARS = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
# Of the unpacked files, since a package may have compressed them again; torchvision knows only those of its .gz files.
FASHION_MNIST_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


def prepare(name: str, download_folder: Path) -> dict[str, Tensor]:
    """Read the original files of a data set, or download them, and split it.

    Args:
        name: one of ``catalogue.DATA_SETS``.
        download_folder: where to download files that are not present.

    Returns:
        ``{training,validation,test}_images`` [N, channels, H, W], uint8 (digits: float32), and ``..._labels`` [N],
        int64; and ``order``, the index of each of these images in the original files, training set first.

    Raises:
        DataError: a file is missing or damaged, or the download failed.
    """
    facts = catalogue.facts_of(name)
    if facts.files:
        folder = catalogue.find(name) or _download(name, download_folder)
        files = catalogue.whole_files(name, folder)
        images, labels = _read_cifar(name, folder) if name in CIFARS else _read_fashion_mnist(files)
        num_shuffled = facts.num_training + facts.num_validation
    else:
        images, labels = _read_digits()
        num_shuffled = len(labels)  # no test set of its own: it is split off
    # The authors' split: numpy's permutation with this seed, the first part for training, the last for validation.
    shuffled = np.random.RandomState(0).choice(num_shuffled, num_shuffled, replace=False)
    order = torch.cat([torch.from_numpy(shuffled), torch.arange(num_shuffled, len(labels))])
    tensors = {"order": order}
    sizes = [facts.num_training, facts.num_validation, facts.num_test]
    for split, indices in zip(("training", "validation", "test"), torch.split(order, sizes), strict=True):
        tensors[f"{split}_images"] = images[indices]
        tensors[f"{split}_labels"] = labels[indices]
    return tensors


def _download(name: str, download_folder: Path) -> Path:
    facts = catalogue.facts_of(name)
    data_set = CIFARS.get(name, torchvision.datasets.FashionMNIST)
    try:
        download_folder.mkdir(parents=True, exist_ok=True)
        data_set(root=download_folder, download=True)
    # Raised by network and disk, and by torchvision for a wrong checksum.
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"cannot download {facts.title} ({reason}); {catalogue.advice(name)}") from error
    return download_folder / facts.folder


def _read_cifar(name: str, folder: Path) -> tuple[Tensor, Tensor]:
    original = CIFARS[name]
    for file, md5 in [*original.train_list, *original.test_list, (original.meta["filename"], original.meta["md5"])]:
        _check_md5(folder / file, md5, origin=folder / file)
    # Subclassed to allow a folder of any name.
    data_set: Any = type(original.__name__, (original,), {"base_folder": ""})
    parts = [data_set(root=folder, train=train) for train in (True, False)]
    images = torch.cat([torch.from_numpy(part.data).permute(0, 3, 1, 2) for part in parts])
    return images.contiguous(), torch.cat([torch.tensor(part.targets) for part in parts])


def _read_fashion_mnist(files: dict[str, Path]) -> tuple[Tensor, Tensor]:
    images, labels = [], []
    for file, path in files.items():
        with tempfile.TemporaryDirectory() as temporary:
            unpacked = path
            if path.suffix == ".gz":
                unpacked = Path(temporary) / file
                unpacked.write_bytes(_unpacked(path))
            _check_md5(unpacked, FASHION_MNIST_MD5[file], origin=path)
            if "images" in file:
                images.append(read_image_file(str(unpacked)).unsqueeze(1))
            else:
                labels.append(read_label_file(str(unpacked)))
    return torch.cat(images), torch.cat(labels)


def _unpacked(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is damaged or cut short ({reason}); replace it") from error


def _check_md5(path: Path, md5: str, *, origin: Path) -> None:
    if not check_integrity(path, md5):
        raise DataError(f"{origin} is not the published file: its content should have the MD5 checksum {md5}")


def _read_digits() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    small = torch.from_numpy(digits.images).float().unsqueeze(1)
    # The 17 grey values times the weights (sixteenths) are exact in single precision.
    images = nn.functional.interpolate(small, size=(16, 16), mode="bilinear", align_corners=False)
    return images, torch.from_numpy(digits.target).long()


def save(tensors: dict[str, Tensor], metadata: dict[str, str], path: Path) -> None:
    """Write the tensors into a sealed file, atomically."""
    save_sealed(tensors, metadata, path)
