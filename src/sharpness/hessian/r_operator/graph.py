"""Trace a network into a graph of layers and functions without in-place operations."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx, nn

from sharpness.hessian.double_backward.differentiable import traceable
from sharpness.hessian.double_backward.formulas import DROPOUTS
from sharpness.hessian.double_backward.transformer import formula_of
from sharpness.hessian.r_operator.operation import UntraceableError

# Dropout is off when curvature is measured.
_IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def graph_of(network: nn.Module) -> fx.Graph:
    """Trace ``network``, in evaluation mode; nodes are in execution order.

    Raises:
        UntraceableError: the operations depend on the data, or one of them works in place.
    """
    buffers = [(layer._buffers, dict(layer._buffers)) for layer in network.modules()]
    try:
        with traceable():
            graph = _Tracer().trace(network, concrete_args=_defaults(network))
    except Exception as error:  # whatever a user's forward raises on a proxy
        raise UntraceableError(f"its operations depend on the data: {error}") from error
    finally:
        assigned = [key for now, before in buffers for key in before if now.get(key) is not before[key]]
        for now, before in buffers:
            now.update(before)
    if assigned:
        raise UntraceableError(f"its forward assigns the buffer {assigned[0]}")
    modules = dict(network.named_modules())
    _without_identities(graph, modules)
    _out_of_place(graph, modules)
    _without_dead_code(graph)
    _pool_before_relu(graph, modules)
    return graph


def is_plain(node: fx.Node, layer: nn.Module) -> bool:
    """Whether a node calls ``layer`` on one value, without hooks."""
    single = len(node.all_input_nodes) == 1 and not node.kwargs and len(node.args) == 1
    return single and not layer._forward_hooks and not layer._forward_pre_hooks


def _defaults(network: nn.Module) -> dict[str, Any]:
    """Defaults of the other arguments of ``forward``, so that ``if mask is None`` can be traced."""
    parameters = list(inspect.signature(network.forward).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


class _Proxy(fx.Proxy):
    """Mark ``x += y`` as in place; torch's own proxy records a plain sum."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return _overwriting(self + other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return _overwriting(self - other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return _overwriting(self * other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return _overwriting(self / other)


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True  # recompute what depends on buffers

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a layer becomes a single node."""
        return _formula(m) is None and super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Trace an attention layer through its formula."""
        formula = _formula(m)
        return super().call_module(m, functools.partial(formula, m) if formula else forward, args, kwargs)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Iterate over chunks, whose number is written down; whether there are so many is found out when computing."""
        node = obj.node
        if node.target in (torch.chunk, "chunk"):
            number = node.kwargs.get("chunks", node.args[1] if len(node.args) > 1 else None)
            if isinstance(number, int):
                parts: Any = obj
                return iter([parts[index] for index in range(number)])
        return super().iter(obj)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


def _formula(layer: nn.Module) -> Callable[..., Any] | None:
    return None if layer._forward_hooks or layer._forward_pre_hooks else formula_of(layer)


def _overwriting(result: fx.Proxy) -> fx.Proxy:
    result.node.meta["overwrites"] = True
    return result


def _plain_layer(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    layer = modules[str(node.target)] if node.op == "call_module" else None
    return layer if layer is not None and is_plain(node, layer) else None


def _without_identities(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    for node in list(graph.nodes):
        if isinstance(_plain_layer(node, modules), _IDENTITIES) or node.target in DROPOUTS:
            node.replace_all_uses_with(node.args[0] if node.args else node.kwargs["input"])
            graph.erase_node(node)


def _without_dead_code(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


def _out_of_place(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    """Replace in-place operations; refuse those whose input is read again afterwards."""
    order = {node: number for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if node.op == "call_module":
            overwrites = getattr(modules[str(node.target)], "inplace", False)
        else:
            _refuse_in_place(node)
            overwrites = node.kwargs.get("inplace") or node.meta.get("overwrites")
        if not overwrites or not node.all_input_nodes:
            continue
        if any(order[user] > order[node] for user in node.all_input_nodes[0].users):
            raise UntraceableError(f"{node.name} changes values in place that are read again")
        if "inplace" in node.kwargs:
            node.update_kwarg("inplace", False)


def _refuse_in_place(node: fx.Node) -> None:
    name = str(getattr(node.target, "__name__", node.target))
    in_place = name == "setitem" or (name.endswith("_") and not name.endswith("__"))
    if in_place and node.op in ("call_function", "call_method"):
        raise UntraceableError(f"{name} changes values in place")


def _pool_before_relu(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    """Move a max pool before the ReLU that it follows: same values, at most a quarter of the ReLU's work."""
    for pool in list(graph.nodes):
        layer = _plain_layer(pool, modules)
        if not isinstance(layer, nn.MaxPool2d) or layer.return_indices:
            continue
        relu = pool.all_input_nodes[0]
        if isinstance(_plain_layer(relu, modules), nn.ReLU) and len(relu.users) == 1:
            pool.replace_input_with(relu, relu.all_input_nodes[0])
            with graph.inserting_after(pool):
                after = graph.call_module(str(relu.target), (pool,))
            pool.replace_all_uses_with(after, delete_user_cb=lambda user, after=after: user is not after)
            graph.erase_node(relu)
