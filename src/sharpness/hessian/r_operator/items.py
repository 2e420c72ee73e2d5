"""Parts of a result: nodes that take one value out of a call that returns several."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import fx

# Functions and methods that return several values.
_SPLITS = {"chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split", "unbind"}
_SEVERAL_RESULTS = {
    *_SPLITS,
    *("max", "min", "median", "nanmedian", "mode", "kthvalue", "sort", "topk", "cummax", "cummin", "aminmax"),
    *("var_mean", "std_mean", "qr", "svd", "eigh", "slogdet", "linalg_qr", "linalg_svd", "linalg_eigh"),
}
_FIELDS = {
    "values",
    "indices",
    "Q",
    "R",
    "U",
    "S",
    "Vh",
    "eigenvalues",
    "eigenvectors",
    "logabsdet",
    "output",
}


def is_unpacked(node: fx.Node) -> bool:
    """Whether a node may return several values, all of which are read one by one."""
    if node.op == "call_module":
        several = True
    elif _is_item(node):
        several = is_unpacked(_argument(node))
    else:
        several = str(getattr(node.target, "__name__", node.target)) in _SEVERAL_RESULTS
    return several and len(node.users) > 0 and all(_is_item(user) for user in node.users)


def is_split(node: fx.Node) -> bool:
    """Whether a node cuts one tensor into several, which is linear."""
    return node.op != "call_module" and str(getattr(node.target, "__name__", node.target)) in _SPLITS


def origin(node: fx.Node) -> tuple[fx.Node, list[Callable[[Any], Any]]]:
    """Return the node that computes a node's value, and the accessors that select the value from its result."""
    items: list[Callable[[Any], Any]] = []
    while _is_item(node) and is_unpacked(_argument(node)):
        key: Any = node.args[1]
        items.insert(0, operator.attrgetter(key) if node.target is getattr else operator.itemgetter(key))
        node = _argument(node)
    return node, items


def _is_item(node: fx.Node) -> bool:
    if node.op != "call_function" or not isinstance(node.args[0], fx.Node):
        return False
    is_field = node.target is getattr and node.args[1] in _FIELDS
    return is_field or (node.target is operator.getitem and isinstance(node.args[1], int))


def _argument(node: fx.Node) -> fx.Node:
    argument = node.args[0]
    assert isinstance(argument, fx.Node)
    return argument
