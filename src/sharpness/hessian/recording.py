"""Work that a GPU does again and again, recorded once and launched as a whole from then on (CUDA graphs).

A kernel of a small network runs for microseconds, less than a CPU takes to ask for it: launched one by one, most of the
time goes by between them. A recording is of the very kernels that were launched before it, and gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Work = Callable[..., tuple[Tensor, ...]]


class Recorder:
    """Does work by a recording, once a GPU has done it a few times on tensors of such shapes.

    Args:
        first: launch it one by one so many times. In these, libraries load and choose their kernels, which cannot be
            recorded; and a recording takes the time of about two, which must be worth it.
    """

    def __init__(self, *, first: int = 2) -> None:
        self._first = first
        self._times: dict[object, int] = {}
        self._recordings: dict[object, _Recording] = {}

    def __call__(self, work: Work, *given: Tensor, in_place: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """What ``work`` returns for ``given``.

        Args:
            work: always the same kernels, in which nothing waits for the GPU.
            given: one tensor or more, on one device; on a CPU nothing is recorded.
            in_place: what else the work reads or writes and the caller keeps: it may change, but not move.
        """
        if given[0].device.type != "cuda":
            return work(*given)
        kind = tuple((tensor.shape, tensor.dtype) for tensor in given), tuple(held.data_ptr() for held in in_place)
        times = self._times[kind] = self._times.get(kind, 0) + 1
        if times <= self._first:
            return work(*given)
        if kind not in self._recordings:
            self._recordings[kind] = _Recording(work, given, in_place)
        return self._recordings[kind](given)


class _Recording:
    def __init__(self, work: Work, given: Sequence[Tensor], in_place: Sequence[Tensor]) -> None:
        self._given = [tensor.clone() for tensor in given]
        self._in_place = in_place  # a recording knows addresses: what lies there must stay
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._results = work(*self._given)

    def __call__(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        for place, tensor in zip(self._given, given, strict=True):
            place.copy_(tensor)
        self._graph.replay()
        # The next replay writes to the same places.
        return tuple(result.clone() for result in self._results)
