"""A network's structure: a copy of a model without memory for what is given at every call."""

from __future__ import annotations

import copy
import functools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sharpness.hessian.absent import Absent, AbsentComputed, AbsentParameter

# The layers around a network that only distribute or compile it, and what they call the network.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}


def skeleton_of(model: nn.Module) -> nn.Module:
    """A copy of ``model`` whose parameters and floating-point buffers have a shape and no values.

    Forgotten weights are an error, not old ones. What cannot be copied, such as a lock or a file, is shared. Layers
    that only distribute or compile what they hold are replaced by what they hold, under the same names. Tensors that
    the model has computed from its weights and kept, such as a transposed view, are an error where they are used: they
    would not follow the weights. Detached ones are constants, as they are to autograd.

    Raises:
        TypeError: this is no network of this process whose weights can be replaced, or it cannot be copied.
        ValueError: it has no parameters.
    """
    check_model(model)
    memo: dict[int, Any] = {
        id(parameter): AbsentParameter.like(parameter, name) for name, parameter in model.named_parameters()
    }
    memo |= {
        id(buffer): Absent.like(buffer, name) for name, buffer in model.named_buffers() if buffer.is_floating_point()
    }
    with _CopyingComputed(model):
        # From the inside out: a wrapper may hold others.
        for layer in reversed(list(model.modules())):
            if (name := _wrapped(layer)) is not None:
                through = _Around if layer is model else _Through
                memo[id(layer)] = through(name, copy_of(getattr(layer, name), memo))
        return copy_of(model, memo)


