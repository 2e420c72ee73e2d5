"""The flat order of a network's weights: which entries of a vector [P] belong to which named tensor.

There are two orders. Torch's order is that of ``torch.nn.utils.parameters_to_vector``. The other stores kernels of
two-dimensional convolutions channels last ([out, height, width, in]), so that views of a flat vector have the memory
format in which convolutions are fastest; training and checkpoints use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor

_CHANNELS_LAST = (0, 2, 3, 1)
_CHANNELS_FIRST = (0, 3, 1, 2)


@dataclass(frozen=True)
class Layout:
    """Named tensors concatenated into one flat vector."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    channels_last: bool = False  # whether four-axis tensors are stored [out, height, width, in]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], *, channels_last: bool = False) -> Layout:
        """Build the layout of the given tensors, in their order."""
        return cls(tuple(tensors), tuple(tensor.shape for tensor in tensors.values()), channels_last)

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(shape.numel() for shape in self.shapes)

    @property
    def in_torchs_order(self) -> Layout:
        """Layout of the same tensors in the order of ``parameters_to_vector``."""
        return replace(self, channels_last=False)

    def views(self, flat: Tensor) -> list[Tensor]:
        """Split ``flat`` [size] into views of the tensors, in the order of ``names``."""
        pieces = torch.split(flat, [shape.numel() for shape in self.shapes])
        return [self._shaped(piece, shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """Split ``flat`` [size] into views by name."""
        return dict(zip(self.names, self.views(flat), strict=True))

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """Concatenate tensors into a vector [size]; the inverse of ``views``."""
        return torch.cat([self._as_stored(tensor.detach()).reshape(-1) for tensor in tensors])

    def converted(self, flat: Tensor, order: Layout) -> Tensor:
        """Convert ``flat`` [size] from this layout to ``order``, another layout of the same tensors."""
        if self.channels_last == order.channels_last or not any(_differs(shape) for shape in self.shapes):
            return flat
        converted = torch.empty_like(flat)
        for target, view in zip(order.views(converted), self.views(flat), strict=True):
            target.copy_(view)
        return converted

    def matching(self, pattern: str) -> Layout:
        """Select the tensors whose names match a shell-style pattern (``layer3.*``).

        Raises:
            ValueError: no name matches.
        """
        pairs = zip(self.names, self.shapes, strict=True)
        chosen = [(name, shape) for name, shape in pairs if fnmatchcase(name, pattern)]
        if not chosen:
            raise ValueError(f"no parameter matches {pattern!r}, there are {', '.join(self.names)}")
        names, shapes = zip(*chosen, strict=True)
        return replace(self, names=names, shapes=shapes)

    def _shaped(self, piece: Tensor, shape: torch.Size) -> Tensor:
        if not self.channels_last or len(shape) != 4:
            return piece.view(shape)
        return piece.view([shape[axis] for axis in _CHANNELS_LAST]).permute(_CHANNELS_FIRST)

    def _as_stored(self, tensor: Tensor) -> Tensor:
        return tensor.permute(_CHANNELS_LAST) if self.channels_last and tensor.dim() == 4 else tensor


def _differs(shape: torch.Size) -> bool:
    """Whether channels last changes the order of the entries of a tensor of this shape."""
    return len(shape) == 4 and shape[1] > 1 and shape[2] * shape[3] > 1
