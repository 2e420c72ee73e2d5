"""A network's structure: a copy of a model without memory for what is given at every call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# The layers around a network that only distribute or compile it, and what they call the network.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}


def skeleton_of(model: nn.Module) -> nn.Module:
    """A copy of ``model``, its parameters and floating-point buffers on the meta device.

    Forgotten weights are an error, not old ones. Layers that only distribute or compile what they hold are replaced by
    what they hold, under the same names. Tensors that the model has computed and kept are constants.

    Raises:
        TypeError: this is no network of this process whose weights can be replaced.
        ValueError: it has no parameters.
    """
    check_model(model)
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), False) for parameter in model.parameters()
    }
    memo |= {id(buffer): buffer.detach().to("meta") for buffer in model.buffers() if buffer.is_floating_point()}
    with _CopyingComputed():
        # From the inside out: a wrapper may hold others.
        for layer in reversed(list(model.modules())):
            if (name := _wrapped(layer)) is not None:
                through = _Around if layer is model else _Through
                memo[id(layer)] = through(name, copy.deepcopy(getattr(layer, name), memo))
        return copy.deepcopy(model, memo)


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
                f"{_place(name, model)} is compiled by torch.jit, which hides how it uses its weights: "
                "give the module that it was made of"
            )
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise ValueError(f"{name} has no shape yet: run the network once, so that its lazy layers know theirs")
        if not parameter.is_floating_point():
            raise ValueError(f"{name} is of {parameter.dtype}: the Hessian is by real weights of floating point")
    if next(model.parameters(), None) is None:
        raise ValueError(f"{type(model).__name__} has no parameters: there is nothing that the loss could be curved in")


def _place(name: str, model: nn.Module) -> str:
    layer = model.get_submodule(name)
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
    """Lets tensors be copied that were computed from others, without how they were."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))
