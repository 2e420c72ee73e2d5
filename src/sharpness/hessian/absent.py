"""Placeholders without values for weights that are given at every call, which detect wrong uses."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree


class Absent(Tensor):
    """Placeholder of a tensor that is given at every call; computing with it is an error.

    A plain meta tensor would not do: some of torch's CPU kernels read meta tensors as memory.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    _name: str

    @classmethod
    def like(cls, tensor: Tensor, name: str) -> Absent:
        absent: Absent = torch.Tensor._make_wrapper_subclass(
            cls,
            tensor.size(),
            strides=tensor.stride() if tensor.layout == torch.strided else None,
            dtype=tensor.dtype,
            device=torch.device("meta"),
        )
        absent._name = name
        return absent

    def _refusal(self) -> str:
        return (
            f"the network uses {self._name} from where it is not registered, as in a plain list, so that nothing can "
            f"take its place there: let its forward use {self._name} itself, or register it there too "
            "(nn.ParameterList)"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Absent:
        return memo.setdefault(id(self), self.like(self, self._name))  # type: ignore[no-any-return]

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{type(self).__name__}({self._name}, {list(self.shape)})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        raise ValueError(
            next(leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Absent))._refusal()
        )


class AbsentComputed(Absent):
    """Placeholder of a tensor that the model computed from its weights and stored; its name says which."""

    def _refusal(self) -> str:
        return f"{self._name} before and does not follow it: let the forward that uses it compute it anew"


class AbsentParameter(Absent, nn.Parameter):
    """Placeholder of a parameter."""


class FrozenUses(TorchFunctionMode):
    """Record which frozen weights, or views of them, torch functions take: they do not show in the graph."""

    def __init__(self, weights: Sequence[weakref.ref[nn.Parameter]], names: Sequence[str]) -> None:
        super().__init__()
        of = ((weight(), name) for weight, name in zip(weights, names, strict=True))
        self._frozen = {id(weight): name for weight, name in of if weight is not None and not weight.requires_grad}
        self.names: list[str] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._frozen and isinstance(result, Tensor):  # other calls may only ask for a shape
            taken = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            found = (self._frozen.get(id(part)) for leaf in taken for part in (leaf, leaf._base))
            self.names += [name for name in found if name is not None]
        return result
