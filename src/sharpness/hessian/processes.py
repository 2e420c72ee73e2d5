"""Examples over several processes of ``torch.distributed``: what is summed over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any, Literal
from zlib import crc32

import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

ProcessGroup = Any
"""A ``torch.distributed.ProcessGroup``, whose class not every build of torch has."""


class Processes:
    """The processes that each hold a part of the examples; every method must be called by all of them.

    Args:
        given: None is every process, if ``torch.distributed`` has been initialised; False is this process alone; or a
            group that this process belongs to.
        device: of the tensors that are summed.

    Raises:
        TypeError: it is none of these.
    """

    def __init__(self, given: ProcessGroup | Literal[False] | None, device: torch.device) -> None:
        if given is True or (isinstance(given, int | str | list | tuple) and given is not False):
            raise TypeError(f"process_group must be None, False or a torch.distributed.ProcessGroup, got {given!r}")
        is_on = distributed.is_available() and distributed.is_initialized()
        self._device = device
        self._group = None if given is False else given
        self.number = distributed.get_world_size(self._group) if is_on and given is not False else 1
        self.rank = 0 if self.number == 1 else distributed.get_rank(self._group)
        self.is_first = self.rank == 0
        self._adds_zeros = False

    def add(self, tensor: Tensor) -> Tensor:
        """Sum ``tensor`` over the processes, in place; the result has the same bits in each."""
        return self._sum(tensor.zero_() if self._adds_zeros else tensor)

    def add_number(self, number: float) -> float:
        """Sum a number over the processes."""
        if self.number == 1:
            return number
        return float(self.add(torch.tensor(number, dtype=torch.float64, device=self._device)))

    def numbers(self, number: int) -> list[int]:
        """Return the number that each process gives, by rank."""
        if self.number == 1:
            return [number]
        given = torch.zeros(self.number, dtype=torch.int64, device=self._device)
        given[self.rank] = number
        return list(map(int, self._sum(given).tolist()))

    def without_this(self) -> Processes:
        """Return the same processes, to whose sums this one adds zeros."""
        others = copy(self)
        others._adds_zeros = True
        return others

    @contextmanager
    def together(self, what: str = "the operator could not be built") -> Iterator[None]:
        """Let no process go on alone if the block fails in another one.

        Args:
            what: happened then; the beginning of the error's sentence.

        Raises:
            RuntimeError: it did.
            FloatingPointError: it did, by such an error alone.
        """
        if self.number == 1:
            yield
            return
        try:
            yield
        except BaseException as error:
            self._failures(1, isinstance(error, FloatingPointError))
            raise
        failed, overflown = self._failures(0, False)
        if failed:
            kind = FloatingPointError if failed == overflown else RuntimeError
            raise kind(f"{what} in {failed} of {self.number} processes, which say why")

    def check_same(self, weights: Tensor, preconditioner: Tensor | None, settings: Mapping[str, object]) -> None:
        """Check that all processes have the same operator, but for its examples.

        Args:
            weights: [P].
            preconditioner: [p], or None.
            settings: by name; they are the same if they are written alike.

        Raises:
            ValueError: they have not.
        """
        if self.number == 1:
            return
        # Functions of one script have another module in a process that it starts.
        words = [repr(value).replace("__mp_main__", "__main__") for value in settings.values()]
        written = torch.tensor([crc32(word.encode()) for word in words], dtype=torch.float64, device=self._device)
        differing = [name for name, differs in zip(settings, self._differ(written), strict=True) if differs]
        if differing:
            raise ValueError(f"{differing[0]} differs between the processes: give the same in each")
        if any(self._differ(_sums(weights))):
            raise ValueError(
                "the weights differ between the processes: let DistributedDataParallel hold the model, or load the "
                "same weights in each"
            )
        if preconditioner is not None and any(self._differ(_sums(preconditioner))):
            raise ValueError(
                "the preconditioner differs between the processes: give the same one, or an optimizer that has made "
                "the same steps, in each"
            )

    def _differ(self, numbers: Tensor) -> list[bool]:
        """Which of these numbers [n], float64, are not the same in all processes."""
        ends = torch.cat([numbers, -numbers])
        distributed.all_reduce(ends, distributed.ReduceOp.MAX, group=self._group)
        return [bool(differs) for differs in ends[: len(numbers)] != -ends[len(numbers) :]]

    def check_data(self, data: object) -> None:
        """Check that a loader of a part of the examples repeats none.

        Raises:
            ValueError: its sampler repeats examples, so that all parts are of one length.
        """
        sampler = getattr(data, "sampler", None)
        if self.number == 1 or not isinstance(data, DataLoader) or not isinstance(sampler, DistributedSampler):
            return
        number = len(sampler.dataset)  # type: ignore[arg-type]
        if sampler.total_size != number:
            does = "leaves out" if sampler.total_size < number else "repeats"
            raise ValueError(
                f"the DistributedSampler {does} {abs(sampler.total_size - number)} of {number} examples, so that all "
                f"{sampler.num_replicas} parts have one length: give torch.utils.data.Subset(dataset, range(rank, "
                f"{number}, {sampler.num_replicas})) to a DataLoader of its own"
            )

    def _failures(self, failed: int, overflown: bool) -> list[int]:
        """Number of processes that failed, and of those whose numbers overflowed."""
        return list(map(int, self._sum(torch.tensor([failed, int(overflown)], device=self._device)).tolist()))

    def _sum(self, tensor: Tensor) -> Tensor:
        if self.number > 1:
            distributed.all_reduce(tensor, group=self._group)
        return tensor


def _sums(values: Tensor) -> Tensor:
    exact = values.double()
    return torch.stack([exact.sum(), exact.square().sum()])
