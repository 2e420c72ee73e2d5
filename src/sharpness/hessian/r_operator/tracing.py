"""Trace a network into a list of operations, one for each layer and function."""

# ruff: noqa: ARG005 (the functions of generic operations have the same signature)

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

from sharpness.hessian.double_backward.differentiable import twice_differentiable
from sharpness.hessian.double_backward.formulas import formula
from sharpness.hessian.r_operator.attention import Attention
from sharpness.hessian.r_operator.bilinear import Dense
from sharpness.hessian.r_operator.generic import GenericOperation
from sharpness.hessian.r_operator.graph import graph_of, is_plain
from sharpness.hessian.r_operator.items import is_split, is_unpacked, origin
from sharpness.hessian.r_operator.layers import Add, LinearMap, Parameter, Relu
from sharpness.hessian.r_operator.operation import Operation, UntraceableError
from sharpness.hessian.r_operator.rules import attention_arguments, is_linear, operation_of
from sharpness.hessian.r_operator.smooth import Gelu, LayerNorm

Function = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Any]], Any]
_RELUS = {functional.relu, torch.relu, "relu"}
_SUMS = {operator.add, torch.add, "add"}
_TORCHS = {"torch", "_operator", "builtins", "math"}


@dataclass(frozen=True)
class Step:
    """One operation of a network, with the numbers of its inputs and weights."""

    operation: Operation
    inputs: tuple[int, ...]  # numbers of values: 0 is the network's input, i + 1 the output of step i
    weights: tuple[int, ...]  # numbers of the network's parameters
    buffers: tuple[int, ...]  # numbers of the network's floating-point buffers
    # What the step may overwrite in place, since nothing reads it afterwards:
    owns_tangent: bool = False  # the tangent of its first input
    owns_adjoint: bool = False  # the tangent of its output's adjoint


def steps_of(network: nn.Module) -> list[Step]:
    """List the operations of a network in evaluation mode, in execution order; the last returns the logits.

    Raises:
        UntraceableError: the operations depend on the data, or one of them works in place.
    """
    return _with_ownership(_Translation(network).steps(graph_of(network)))


