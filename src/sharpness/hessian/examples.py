"""The examples of an operator: given as tensors, or read from a loader, kept where they fit and else read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from sharpness.hessian import arguments
from sharpness.hessian.inputs import Inputs, joined, mapped, num_examples, tensors_of
from sharpness.hessian.loss import as_precise
from sharpness.hessian.losses.criterion import Criterion
from sharpness.hessian.losses.own import OwnLoss

Batch = tuple[Inputs, Tensor]
"""Inputs [n, ...] and converted targets [n, ...], on the device."""

_ARRAYS = (Tensor, np.ndarray)


class Stream:
    """Batches that are read anew at each pass, and must be the same each time.

    Args:
        data: iterable more than once.
        convert: makes a batch of what it gives.

    Raises:
        TypeError: the data cannot be iterated.
        ValueError: they can be iterated only once, or leave examples out.
    """

    def __init__(self, data: Any, convert: Callable[[Any], Batch]) -> None:
        _check_iterable(data)
        self._data, self._convert = data, convert
        self._digests: list[int] | None = None  # of all examples in order, once they have been read
        self._num_passes = 0

    def batches(self, skip: int = 0) -> Iterator[Batch]:
        """Read all batches, and yield them from number ``skip`` on.

        Raises:
            ValueError: the batches are not the same as in the first pass; or there are none.
        """
        digests: list[int] = []
        self._num_passes += 1
        for number, raw in enumerate(_with_own_randomness(self._data, self._num_passes)):
            digests += _digests(raw)
            if number >= skip:
                yield self._convert(raw)
        if not digests:
            raise ValueError("the data give no batches: there is nothing to average over")
        if self._digests is None:
            _check_sampling(self._data, len(digests))
            self._digests = digests
        elif digests != self._digests:
            raise ValueError(_difference(self._digests, digests))


@dataclass(frozen=True)
class Examples:
    """Batches kept on the device, and those after them, which are read again for each product."""

    kept: list[Batch]
    stream: Stream | None = None
    divisible: bool = True  # whether batches may be cut into chunks
    num_bytes: int = 0  # that count for a memory budget

    def __iter__(self) -> Iterator[Batch]:
        yield from self.kept
        yield from self.streamed()

    def streamed(self) -> Iterator[Batch]:
        """Read the batches that are not kept."""
        if self.stream is not None:
            yield from self.stream.batches(skip=len(self.kept))

    @property
    def first(self) -> Batch:
        """The first batch."""
        return next(iter(self))


def examples_of(
    data: object,
    targets: object,
    *,
    criterion: Criterion,
    dtype: torch.dtype,
    device: torch.device,
    memory_budget: int,
) -> Examples:
    """Return the examples that a user gives, in the precision of ``dtype``.

    Args:
        data: inputs, if there are targets; else (inputs, targets), a DataLoader, or any iterable of such batches; of
            any kind of batches, or a single one, if the loss is the user's own.
        targets: [N, ...], or None.
        criterion: the loss.
        dtype: of the operator's vectors.
        device: of the model. Tensors given as they are must be there; batches are moved.
        memory_budget: bytes for the batches of an iterable that are kept.

    Raises:
        TypeError: the data are of none of these kinds.
        ValueError: there are no examples; numbers of inputs and targets differ; targets are of the wrong kind; or the
            data are not the same in a second pass.
    """
    whole = _whole(data, targets, own=isinstance(criterion, OwnLoss))
    if whole is not None:
        return Examples([_converted(whole, criterion, dtype, device, moved=False)])
    stream = Stream(data, lambda raw: _converted(raw, criterion, dtype, device, moved=True))
    kept, size, is_all = _fitting(stream, memory_budget)
    if not is_all:
        return Examples(kept, stream, divisible=not isinstance(criterion, OwnLoss), num_bytes=size)
    for _ in stream.batches(skip=len(kept)):
        pass  # a second pass, which is compared with the first
    if isinstance(criterion, OwnLoss):
        return Examples(kept, divisible=False, num_bytes=size)
    try:
        return Examples([joined(kept)], num_bytes=size)
    except ValueError:  # of different lengths, such as sentences
        return Examples(kept, num_bytes=size)


def _fitting(stream: Stream, memory_budget: int) -> tuple[list[Batch], int, bool]:
    """Read all batches; return the first of them that fit into memory, their bytes, and whether these are all.

    The very first is always kept, since some batch is at hand at any time.
    """
    kept: list[Batch] = []
    size, is_all = 0, True
    for batch in stream.batches():
        more = sum(tensor.nbytes for tensor in tensors_of(batch))
        is_all = is_all and (not kept or size + more <= memory_budget)
        if is_all:
            kept.append(batch)
            size += more
    return kept, min(size, memory_budget), is_all


def _whole(data: object, targets: object, *, own: bool) -> Any:
    """Return (inputs, targets), or one batch for a user's own loss, if that is what was given; else None."""
    if callable(targets) and not isinstance(targets, _ARRAYS):
        raise TypeError("the targets are a loss: give it by its name, loss=...")
    if targets is not None:
        return data, targets
    if data is None:
        raise TypeError("the examples are missing: give inputs and targets, a DataLoader, or a list of batches")
    if own:
        is_batch = isinstance(data, (*_ARRAYS, Mapping)) or (isinstance(data, tuple) and not all(map(_is_pair, data)))
        return data if is_batch else None
    if isinstance(data, _ARRAYS):
        raise TypeError("the targets are missing: give inputs and targets")
    if isinstance(data, Mapping):
        raise TypeError(f"need (inputs, targets) or batches of them, got a dict with {', '.join(map(repr, data))}")
    if _is_pair(data):
        return data
    return data if isinstance(data, tuple) and len(data) == 2 and not all(map(_is_pair, data)) else None


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[1], _ARRAYS)


