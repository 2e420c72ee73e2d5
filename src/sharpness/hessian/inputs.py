"""Inputs of a network: a tensor, or a tuple or dict of tensors and constants, which become its arguments."""

from __future__ import annotations

import copy
import inspect
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Any
"""A tensor [n, ...], or tensors [n, ...] in tuples, lists and dicts; all else in these is passed on as it is."""


def mapped(function: Callable[[Any], Any], given: Inputs, kind: type | tuple[type, ...] = Tensor) -> Inputs:
    """Replace every tensor (or value of ``kind``) in ``given`` by what ``function`` returns for it."""
    if isinstance(given, kind):
        return function(given)
    if isinstance(given, UserDict):  # tokenizers return these
        other = copy.copy(given)
        other.data = {key: mapped(function, value, kind) for key, value in given.data.items()}
        return other
    if isinstance(given, Mapping):
        return {key: mapped(function, value, kind) for key, value in given.items()}
    if isinstance(given, tuple | list):
        parts = [mapped(function, value, kind) for value in given]
        return type(given)(*parts) if hasattr(given, "_fields") else type(given)(parts)
    return given


def tensors_of(given: Inputs) -> list[Tensor]:
    """List the tensors in ``given``, in order."""
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, Mapping):
        return [tensor for value in given.values() for tensor in tensors_of(value)]
    return [tensor for value in given for tensor in tensors_of(value)] if isinstance(given, tuple | list) else []


def num_examples(given: Inputs) -> int | None:
    """Length of the first axis that all tensors share, single numbers aside; None if there is none."""
    lengths = {len(tensor) for tensor in tensors_of(given) if tensor.dim()}
    return lengths.pop() if len(lengths) == 1 else None


def part(given: Inputs, start: int, end: int) -> Inputs:
    """Select examples; tensors without an axis are passed on, and so is all if examples cannot be told apart."""
    if num_examples(given) is None:
        return given
    return mapped(lambda tensor: tensor[start:end] if tensor.dim() else tensor, given)


def split(given: Inputs, size: int) -> Sequence[Inputs]:
    """Split examples into chunks of ``size``, the last of which may be smaller."""
    if isinstance(given, Tensor):
        return torch.split(given, size)
    number = num_examples(given)
    return [given] if number is None else [part(given, start, start + size) for start in range(0, number, size)]


def joined(parts: Sequence[Inputs]) -> Inputs:
    """Concatenate examples of the same structure.

    Raises:
        ValueError: tensors differ in more than their number of examples, or other values differ.
    """
    one = parts[0]
    if isinstance(one, Tensor):
        if any(not isinstance(p, Tensor) or p.dtype != one.dtype or p.shape[1:] != one.shape[1:] for p in parts):
            raise ValueError("the examples have different shapes")
        if not one.dim():
            raise ValueError("single numbers belong to a batch")
        return torch.cat(list(parts))
    if isinstance(one, Mapping) and type(one) is dict and all(p.keys() == one.keys() for p in parts):
        return {key: joined([p[key] for p in parts]) for key in one}
    if type(one) in (tuple, list) and all(len(p) == len(one) for p in parts):
        return type(one)(joined(values) for values in zip(*parts, strict=True))
    if isinstance(one, Mapping | tuple | list) or any(p is not one and p != one for p in parts[1:]):
        raise ValueError("the batches differ in more than their examples")
    return one


def arguments_of(network: nn.Module, inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments with which ``network`` is called: a tuple or list by position, a dict by name, all else as one.

    A tuple or dict that the network's ``forward`` cannot take so is given as one argument.

    Raises:
        ValueError: it cannot be given so either.
    """
    named, several = isinstance(inputs, Mapping), isinstance(inputs, tuple | list)
    if not named and not several:
        return (inputs,), {}
    given: tuple[tuple[Any, ...], dict[str, Any]] = ((), dict(inputs)) if named else (tuple(inputs), {})
    try:
        signature = inspect.signature(network.forward)
    except ValueError:  # a forward without a signature
        return given
    if _takes(signature, *given):
        return given
    if _takes(signature, (inputs,), {}):
        return (inputs,), {}
    names = ", ".join(map(str, inputs)) if named else f"{len(inputs)} tensors"
    raise ValueError(f"{type(network).__name__} takes {', '.join(signature.parameters)}, but is given {names}")


class Reduced(nn.Module):
    """A network behind a function that calls it: one that takes one argument and returns one tensor."""

    def __init__(self, network: nn.Module, function: Callable[[nn.Module, Any], Any]) -> None:
        super().__init__()
        self.network = network
        self._function = function

    def forward(self, inputs: Any) -> Any:
        return self._function(self.network, inputs)


def calling(network: nn.Module, inputs: Inputs) -> Callable[[nn.Module, Any], Any]:
    """Return a function that calls a network with inputs of the structure of ``inputs``, and can be traced."""
    args, kwargs = arguments_of(network, inputs)
    if args and args[0] is inputs:
        return lambda model, given: model(given)
    positions, names = range(len(args)), list(kwargs)
    return lambda model, given: model(*(given[p] for p in positions), **{name: given[name] for name in names})


def unfolded(given: Any, like: Inputs) -> Any:
    """Spell out the structure of ``like`` with the parts of ``given``: a trace cannot iterate over its inputs."""
    if isinstance(like, Mapping):
        return {key: unfolded(given[key], value) for key, value in like.items()}
    if isinstance(like, tuple | list):
        return type(like)(unfolded(given[number], value) for number, value in enumerate(like))
    return None if like is None else given


def _takes(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def pieces(given: Inputs) -> Iterator[Inputs]:
    """Yield the examples one by one, each as a batch of one."""
    yield from split(given, 1)
