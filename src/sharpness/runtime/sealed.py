"""Files of tensors that detect damage: safetensors with digests of the header and of every tensor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sharpness.runtime.files import replacing

_DIGEST, _DIGESTS = "digest", "digests"
_ADVICE = "remove it, and it is made anew"


class DamagedError(ValueError):
    """A file is not what was written; the message names it."""


def digest_of(tensor: Tensor) -> str:
    """Hash the dtype, shape and all bits of a tensor; hexadecimal."""
    found = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)} ".encode())
    found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def save_sealed(
    tensors: Mapping[str, Tensor], header: Mapping[str, Any], path: Path, *, entry: str = "provenance"
) -> None:
    """Write tensors atomically, with a JSON header as the metadata ``entry``; equal contents give equal files."""
    sealed = {**header, _DIGESTS: {name: digest_of(tensor) for name, tensor in tensors.items()}}
    text = json.dumps(sealed)
    text = f'{text[:-1]}, "{_DIGEST}": "{_digest_of(text)}"}}'
    with replacing(path) as beside:
        # A single entry, since safetensors writes several in arbitrary order.
        beside.write_bytes(save(dict(tensors), metadata={entry: text}))


class Sealed:
    """An open sealed file: its header, and its tensors, each checked when read."""

    def __init__(self, path: Path, file: Any, entry: str, advice: str) -> None:
        self._path, self._file, self._advice = path, file, advice
        self.header: dict[str, Any] = json.loads((file.metadata() or {}).get(entry, "{}"))
        digest = self.header.pop(_DIGEST, None)
        if digest is None:
            raise DamagedError(f"{path} has no digest, as files of an older version: {advice}")
        if digest != _digest_of(json.dumps(self.header)):
            raise DamagedError(f"{path} is damaged: its header is not what was written; {advice}")
        self.digests: dict[str, str] = self.header.pop(_DIGESTS)
        if set(self.digests) != set(file.keys()):
            raise DamagedError(f"{path} is damaged: its tensors are not those that were written; {advice}")

    def tensor(self, name: str, device: torch.device | str = "cpu") -> Tensor:
        """Read and check a tensor; its memory is aligned as torch aligns it, unlike that of the mapped file.

        Products of a matrix with a single vector differ in their last bits between addresses that are multiples of 16
        bytes and others, and a file's tensors lie anywhere.

        Raises:
            DamagedError: it is missing, or not what was written.
        """
        if name not in self.digests:
            raise DamagedError(f"{self._path} is damaged: it lacks the tensor {name}; {self._advice}")
        tensor: Tensor = self._file.get_tensor(name)
        if digest_of(tensor) != self.digests[name]:
            raise DamagedError(f"{self._path} is damaged: its tensor {name} is not what was written; {self._advice}")
        return torch.empty_like(tensor, device=device).copy_(tensor)


@contextmanager
def open_sealed(path: Path, *, entry: str = "provenance", advice: str = _ADVICE) -> Iterator[Sealed]:
    """Open a file written by ``save_sealed``; ``advice`` says what to do if it is damaged.

    Raises:
        DamagedError: it is cut short, changed, or not such a file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield Sealed(path, file, entry, advice)
    except FileNotFoundError:
        raise
    # Raised for files that are cut short, changed or of another format.
    except (SafetensorError, OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DamagedError(f"{path} is damaged or cut short ({' '.join(str(error).split())}): {advice}") from error


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