def copy_of(network: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy, which shares locks, files and others that cannot be copied.

    Args:
        network: what is copied.
        memo: what takes the place of others, by their identity; what is copied is added to it.

    Raises:
        TypeError: an object that a layer holds refuses to be copied.
        ValueError: layers lie too deeply within each other.
    """
    memo = {} if memo is None else memo
    before = dict(memo)
    try:
        return copy.deepcopy(network, memo)
    except RecursionError:
        limit = sys.getrecursionlimit()
        raise ValueError(
            f"{type(network).__name__} is nested too deeply to be copied in {limit} calls within each other: allow "
            f"more of them before, as by sys.setrecursionlimit({10 * limit})"
        ) from None
    except Exception:  # whatever an object that cannot be copied raises
        memo.clear()
        memo |= {id(held): held for held in _uncopiable(network)} | before
    before = dict(memo)
    try:
        return copy.deepcopy(network, memo)
    except Exception as error:
        raise TypeError(f"{_uncopied(network, before)} cannot be copied: {error}") from error


def ties_of(network: nn.Module) -> dict[str, str]:
    """The further places of parameters and buffers that are tied: the name of each, and the one of its tensor.

    torch's own search for them, in ``functional_call``, takes a layer of two names for two layers, and leaves what it
    was given in one of them.
    """
    first: dict[int, str] = {}
    ties = {}
    for prefix, layer in network.named_modules():
        for key, tensor in [*layer._parameters.items(), *layer._buffers.items()]:
            name = f"{prefix}.{key}" if prefix else key
            if tensor is not None and first.setdefault(id(tensor), name) != name:
                ties[name] = first[id(tensor)]
    return ties


def inside(network: nn.Module) -> nn.Module:
    """The network that a skeleton's user knows, within what only distributes or compiles it."""
    while isinstance(network, _Through):
        network = next(network.children())
    return network


def check_model(model: nn.Module) -> None:
    """Refuse what has no Hessian here; see ``skeleton_of``."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, got {type(model).__name__}")
    for name, layer in model.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise TypeError(
                f"{_place(name, layer)} is compiled by torch.jit, which hides how it uses its weights: "
                "give the module that it was made of"
            )
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise ValueError(f"{name} has no shape yet: run the network once, so that its lazy layers know theirs")
        if not parameter.is_floating_point():
            raise ValueError(f"{name} is of {parameter.dtype}: the Hessian is by real weights of floating point")
    if next(model.parameters(), None) is None:
        raise ValueError(f"{type(model).__name__} has no parameters: there is nothing that the loss could be curved in")


def _place(name: str, layer: nn.Module) -> str:
    return f"{name} ({type(layer).__name__})" if name else type(layer).__name__


def _wrapped(layer: nn.Module) -> str | None:
    return next((_WRAPPERS[kind.__name__] for kind in type(layer).__mro__ if kind.__name__ in _WRAPPERS), None)


class _Through(nn.Module):
    """Its one module under the given name, and nothing else."""

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self._name = name
        self.add_module(name, module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self._name)(*args, **kwargs)


class _Around(_Through):
    """The same as a whole network."""

    def forward(self, inputs: Any) -> Any:
        return super().forward(inputs)


class _CopyingComputed(TorchFunctionMode):
    """Lets tensors be copied that were computed from others: those from a model's weights without their values."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._weights = {id(parameter): name for name, parameter in model.named_parameters()}
        self._places: dict[int, str] | None = None  # found where they are needed

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not Tensor.__deepcopy__ or (args[0].is_leaf and not args[0]._is_view()):
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        weight = weight_behind(tensor, self._weights)
        if weight is not None and not tensor.is_nested:
            memo[id(tensor)] = AbsentComputed.like(tensor, f"{self._place(tensor)} was computed from {weight}")
        elif not tensor.is_leaf:
            memo[id(tensor)] = tensor.detach().clone()
        else:
            return func(*args, **(kwargs or {}))
        return memo[id(tensor)]

    def _place(self, tensor: Tensor) -> str:
        if self._places is None:
            self._places = {}
            for name, layer in self._model.named_modules():
                for key, value in vars(layer).items():
                    if key not in {"_parameters", "_buffers", "_modules"}:
                        tensors = (held for held in _held([value]) if isinstance(held, Tensor))
                        self._places = {id(held): f"{key} of {_place(name, layer)}" for held in tensors} | self._places
        return self._places.get(id(tensor), f"a tensor that {type(self._model).__name__} holds")


def weight_behind(tensor: Tensor, weights: Mapping[int, str]) -> str | None:
    """The name of a weight that ``tensor`` is a view of or was computed from, of ``weights`` by identity."""
    leaves = [tensor._base] if tensor._is_view() else []
    return next((weights[id(leaf)] for leaf in (*leaves, *leaves_of(tensor)) if id(leaf) in weights), None)


def leaves_of(outputs: Tensor) -> Iterator[Tensor]:
    """What these were computed from and could be differentiated by."""
    nodes: list[Any] = [outputs.grad_fn]
    seen: set[Any] = {None}
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            yield variable
        nodes.extend(before for before, _ in node.next_functions)


def _held(roots: Iterable[Any]) -> Iterator[Any]:
    """All that ``roots`` hold at any depth, and themselves."""
    left: list[Any] = list(roots)
    seen: dict[int, Any] = {}
    while left:
        held = left.pop()
        if id(held) in seen or isinstance(held, type | FunctionType):
            continue
        seen[id(held)] = held
        yield held
        if isinstance(held, Tensor):
            continue
        if isinstance(held, Mapping):
            left.extend(held.values())
        elif isinstance(held, list | tuple | set | frozenset | deque):
            left.extend(held)
        elif isinstance(held, functools.partial):
            left += [held.args, held.keywords]
        slots = (key for kind in type(held).__mro__ for key in getattr(kind, "__slots__", ()))
        left.extend(getattr(held, key, None) for key in slots)
        left.extend(getattr(held, "__dict__", {}).values())


def _uncopiable(network: nn.Module) -> Iterator[Any]:
    """What ``network`` holds, at any depth, whose own kind cannot be copied: locks, files, iterators."""
    for held in _held(network.modules()):
        if isinstance(held, Tensor):
            continue
        try:
            hasattr(held, "__deepcopy__") or held.__reduce_ex__(4)
        except Exception:  # as copying it would
            yield held


def _uncopied(network: nn.Module, memo: Mapping[int, Any]) -> str:
    """The attribute that is in the way of a copy."""
    for name, layer in reversed(list(network.named_modules())):
        for key, value in vars(layer).items():
            try:
                copy.deepcopy(value, dict(memo))
            except Exception:  # as in a copy of the whole
                return f"{key} of {_place(name, layer)}"
    return type(network).__name__