def _converted(raw: Any, criterion: Criterion, dtype: torch.dtype, device: torch.device, *, moved: bool) -> Batch:
    def tensor(name: str, value: Any) -> Tensor:
        if moved and isinstance(value, Tensor):
            value = value.to(device)
        return arguments.tensor(name, value, device)

    def inputs_of(given: Any) -> Inputs:
        if isinstance(given, Mapping | tuple | list) and (tensors_of(given) or isinstance(given, Mapping | tuple)):
            given = mapped(lambda value: _copied(tensor("inputs", value), dtype), given, kind=_ARRAYS)
            if not tensors_of(given):
                raise TypeError("inputs must be tensors or numpy arrays, in a tuple or dict if there are several")
            return given
        return _copied(tensor("inputs", given), dtype)

    if isinstance(criterion, OwnLoss):
        return inputs_of(raw), torch.zeros(0, device=device)
    if not isinstance(raw, tuple | list) or len(raw) != 2:
        kind = f"{type(raw).__name__} of {len(raw)}" if isinstance(raw, tuple | list | dict) else type(raw).__name__
        raise TypeError(f"each batch must be (inputs, targets), got a {kind}: for others give a loss of (model, batch)")
    inputs, targets = inputs_of(raw[0]), tensor("targets", raw[1])
    arguments.check_numbers(inputs, targets)
    return inputs, criterion.converted(targets, dtype)


def _copied(values: Tensor, dtype: torch.dtype) -> Tensor:
    # Converted once to the memory format in which convolutions are fastest.
    kept_as = torch.channels_last if values.dim() == 4 else torch.contiguous_format
    copied: Tensor = as_precise(values, dtype).clone(memory_format=kept_as)
    return copied


def _check_iterable(data: Any) -> None:
    wanted = "a DataLoader, or a list of batches"
    if isinstance(data, Dataset):
        raise TypeError(
            f"a {type(data).__name__} gives single examples: give torch.utils.data.DataLoader(dataset, batch_size=256)"
        )
    if isinstance(data, str) or not hasattr(data, "__iter__"):
        raise TypeError(f"need inputs and targets, {wanted}, got {type(data).__name__}")
    if isinstance(data, Iterator):
        raise ValueError(
            f"a {type(data).__name__} can be read only once, but each product needs all examples: give {wanted}"
        )


