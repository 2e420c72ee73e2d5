"""Copy a network's structure without its weights and buffers, which are given at every call."""

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
from sharpness.hessian.arguments import check_module

# Wrappers that only distribute or compile a network, with the attribute that holds the network.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}


def skeleton_of(model: nn.Module) -> nn.Module:
    """Copy ``model`` with placeholders for its parameters and floating-point buffers.

    Using a placeholder is an error, so weights cannot be forgotten. Objects that cannot be copied, such as locks or
    files, are shared. Wrappers that only distribute or compile a network are replaced by the network, under the same
    parameter names. Tensors that the model computed from its weights and stored, such as a transposed view, become
    placeholders too, since they would not follow the weights; detached ones are constants, as for autograd.

    Raises:
        TypeError: the model is not a module whose weights can be replaced, or it cannot be copied.
        ValueError: it has no parameters, or lazy, integer or complex ones.
    """
    check_model(model)
    memo: dict[int, Any] = {
        id(parameter): AbsentParameter.like(parameter, name) for name, parameter in model.named_parameters()
    }
    memo |= {
        id(buffer): Absent.like(buffer, name) for name, buffer in model.named_buffers() if buffer.is_floating_point()
    }
    with _CopyingComputed(model):
        # From the inside out: wrappers may be nested.
        for layer in reversed(list(model.modules())):
            if (name := _wrapped(layer)) is not None:
                unwrapped = _UnwrappedNetwork if layer is model else _Unwrapped
                memo[id(layer)] = unwrapped(name, copy_of(getattr(layer, name), memo))
        return copy_of(model, memo)


def copy_of(network: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Copy ``network`` deeply, sharing locks, files and other objects that cannot be copied.

    Args:
        network: the module to copy.
        memo: replacements by identity of the original, as for ``copy.deepcopy``; extended by the copies.

    Raises:
        TypeError: an attribute of a layer cannot be copied.
        ValueError: layers are nested too deeply.
    """
    memo = {} if memo is None else memo
    before = dict(memo)
    try:
        return copy.deepcopy(network, memo)
    except RecursionError:
        limit = sys.getrecursionlimit()
        raise ValueError(
            f"{type(network).__name__} is nested too deeply to be copied within the recursion limit of {limit}: raise "
            f"it first, with sys.setrecursionlimit({10 * limit})"
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
    """Map the further names of tied parameters and buffers to their first names.

    torch's own search for ties, in ``functional_call``, treats a layer with two names as two layers and replaces its
    weights in one of them only.
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
    """Unwrap the network in a skeleton."""
    while isinstance(network, _Unwrapped):
        network = next(network.children())
    return network


def check_model(model: nn.Module) -> None:
    """Refuse models without a Hessian; errors as in ``skeleton_of``."""
    check_module(model)
    for name, layer in model.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise TypeError(
                f"{_location(name, layer)} is compiled by torch.jit, which hides how it uses its weights: "
                "give the original module"
            )
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise ValueError(f"{name} has no shape yet: run the network once to initialise its lazy layers")
        if not parameter.is_floating_point():
            raise ValueError(f"{name} is of {parameter.dtype}: the Hessian needs real floating-point weights")
    if next(model.parameters(), None) is None:
        raise ValueError(f"{type(model).__name__} has no parameters, so that its loss has no Hessian")


def _location(name: str, layer: nn.Module) -> str:
    return f"{name} ({type(layer).__name__})" if name else type(layer).__name__


def _wrapped(layer: nn.Module) -> str | None:
    return next((_WRAPPERS[kind.__name__] for kind in type(layer).__mro__ if kind.__name__ in _WRAPPERS), None)


class _Unwrapped(nn.Module):
    """Hold a single module under the given name, and call it."""

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self._name = name
        self.add_module(name, module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self._name)(*args, **kwargs)


class _UnwrappedNetwork(_Unwrapped):
    """An unwrapped network, which takes the examples only."""

    def forward(self, inputs: Any) -> Any:
        return super().forward(inputs)


class _CopyingComputed(TorchFunctionMode):
    """Allow copies of computed tensors; those computed from a model's weights become placeholders."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._weights = {id(parameter): name for name, parameter in model.named_parameters()}
        self._locations: dict[int, str] | None = None  # computed on demand

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
            memo[id(tensor)] = AbsentComputed.like(tensor, f"{self._location(tensor)} was computed from {weight}")
        elif not tensor.is_leaf:
            memo[id(tensor)] = tensor.detach().clone()
        else:
            return func(*args, **(kwargs or {}))
        return memo[id(tensor)]

    def _location(self, tensor: Tensor) -> str:
        if self._locations is None:
            self._locations = {}
            for name, layer in self._model.named_modules():
                for key, value in vars(layer).items():
                    if key not in {"_parameters", "_buffers", "_modules"}:
                        tensors = (held for held in _held([value]) if isinstance(held, Tensor))
                        self._locations = {
                            id(held): f"{key} of {_location(name, layer)}" for held in tensors
                        } | self._locations
        return self._locations.get(id(tensor), f"a tensor that {type(self._model).__name__} holds")


def weight_behind(tensor: Tensor, weights: Mapping[int, str]) -> str | None:
    """Name of a weight that ``tensor`` is a view of or was computed from; ``weights`` maps identities to names."""
    leaves = [tensor._base] if tensor._is_view() else []
    return next((weights[id(leaf)] for leaf in (*leaves, *leaves_of(tensor)) if id(leaf) in weights), None)


def leaves_of(outputs: Tensor) -> Iterator[Tensor]:
    """Yield the leaves of a tensor's graph."""
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
    """Yield ``roots`` and all objects that they hold, at any depth."""
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
    """Yield the objects in ``network`` whose type cannot be copied: locks, files, iterators."""
    for held in _held(network.modules()):
        if isinstance(held, Tensor):
            continue
        try:
            hasattr(held, "__deepcopy__") or held.__reduce_ex__(4)
        except Exception:  # whatever copying raises
            yield held


def _uncopied(network: nn.Module, memo: Mapping[int, Any]) -> str:
    """Name the attribute that prevents a copy."""
    for name, layer in reversed(list(network.named_modules())):
        for key, value in vars(layer).items():
            try:
                copy.deepcopy(value, dict(memo))
            except Exception:  # whatever copying raises
                return f"{key} of {_location(name, layer)}"
    return type(network).__name__
