"""A network as a list of operations: what each layer and function of a ``torch.nn.Module`` is in ``operations``."""

# ruff: noqa: ARG005 (every function of a Call is given the same three arguments)

from __future__ import annotations

import copy
import functools
import inspect
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from sharpness.hessian.double_backward.attention import Attention, attention
from sharpness.hessian.double_backward.differentiable import formula, twice_differentiable
from sharpness.hessian.r_operator.graph import graph_of, is_plain
from sharpness.hessian.r_operator.operations import (
    Add,
    BatchNorm,
    Call,
    Convolution,
    Dense,
    Embedding,
    LinearMap,
    MaxPool2d,
    Operation,
    Parameter,
    Relu,
    UntraceableError,
)

Function = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Any]], Any]

_RELUS = {functional.relu, torch.relu, "relu"}
_SUMS = {operator.add, torch.add, "add"}
_LINEAR_FUNCTIONS = {torch.flatten, torch.mean, torch.sum, torch.permute, functional.avg_pool2d}
_RESHAPES = {"flatten", "view", "reshape", "permute", "transpose", "contiguous", "squeeze", "unsqueeze"}
_LINEAR_METHODS = {"mean", "sum", *_RESHAPES}
_TORCHS = {"torch", "_operator", "builtins", "math"}
# Of these functions and methods a network takes the results apart.
_OF_SEVERAL = {
    *("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split", "unbind"),
    *("max", "min", "median", "nanmedian", "mode", "kthvalue", "sort", "topk", "cummax", "cummin", "aminmax"),
    *("var_mean", "std_mean", "qr", "svd", "eigh", "slogdet", "linalg_qr", "linalg_svd", "linalg_eigh"),
}
_NAMES_OF_RESULTS = {
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
_LINEAR_LAYERS = (nn.Flatten, nn.Unflatten, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True)
class Step:
    """One operation of a network, and where its inputs and weights are."""

    operation: Operation
    sources: tuple[int, ...]  # values that it takes: 0 is the network's input, i + 1 the output of step i
    weights: tuple[int, ...]  # numbers of the network's parameters
    buffers: tuple[int, ...]  # numbers of the network's floating-point buffers
    # What the step may overwrite, since nothing else will read it.
    owns_tangent: bool = False  # of its first source
    owns_adjoint: bool = False  # the tangent of the adjoint of its output


def steps_of(network: nn.Module) -> list[Step]:
    """The operations of a network in evaluation mode, in the order in which they run; the last gives the logits.

    Raises:
        UntraceableError: which operations run depends on the data, or one of them changes values in place.
    """
    return _with_owners(_Translation(network).steps(graph_of(network)))


class _Translation:
    """Numbers the values, parameters and buffers of a graph while its nodes become steps."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._modules = dict(network.named_modules())
        # By identity: one parameter may have several names.
        self._parameters = {id(parameter): number for number, parameter in enumerate(network.parameters())}
        floating = (buffer for buffer in network.buffers() if buffer.is_floating_point())
        self._buffers = {id(buffer): number for number, buffer in enumerate(floating)}
        self._values: dict[fx.Node, int] = {}
        self._steps: list[Step] = []

    def steps(self, graph: fx.Graph) -> list[Step]:
        """A step for every node that computes something."""
        for node in graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "get_attr":
                self._attribute(node)
            elif node.op == "output":
                self._output(node)
            elif _is_taken_apart(node):
                continue  # by those who read it
            else:
                self._call(node)
        return self._steps

    def _call(self, node: fx.Node) -> None:
        whole, items = _origin(node)
        if items:
            function, owners = self._torchs(whole)
            operation = Call(lambda *given: functools.reduce(lambda part, item: item(part), items, function(*given)))
            self._add(node, operation, whole.all_input_nodes, owners)
        elif node.op == "call_module":
            self._layer(node, self._modules[str(node.target)])
        else:
            self._function(node)

    def _add(
        self, node: fx.Node, operation: Operation, sources: Sequence[fx.Node], owners: Sequence[Tensor] = ()
    ) -> None:
        weights = tuple(self._parameters[id(tensor)] for tensor in owners if id(tensor) in self._parameters)
        buffers = tuple(self._buffers[id(tensor)] for tensor in owners if id(tensor) in self._buffers)
        self._steps.append(Step(operation, tuple(self._values[source] for source in sources), weights, buffers))
        self._values[node] = len(self._steps)

    def _placeholder(self, node: fx.Node) -> None:
        if not self._values:
            self._values[node] = 0
        elif node.args:
            default = node.args[0]
            self._add(node, Call(lambda weights, buffers, inputs: default), [])
        else:
            raise UntraceableError(f"it takes another input, {node.target}, beside the examples")

    def _attribute(self, node: fx.Node) -> None:
        tensor = operator.attrgetter(str(node.target))(self._network)
        if id(tensor) in self._parameters:
            self._add(node, Parameter(), [], [tensor])
        elif id(tensor) in self._buffers:
            self._add(node, Call(lambda weights, buffers, inputs: buffers[0]), [], [tensor])
        else:
            self._add(node, Call(lambda weights, buffers, inputs: tensor), [])

    def _output(self, node: fx.Node) -> None:
        last = node.args[0]
        if not isinstance(last, fx.Node):
            raise UntraceableError("it does not return one tensor of logits")
        if self._values[last] != len(self._steps):  # an identity at the end, or dead code after it
            self._add(node, LinearMap(lambda values: values), [last])

    def _layer(self, node: fx.Node, layer: nn.Module) -> None:
        operation = _operation_of(layer) if is_plain(node, layer) else None
        function, tensors = self._torchs(node)
        self._add(node, operation or Call(function), node.all_input_nodes, tensors)

    def _function(self, node: fx.Node) -> None:
        sources = node.all_input_nodes
        alone = len(node.args) == 1 and len(sources) == 1
        if node.target in _RELUS and alone:
            self._add(node, Relu(), sources)
        elif node.target in _SUMS and len(sources) == len(node.args) == 2 and not node.kwargs:
            self._add(node, Add(), sources)
        elif node.target is functional.linear and (tensors := self._weights_of(node)):
            self._add(node, Dense(), sources[:1], tensors)
        elif node.target is functional.scaled_dot_product_attention and (given := _given_to_attention(node)):
            settings, inputs = given
            self._add(node, Attention(**settings), inputs)
        elif len(sources) == 1 and _is_linear(node):
            call, target = _with_nodes(node), _target(node)
            self._add(node, LinearMap(lambda values: call(target, [values])), sources)
        else:
            self._add(node, Call(self._torchs(node)[0]), sources)

    def _weights_of(self, node: fx.Node) -> list[Tensor]:
        """The kernel and the bias of a linear function, if they are parameters and each argument is another."""
        given = dict(zip(("input", "weight", "bias"), node.args, strict=False)) | node.kwargs
        values, *weights = (given.get(name) for name in ("input", "weight", "bias"))
        nodes = [weight for weight in weights if isinstance(weight, fx.Node) and weight.op == "get_attr"]
        tensors = [operator.attrgetter(str(weight.target))(self._network) for weight in nodes]
        known = all(id(tensor) in self._parameters for tensor in tensors)
        constant = len(nodes) < sum(weight is not None for weight in weights)
        different = node.all_input_nodes == [values, *nodes]
        return tensors if nodes and known and different and not constant else []

    def _torchs(self, node: fx.Node) -> tuple[Function, list[Tensor]]:
        """What a node computes as a function for ``Call``, and the weights and buffers that it takes."""
        call = _with_nodes(node)
        if node.op != "call_module":
            target = _target(node)
            return lambda weights, buffers, inputs: call(target, inputs), []
        layer = self._modules[str(node.target)]
        names = [name for name, _ in layer.named_parameters()]
        buffer_names = [name for name, buffer in layer.named_buffers() if buffer.is_floating_point()]
        tensors = [*layer.parameters(), *(layer.get_buffer(name) for name in buffer_names)]
        if getattr(layer, "inplace", False):
            layer = copy.copy(layer)
            layer.inplace = False

        def function(weights: Sequence[Tensor], buffers: Sequence[Tensor], inputs: Sequence[Any]) -> Any:
            state = dict(zip([*names, *buffer_names], [*weights, *buffers], strict=True))
            with twice_differentiable():
                return call(lambda *args, **kwargs: functional_call(layer, state, args, kwargs), inputs)

        return function, tensors


def _is_linear(node: fx.Node) -> bool:
    """Whether a call is linear in its one input."""
    if node.op == "call_method":
        return node.target in _LINEAR_METHODS
    return node.target in _LINEAR_FUNCTIONS or (node.target is operator.getitem and isinstance(node.args[0], fx.Node))


def _given_to_attention(node: fx.Node) -> tuple[dict[str, Any], list[fx.Node]] | None:
    """The settings and the inputs of an operation, where it is one that has a rule of its own."""
    given = inspect.signature(attention).bind(*node.args, **node.kwargs)
    given.apply_defaults()
    arguments = given.arguments
    inputs = [arguments[name] for name in ("query", "key", "value", "attn_mask")]
    if inputs[-1] is None:
        inputs.pop()
    constant = not any(isinstance(arguments[name], fx.Node) for name in ("is_causal", "scale"))
    if arguments["enable_gqa"] or not constant or not all(isinstance(value, fx.Node) for value in inputs):
        return None
    return {name: arguments[name] for name in ("is_causal", "scale")}, inputs


def _is_taken_apart(node: fx.Node) -> bool:
    """Whether a node may give several values, each of which is read by itself."""
    if node.op == "call_module":
        several = True
    elif _is_item(node):
        several = _is_taken_apart(_first(node))
    else:
        several = str(getattr(node.target, "__name__", node.target)) in _OF_SEVERAL
    return several and len(node.users) > 0 and all(_is_item(user) for user in node.users)


def _origin(node: fx.Node) -> tuple[fx.Node, list[Callable[[Any], Any]]]:
    """What computes a node's value, and how to get to the part that it is."""
    items: list[Callable[[Any], Any]] = []
    while _is_item(node) and _is_taken_apart(_first(node)):
        place: Any = node.args[1]
        items.insert(0, operator.attrgetter(place) if node.target is getattr else operator.itemgetter(place))
        node = _first(node)
    return node, items


def _is_item(node: fx.Node) -> bool:
    if node.op != "call_function" or not isinstance(node.args[0], fx.Node):
        return False
    is_result = node.target is getattr and node.args[1] in _NAMES_OF_RESULTS
    return is_result or (node.target is operator.getitem and isinstance(node.args[1], int))


def _first(node: fx.Node) -> fx.Node:
    first = node.args[0]
    assert isinstance(first, fx.Node)
    return first


def _operation_of(layer: nn.Module) -> Operation | None:
    """The operation with a rule of its own that a layer is, if there is one."""
    names = [name for name, _ in layer.named_parameters()]
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) and names not in (
        ["weight"],
        ["weight", "bias"],
    ):
        return None  # its kernel is computed from other weights (``torch.nn.utils.parametrize``)
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and layer.padding_mode == "zeros":
        padding = _symmetric_padding(layer)
        return None if padding is None else Convolution(layer.stride, padding, layer.dilation, layer.groups)
    if isinstance(layer, nn.Linear):
        return Dense()
    if isinstance(layer, nn.Embedding) and layer.max_norm is None and not layer.scale_grad_by_freq:
        return Embedding(layer.padding_idx) if names == ["weight"] else None
    if isinstance(layer, nn.ReLU):
        return Relu()
    if isinstance(layer, nn.MaxPool2d) and not layer.return_indices:
        window, stride = _pair(layer.kernel_size), _pair(layer.stride)
        return MaxPool2d(window, stride, _pair(layer.padding), _pair(layer.dilation), layer.ceil_mode)
    if isinstance(layer, _BatchNorm) and layer.track_running_stats and not layer.training:
        return BatchNorm(layer.eps) if names == ["weight", "bias"] else None
    if isinstance(layer, _LINEAR_LAYERS):
        return LinearMap(layer)
    return None