def _check_sampling(data: Any, num_read: int) -> None:
    """Refuse a loader that leaves out the same examples, or repeats some, in each pass."""
    if not isinstance(data, DataLoader):
        return
    batches = data.batch_sampler
    sampler = getattr(batches, "sampler", data.sampler)
    if isinstance(sampler, DistributedSampler) and sampler.total_size != len(sampler.dataset):  # type: ignore[arg-type]
        raise ValueError(
            f"the DataLoader's DistributedSampler makes {sampler.total_size} of {len(sampler.dataset)} examples, so "  # type: ignore[arg-type]
            "that all processes have as many: give each process its own part, which may be smaller"
        )
    if not getattr(batches, "drop_last", False):
        return
    try:
        number = len(sampler)  # type: ignore[arg-type]
    except TypeError:  # of an iterable data set: nobody knows how many there are
        raise ValueError(
            f"the DataLoader drops what is left over for its last batch, after {num_read} examples: make it with "
            "drop_last=False"
        ) from None
    if num_read < number:
        raise ValueError(
            f"the DataLoader drops its last batch, {number - num_read} of {number} examples: make it with "
            "drop_last=False"
        )


def _with_own_randomness(data: Any, seed: int) -> Iterator[Any]:
    """Iterate over ``data`` without moving torch's global generator or the loader's; each seed draws other numbers.

    Their states are exchanged for each batch alone, since the pass may be left at any batch.
    """
    holders = [data, getattr(data, "sampler", None), getattr(getattr(data, "batch_sampler", None), "sampler", None)]
    given = [getattr(holder, "generator", None) for holder in holders]
    on_cpu = (g for g in (torch.default_generator, *given) if isinstance(g, torch.Generator) and g.device.type == "cpu")
    generators = {id(generator): generator for generator in on_cpu}.values()
    own: list[Tensor] = [torch.Generator().manual_seed(seed).get_state() for _ in generators]

    @contextmanager
    def exchanged() -> Iterator[None]:
        before = [generator.get_state() for generator in generators]
        try:
            for generator, state in zip(generators, own, strict=True):
                generator.set_state(state)
            yield
        finally:
            own[:] = [generator.get_state() for generator in generators]
            for generator, state in zip(generators, before, strict=True):
                generator.set_state(state)

    with exchanged():
        batches = iter(data)
    while True:
        with exchanged():
            batch = next(batches, exchanged)  # which no data give
        if batch is exchanged:
            return
        yield batch


def _digests(raw: Any) -> list[int]:
    """Check sums of the examples of a batch; one of the batch if it cannot be divided."""
    tensors = tensors_of(mapped(torch.from_numpy, raw, kind=np.ndarray))
    number = num_examples(tensors)
    if number is None:
        found = crc32(repr([tensor.shape for tensor in tensors]).encode())
        for tensor in tensors:
            found = crc32(_bytes_of(tensor.reshape(1, -1))[0], found)
        return [found]
    rows = [_bytes_of(tensor.reshape(number, -1)) for tensor in tensors if tensor.numel() and tensor.dim()]
    digests = [0] * number
    for row in rows:
        digests = [crc32(values, found) for values, found in zip(row, digests, strict=True)]
    return digests


def _bytes_of(rows: Tensor) -> np.ndarray[Any, Any]:
    # A copy: a tensor of one number counts as contiguous whatever its stride is.
    copied = rows.detach().cpu().clone(memory_format=torch.contiguous_format)
    plain: np.ndarray[Any, Any] = copied.view(torch.uint8).numpy()
    return plain


def _difference(before: list[int], now: list[int]) -> str:
    cure = "each product needs the same examples, as DataLoader(dataset, batch_size=256, shuffle=False) gives them"
    if len(before) != len(now):
        return f"the data give {len(before)} examples in one pass and {len(now)} in the next: {cure}"
    common = (Counter(before) & Counter(now)).total()
    if common == len(now):
        return f"the data give their examples in another order in each pass, as a loader that shuffles does: {cure}"
    if common:
        return (
            f"the data give other examples in each pass ({len(now) - common} of {len(now)} differ), as a loader that "
            f"drops, draws or augments some does: {cure}"
        )
    return f"the data give other values in each pass, as a loader that augments does: {cure}, without random changes"