class _Translation:
    """Numbers the values, parameters and buffers of a graph while its nodes become steps."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._modules = dict(network.named_modules())
        # By identity, since a parameter may have several names.
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
            elif is_unpacked(node):
                continue  # its parts are steps of their own
            else:
                self._call(node)
        return self._steps

    def _call(self, node: fx.Node) -> None:
        whole, items = origin(node)
        if items:
            function, tensors = self._generic_function(whole)

            def part(*given: Any) -> Any:
                try:
                    return functools.reduce(lambda value, item: item(value), items, function(*given))
                except IndexError:
                    raise UntraceableError(f"{whole.name} has fewer parts than it was asked for") from None

            inputs = whole.all_input_nodes
            if is_split(whole) and len(inputs) == 1:
                self._add(node, LinearMap(lambda values: part((), (), [values])), inputs)
            else:
                self._add(node, GenericOperation(part), inputs, tensors)
        elif node.op == "call_module":
            self._layer(node, self._modules[str(node.target)])
        else:
            self._function(node)

    def _add(
        self, node: fx.Node, operation: Operation, inputs: Sequence[fx.Node], tensors: Sequence[Tensor] = ()
    ) -> None:
        weights = tuple(self._parameters[id(tensor)] for tensor in tensors if id(tensor) in self._parameters)
        buffers = tuple(self._buffers[id(tensor)] for tensor in tensors if id(tensor) in self._buffers)
        self._steps.append(Step(operation, tuple(self._values[source] for source in inputs), weights, buffers))
        self._values[node] = len(self._steps)

    def _placeholder(self, node: fx.Node) -> None:
        if not self._values:
            self._values[node] = 0
        elif node.args:
            default = node.args[0]
            self._add(node, GenericOperation(lambda weights, buffers, inputs: default), [])
        else:
            raise UntraceableError(f"it takes {node.target} beside the examples")

    def _attribute(self, node: fx.Node) -> None:
        tensor = operator.attrgetter(str(node.target))(self._network)
        if id(tensor) in self._parameters:
            self._add(node, Parameter(), [], [tensor])
        elif id(tensor) in self._buffers:
            self._add(node, GenericOperation(lambda weights, buffers, inputs: buffers[0]), [], [tensor])
        else:
            self._add(node, GenericOperation(lambda weights, buffers, inputs: tensor), [])

    def _output(self, node: fx.Node) -> None:
        last = node.args[0]
        if not isinstance(last, fx.Node):
            raise UntraceableError("it does not return a single tensor of logits")
        if self._values[last] != len(self._steps):  # the network ends with an identity
            self._add(node, LinearMap(lambda values: values), [last])

    def _layer(self, node: fx.Node, layer: nn.Module) -> None:
        operation = operation_of(layer) if is_plain(node, layer) else None
        function, tensors = self._generic_function(node)
        self._add(node, operation or GenericOperation(function), node.all_input_nodes, tensors)

    def _function(self, node: fx.Node) -> None:
        inputs = node.all_input_nodes
        alone = len(node.args) == 1 and len(inputs) == 1
        if node.target in _RELUS and alone:
            self._add(node, Relu(), inputs)
        elif node.target is functional.gelu and alone:
            self._add(node, Gelu(str(node.kwargs.get("approximate", "none"))), inputs)
        elif node.target is functional.layer_norm and (tensors := self._weights_of_norm(node)):
            axes, epsilon = _norm_settings(node)
            self._add(node, LayerNorm(axes, epsilon), inputs[:1], tensors)
        elif node.target in _SUMS and len(inputs) == len(node.args) == 2 and not node.kwargs:
            self._add(node, Add(), inputs)
        elif node.target is functional.linear and (tensors := self._weights_of(node)):
            self._add(node, Dense(), inputs[:1], tensors)
        elif node.target is functional.scaled_dot_product_attention and (given := attention_arguments(node)):
            settings, inputs = given
            self._add(node, Attention(**settings), inputs)
        elif len(inputs) == 1 and is_linear(node):
            call, target = _with_nodes(node), _target(node)
            self._add(node, LinearMap(lambda values: call(target, [values])), inputs)
        else:
            self._add(node, GenericOperation(self._generic_function(node)[0]), inputs)

    def _weights_of(self, node: fx.Node) -> list[Tensor]:
        """Return kernel and bias of a call of ``linear``; empty unless they are distinct parameters."""
        given = dict(zip(("input", "weight", "bias"), node.args, strict=False)) | node.kwargs
        values, *weights = (given.get(name) for name in ("input", "weight", "bias"))
        nodes = [weight for weight in weights if isinstance(weight, fx.Node) and weight.op == "get_attr"]
        tensors = [operator.attrgetter(str(weight.target))(self._network) for weight in nodes]
        known = all(id(tensor) in self._parameters for tensor in tensors)
        constant = len(nodes) < sum(weight is not None for weight in weights)
        different = node.all_input_nodes == [values, *nodes]
        return tensors if nodes and known and different and not constant else []

    def _weights_of_norm(self, node: fx.Node) -> list[Tensor]:
        """Return weight and bias of a call of ``layer_norm``; empty unless they are distinct parameters."""
        given = inspect.signature(functional.layer_norm).bind(*node.args, **node.kwargs).arguments
        nodes = [given[name] for name in ("weight", "bias") if given.get(name) is not None]
        if not all(isinstance(part, fx.Node) and part.op == "get_attr" for part in nodes):
            return []
        tensors = [operator.attrgetter(str(part.target))(self._network) for part in nodes]
        known = all(id(tensor) in self._parameters for tensor in tensors) and "weight" in given
        return tensors if known and node.all_input_nodes == [given["input"], *nodes] else []

    def _generic_function(self, node: fx.Node) -> tuple[Function, list[Tensor]]:
        """Return the function for ``GenericOperation`` that computes a node, and its weights and buffers."""
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


def _norm_settings(node: fx.Node) -> tuple[int, float]:
    """Return the number of axes and epsilon of a call of ``layer_norm``."""
    call = inspect.signature(functional.layer_norm).bind(*node.args, **node.kwargs)
    call.apply_defaults()
    return len(call.arguments["normalized_shape"]), float(call.arguments["eps"])


def _target(node: fx.Node) -> Callable[..., Any]:
    if node.op == "call_method":
        # Memory formats differ from those in the network itself, where the view is valid.
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
    """Return a function that calls a target with a node's arguments, given values for the nodes among them."""
    nodes = node.all_input_nodes

    def call(target: Callable[..., Any], values: Sequence[Any]) -> Any:
        known = dict(zip(nodes, values, strict=True))
        args = fx.map_arg(node.args, known.__getitem__)
        return target(*args, **fx.map_arg(node.kwargs, known.__getitem__))

    return call


def _with_ownership(steps: list[Step]) -> list[Step]:
    """Mark what each step may overwrite in place: tensors that only it reads and nothing else shares."""
    readers: dict[int, list[int]] = {}
    for number, step in enumerate(steps):
        for index in step.inputs:
            readers.setdefault(index, []).append(number)

    def owns_tangent(number: int) -> bool:
        inputs = steps[number].inputs
        return (
            len(inputs) > 0
            and inputs[0] > 0
            and len(readers[inputs[0]]) == 1
            and steps[inputs[0] - 1].operation.allocates_tangent
        )

    def owns_adjoint(number: int) -> bool:
        return all(steps[reader].operation.allocates_adjoint for reader in readers.get(number + 1, ()))

    return [
        Step(step.operation, step.inputs, step.weights, step.buffers, owns_tangent(number), owns_adjoint(number))
        for number, step in enumerate(steps)
    ]
