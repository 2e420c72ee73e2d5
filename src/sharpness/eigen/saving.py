"""Keep eigenpairs in a file, with what they are of."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from types import ModuleType

    from sharpness.eigen.eigenpairs import Eigenpairs

_FORMAT = "sharpness eigenpairs 1"
_TENSORS = ("eigenvalues", "eigenvectors", "residuals")
_ADVICE = "compute the pairs anew, or restore the file"


def save_pairs(pairs: Eigenpairs, path: str | os.PathLike[str]) -> None:
    """Write eigenpairs to a safetensors file, with their provenance and the versions that computed them.

    Raises:
        ModuleNotFoundError: safetensors is not installed.
    """
    tensors = {name: getattr(pairs, name).cpu() for name in _TENSORS}
    header = {field.name: getattr(pairs, field.name) for field in fields(pairs) if field.name not in _TENSORS}
    _sealed().save_sealed(tensors, {"format": _FORMAT, **header}, Path(path))


def provenance_of(operator: object) -> dict[str, Any]:
    """Say of what eigenpairs of ``operator`` are, and by which versions they were computed."""
    import sharpness  # late: a package is complete only after its modules

    try:
        own = str(sharpness.__version__)
    except ImportError:  # a copy of the package alone
        own = "unknown"
    versions = {"torch": str(torch.__version__), "sharpness": own}
    return {**getattr(operator, "provenance", {}), "versions": versions}


def load_pairs(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Eigenpairs:
    """Read eigenpairs that ``Eigenpairs.save`` wrote, eigenvectors onto ``device``.

    Raises:
        ModuleNotFoundError: safetensors is not installed.
        ValueError: the file is damaged, or holds something else.
    """
    from sharpness.eigen.eigenpairs import Eigenpairs

    with _sealed().open_sealed(Path(path), advice=_ADVICE) as file:
        header: dict[str, Any] = file.header
        if header.pop("format", None) != _FORMAT:
            raise ValueError(f"{path} holds no eigenpairs: save them with pairs.save")
        tensors = {name: file.tensor(name) for name in _TENSORS}
    tensors["eigenvectors"] = tensors["eigenvectors"].to(device)
    return Eigenpairs(**tensors, **header)


def _sealed() -> ModuleType:
    try:
        from sharpness.runtime import sealed
    except ModuleNotFoundError as error:
        if error.name != "safetensors":
            raise
        raise ModuleNotFoundError(
            "eigenpairs are kept in safetensors files: pip install safetensors", name=error.name
        ) from None
    return sealed