def _symmetric_padding(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> tuple[int, ...] | None:
    if layer.padding == "valid":
        return (0,) * len(layer.kernel_size)
    if layer.padding == "same":
        total = [step * (size - 1) for step, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        return None if any(padding % 2 for padding in total) else tuple(padding // 2 for padding in total)
    assert not isinstance(layer.padding, str)
    return tuple(layer.padding)


def _pair(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _target(node: fx.Node) -> Callable[..., Any]:
    if node.op == "call_method":
        # A view of values that lie otherwise in memory here than in the network itself.
        is_view = node.target == "view" and not any(isinstance(argument, torch.dtype) for argument in node.args)
        name = "reshape" if is_view else str(node.target)
        method = getattr(Tensor, name, operator.methodcaller(name))
        if (instead := formula(method)) is not method:
            return instead
        return lambda first, *args, **kwargs: getattr(first, name)(*args, **kwargs)
    target = node.target
    assert callable(target)
    if (getattr(target, "__module__", None) or "torch").split(".")[0] in _TORCHS:
        return formula(target)

    def user_defined(*args: Any, **kwargs: Any) -> Any:
        with twice_differentiable():
            return target(*args, **kwargs)

    return user_defined


def _with_nodes(node: fx.Node) -> Callable[[Callable[..., Any], Sequence[Any]], Any]:
    """A call with a node's arguments, values in place of the nodes among them."""
    sources = node.all_input_nodes

    def call(target: Callable[..., Any], values: Sequence[Any]) -> Any:
        known = dict(zip(sources, values, strict=True))
        args = fx.map_arg(node.args, known.__getitem__)
        return target(*args, **fx.map_arg(node.kwargs, known.__getitem__))

    return call


def _with_owners(steps: list[Step]) -> list[Step]:
    """Tell each step what it may overwrite: what only it reads and nobody else holds."""
    readers: dict[int, list[int]] = {}
    for number, step in enumerate(steps):
        for source in step.sources:
            readers.setdefault(source, []).append(number)

    def owns_tangent(number: int) -> bool:
        sources = steps[number].sources
        return (
            len(sources) > 0
            and sources[0] > 0
            and len(readers[sources[0]]) == 1
            and steps[sources[0] - 1].operation.new_tangent
        )

    def owns_adjoint(number: int) -> bool:
        return all(steps[reader].operation.new_adjoint for reader in readers.get(number + 1, ()))

    return [
        Step(step.operation, step.sources, step.weights, step.buffers, owns_tangent(number), owns_adjoint(number))
        for number, step in enumerate(steps)
    ]
