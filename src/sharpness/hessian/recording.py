"""Record repeated GPU work once and replay it as a CUDA graph.

Kernels of a small network run for microseconds, less than their launch takes. A CUDA graph launches them all at once:
the same kernels, with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Work = Callable[..., tuple[Tensor, ...]]


class Recorder:
    """Replay work from a CUDA graph once it has run a few times on tensors of the same shapes.

    Args:
        first: number of calls to run without a graph. In these, libraries load and choose kernels, which cannot be
            recorded; also, recording costs about two calls and must pay off.
    """

    def __init__(self, *, first: int = 2) -> None:
        self._first = first
        self._times: dict[object, int] = {}
        self._recordings: dict[object, _Recording] = {}

    def __call__(self, work: Work, *given: Tensor, in_place: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """Return ``work(*given)``.

        Args:
            work: runs the same kernels at every call, without synchronising.
            given: one or more tensors on one device; on a CPU nothing is recorded.
            in_place: other tensors that the work reads or writes; their values may change, their addresses may not.
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
        self._in_place = in_place  # keep the tensors whose addresses are recorded alive
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._results = work(*self._given)

    def __call__(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        for static, tensor in zip(self._given, given, strict=True):
            static.copy_(tensor)
        self._graph.replay()
        # The next replay overwrites the results.
        return tuple(result.clone() for result in self._results)
