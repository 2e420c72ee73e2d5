"""The flat order of a network's weights: which entries of a vector [P] are which named tensor.

Kernels of two-dimensional convolutions are kept channels last ([out, height, width, in]), so that every view of a flat
vector is already in the memory format in which convolutions are fastest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

_CHANNELS_LAST = (0, 2, 3, 1)
_CHANNELS_FIRST = (0, 3, 1, 2)


@dataclass(frozen=True)
class Layout:
    """Named tensors one after the other in one vector."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Layout:
        """The layout of these tensors in their order."""
        return cls(tuple(tensors), tuple(tensor.shape for tensor in tensors.values()))

    @property
    def size(self) -> int:
        """Entries of the vector."""
        return sum(shape.numel() for shape in self.shapes)

    def views(self, flat: Tensor) -> list[Tensor]:
        """The tensors that lie in ``flat`` [size]: views, in the order of ``names``."""
        pieces = torch.split(flat, [shape.numel() for shape in self.shapes])
        return [_shaped(piece, shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """The views by name."""
        return dict(zip(self.names, self.views(flat), strict=True))

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """The vector [size] of these tensors: the inverse of ``views``."""
        return torch.cat([_channels_last(tensor.detach()).reshape(-1) for tensor in tensors])

    def matching(self, pattern: str) -> Layout:
        """The layout of the tensors whose names match a pattern as file names do (``layer3.*``).

        Raises:
            ValueError: no name matches.
        """
        pairs = zip(self.names, self.shapes, strict=True)
        chosen = [(name, shape) for name, shape in pairs if fnmatchcase(name, pattern)]
        if not chosen:
            raise ValueError(f"no parameter matches {pattern!r}, there are {', '.join(self.names)}")
        names, shapes = zip(*chosen, strict=True)
        return Layout(names, shapes)


def _shaped(piece: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 4:
        return piece.view(shape)
    return piece.view([shape[axis] for axis in _CHANNELS_LAST]).permute(_CHANNELS_FIRST)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.permute(_CHANNELS_LAST) if tensor.dim() == 4 else tensor
