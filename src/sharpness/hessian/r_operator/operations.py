"""The operations that networks are made of, each with the four passes of the R-operator (see ``r_operator``).

Those in which networks spend their time have rules of their own; ``Call`` serves any other that torch can differentiate
twice.
"""

# ruff: noqa: ARG002 (each operation reads what it needs of what all are given)

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp
from torch.nn import functional

aten = torch.ops.aten

Tensors = Sequence[Tensor]
Parts = Sequence[Tensor | None]

_log = logging.getLogger(__name__)


@dataclass
class Local:
    """Where an operation is differentiated; None stands for what is zero or not asked for."""

    weights: Tensors
    saved: Any  # what ``forward`` kept
    needed: Sequence[bool]  # by input, whether it depends on a weight that the Hessian has rows for
    adjoint: Tensor | None = None  # of the output, where the operation needs it
    along: Parts = ()  # the vector's entries for the weights
    tangents: Parts = ()  # of the inputs
    between: Any = None  # what ``r_forward`` leaves for ``r_backward``


class UntraceableError(ValueError):
    """A network whose operations cannot be listed before its data are seen."""


class Operation:
    """y = f(x, w), with x the inputs and w the weights; subclasses say what each pass does."""

    new_tangent = True  # whether the tangent of y never shares memory with that of x
    new_adjoint = True  # the same for what R-backward returns and what it was given

    def needs_adjoint(self, *, moving: bool) -> bool:
        """Whether R-backward reads the adjoint of y; ``moving``: an input depends on a weight."""
        return False

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """The output, and what the other passes want to see again."""
        raise NotImplementedError

    def backward(self, at: Local, adjoint: Tensor) -> Parts:
        """The adjoints of the inputs from that of the output."""
        raise NotImplementedError

    def r_forward(self, at: Local, *, owned: bool) -> Tensor | None:
        """The tangent of the output; ``owned``: the first tangent may be overwritten."""
        raise NotImplementedError

    def r_backward(self, at: Local, moved: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        """The tangents of the adjoints of the inputs and of the gradients of the weights.

        ``moved`` is the tangent of the adjoint of the output; ``owned``: it may be overwritten.
        """
        raise NotImplementedError


class Bilinear(Operation):
    """y = x * w + b for a product ``*`` that is linear in both: convolutions and dense layers."""

    def needs_adjoint(self, *, moving: bool) -> bool:
        """See ``Operation``; at the first layer the gradient of w is linear in the adjoint alone."""
        return moving

    def product(self, inputs: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """x * w + b."""
        raise NotImplementedError

    def adjoint_of_inputs(self, adjoint: Tensor, like: Tensor, kernel: Tensor) -> Tensor:
        """Of x, which is ``like``: linear in w."""
        raise NotImplementedError

    def adjoint_of_kernel(self, adjoint: Tensor, inputs: Tensor, like: Tensor) -> Tensor:
        """Of w, which is ``like``: linear in x."""
        raise NotImplementedError

    def adjoint_of_bias(self, adjoint: Tensor) -> Tensor:
        """Of b."""
        raise NotImplementedError

    def two_products(self, inputs: Tensors, kernels: Tensors, bias: Tensor | None) -> Tensor:
        """The sum of two x * w, and b."""
        first, second = (self.product(x, w, b) for x, w, b in zip(inputs, kernels, (bias, None), strict=True))
        return first.add_(second)

    def two_adjoints_of_inputs(self, adjoints: Tensors, like: Tensor, kernels: Tensors) -> Tensor:
        """The sum of two of them."""
        first, second = (self.adjoint_of_inputs(a, like, w) for a, w in zip(adjoints, kernels, strict=True))
        return first.add_(second)

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """See ``Operation``; the input is kept."""
        kernel, *bias = weights
        return self.product(inputs[0], kernel, bias[0] if bias else None), inputs[0]

    def backward(self, at: Local, adjoint: Tensor) -> Parts:
        """See ``Operation``."""
        return (self.adjoint_of_inputs(adjoint, at.saved, at.weights[0]),)

    def r_forward(self, at: Local, *, owned: bool) -> Tensor | None:
        """See ``Operation``: x * w' + x' * w + b'."""
        kernel, tangent = at.along[0], at.tangents[0]
        bias = at.along[1] if len(at.along) > 1 else None
        if kernel is not None and tangent is not None:
            return self.two_products((at.saved, tangent), (kernel, at.weights[0]), bias)
        if kernel is not None:
            return self.product(at.saved, kernel, bias)
        if tangent is None and bias is not None:
            tangent = torch.zeros_like(at.saved)
        return None if tangent is None else self.product(tangent, at.weights[0], bias)

    def r_backward(self, at: Local, moved: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        """See ``Operation``: each adjoint is bilinear, so that its tangent is a sum of two."""
        kernel, tangent, adjoint = at.along[0], at.tangents[0], at.adjoint
        of_inputs = of_kernel = of_bias = None
        if at.needed[0] and kernel is not None and adjoint is not None:
            of_inputs = self.two_adjoints_of_inputs((moved, adjoint), at.saved, (at.weights[0], kernel))
        elif at.needed[0]:
            of_inputs = self.adjoint_of_inputs(moved, at.saved, at.weights[0])
        if kernel is not None:
            of_kernel = self.adjoint_of_kernel(moved, at.saved, kernel)
            if tangent is not None and adjoint is not None:
                of_kernel.add_(self.adjoint_of_kernel(adjoint, tangent, kernel))
        if len(at.along) > 1 and at.along[1] is not None:
            of_bias = self.adjoint_of_bias(moved)
        return (of_inputs,), (of_kernel, of_bias)[: len(at.along)]


class Convolution(Bilinear):
    """A convolution of any number of dimensions with zero padding."""

    def __init__(self, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int) -> None:
        self._geometry = list(stride), list(padding), list(dilation), False, [0] * len(stride), groups
        self._in_one = groups == 1

    def product(self, inputs: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """See ``Bilinear``."""
        outputs: Tensor = aten.convolution(inputs, kernel, bias, *self._geometry)
        return outputs

    def adjoint_of_inputs(self, adjoint: Tensor, like: Tensor, kernel: Tensor) -> Tensor:
        """See ``Bilinear``."""
        return self._backward(adjoint, like, kernel, [True, False, False])[0]

    def adjoint_of_kernel(self, adjoint: Tensor, inputs: Tensor, like: Tensor) -> Tensor:
        """See ``Bilinear``."""
        return self._backward(adjoint, inputs, like, [False, True, False])[1]

    def adjoint_of_bias(self, adjoint: Tensor) -> Tensor:
        """See ``Bilinear``."""
        return _over_channels(adjoint)

    def two_products(self, inputs: Tensors, kernels: Tensors, bias: Tensor | None) -> Tensor:
        """See ``Bilinear``: one convolution of twice the channels, which is faster than two and their sum."""
        if not self._in_one:
            return super().two_products(inputs, kernels, bias)
        return self.product(torch.cat(list(inputs), 1), torch.cat(list(kernels), 1), bias)

    def two_adjoints_of_inputs(self, adjoints: Tensors, like: Tensor, kernels: Tensors) -> Tensor:
        """See ``Bilinear`` and ``two_products``."""
        if not self._in_one:
            return super().two_adjoints_of_inputs(adjoints, like, kernels)
        return self.adjoint_of_inputs(torch.cat(list(adjoints), 1), like, torch.cat(list(kernels), 0))

    def _backward(self, adjoint: Tensor, inputs: Tensor, kernel: Tensor, wanted: list[bool]) -> Tensors:
        parts: Tensors = aten.convolution_backward(adjoint, inputs, kernel, None, *self._geometry, wanted)
        return parts


class Dense(Bilinear):
    """A dense layer: x w^T + b over the last dimension."""

    def product(self, inputs: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """See ``Bilinear``."""
        return functional.linear(inputs, kernel, bias)

    def adjoint_of_inputs(self, adjoint: Tensor, like: Tensor, kernel: Tensor) -> Tensor:
        """See ``Bilinear``."""
        return adjoint @ kernel

    def adjoint_of_kernel(self, adjoint: Tensor, inputs: Tensor, like: Tensor) -> Tensor:
        """See ``Bilinear``."""
        return adjoint.flatten(0, -2).T @ inputs.flatten(0, -2)

    def adjoint_of_bias(self, adjoint: Tensor) -> Tensor:
        """See ``Bilinear``."""
        return adjoint.flatten(0, -2).sum(0)


class Embedding(Operation):
    """The rows of a table at given places; that at ``padding`` is a constant."""

    def __init__(self, padding: int | None) -> None:
        self._padding = padding

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """See ``Operation``; the places are kept."""
        return functional.embedding(inputs[0], weights[0]), inputs[0]

    def r_forward(self, at: Local, *, owned: bool) -> Tensor | None:
        """See ``Operation``."""
        if at.along[0] is None:
            return None
        tangent = functional.embedding(at.saved, at.along[0])
        return tangent if self._padding is None else tangent.masked_fill((at.saved == self._padding).unsqueeze(-1), 0)

    def r_backward(self, at: Local, moved: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        """See ``Operation``."""
        if at.along[0] is None:
            return (None,), (None,)
        padding = -1 if self._padding is None else self._padding
        return (None,), (aten.embedding_dense_backward(moved, at.saved, len(at.weights[0]), padding, False),)


class Relu(Operation):
    """max(x, 0). Only its output is kept, which the next operation keeps anyway."""

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """See ``Operation``."""
        outputs = inputs[0].relu()
        return outputs, outputs

    def backward(self, at: Local, adjoint: Tensor) -> Parts:
        """See ``Operation``."""
        return (aten.threshold_backward(adjoint, at.saved, 0),)

    def r_forward(self, at: Local, *, owned: bool) -> Tensor | None:
        """See ``Operation``."""
        return None if at.tangents[0] is None else _masked(at.tangents[0], at.saved, owned=owned)

    def r_backward(self, at: Local, moved: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        """See ``Operation``."""
        return (_masked(moved, at.saved, owned=owned),), ()


class MaxPool2d(Operation):
    """The largest value of each window."""

    def __init__(
        self,
        size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        ceil_mode: bool,
    ) -> None:
        self._window = list(size), list(stride), list(padding), list(dilation), ceil_mode

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """See ``Operation``; where the largest values were is kept."""
        outputs, places = aten.max_pool2d_with_indices(inputs[0], *self._window)
        return outputs, (places, inputs[0].shape)

    def backward(self, at: Local, adjoint: Tensor) -> Parts:
        """See ``Operation``."""
        places, shape = at.saved
        # Only its shape and memory format are looked at.
        inputs = torch.empty(shape, dtype=adjoint.dtype, device=adjoint.device, memory_format=torch.channels_last)
        adjoint = adjoint.contiguous(memory_format=torch.channels_last)
        return (aten.max_pool2d_with_indices_backward(adjoint, inputs, *self._window, places),)

    def r_forward(self, at: Local, *, owned: bool) -> Tensor | None:
        """See ``Operation``."""
        if at.tangents[0] is None:
            return None
        places = at.saved[0].permute(0, 2, 3, 1)
        # Channels last, so that neighbours in memory are gathered together.
        flat = at.tangents[0].permute(0, 2, 3, 1).flatten(1, 2)
        return flat.gather(1, places.flatten(1, 2)).view(places.shape).permute(0, 3, 1, 2)

    def r_backward(self, at: Local, moved: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        """See ``Operation``."""
        return self.backward(at, moved), ()


class BatchNorm(Operation):
    """Batch norm with its moving statistics: y = w (x - mean) / std + b for each channel."""

    def __init__(self, epsilon: float) -> None:
        self._epsilon = epsilon

    def needs_adjoint(self, *, moving: bool) -> bool:
        """See ``Operation``."""
        return moving

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """See ``Operation``; the normalised input is kept."""
        (values,), (mean, variance) = inputs, buffers
        inverse = (variance + self._epsilon).rsqrt()
        normalised = (values - _channels(mean, values)) * _channels(inverse, values)
        outputs = torch.addcmul(_channels(weights[1], values), normalised, _channels(weights[0], values))
        return outputs, (normalised, inverse)

    def backward(self, at: Local, adjoint: Tensor) -> Parts:
        """See ``Operation``."""
        return (adjoint * _channels(at.weights[0] * at.saved[1], adjoint),)

    def r_forward(self, at: Local, *, owned: bool) -> Tensor | None:
        """See ``Operation``."""
        normalised, inverse = at.saved
        total = None
        if at.tangents[0] is not None:
            total = at.tangents[0] * _channels(at.weights[0] * inverse, normalised)
        if at.along[0] is not None:
            total = _sum(total, normalised * _channels(at.along[0], normalised))
        if at.along[1] is not None:
            total = _sum(total, _channels(at.along[1], normalised).expand_as(normalised).clone())
        return total

    def r_backward(self, at: Local, moved: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        """See ``Operation``."""
        normalised, inverse = at.saved
        of_inputs = of_scale = of_shift = None
        if at.needed[0]:
            of_inputs = moved * _channels(at.weights[0] * inverse, moved)
            if at.along[0] is not None and at.adjoint is not None:
                of_inputs.addcmul_(at.adjoint, _channels(at.along[0] * inverse, moved))
        if at.along[0] is not None:
            of_scale = _over_channels(moved * normalised)
            if at.tangents[0] is not None and at.adjoint is not None:
                of_scale = of_scale + inverse * _over_channels(at.adjoint * at.tangents[0])
        if at.along[1] is not None:
            of_shift = _over_channels(moved)
        return (of_inputs,), (of_scale, of_shift)


class Add(Operation):
    """The sum of two tensors of one shape."""

    new_adjoint = False

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """See ``Operation``."""
        one, other = inputs
        return one + other, (getattr(one, "shape", ()), getattr(other, "shape", ()))

    def backward(self, at: Local, adjoint: Tensor) -> Parts:
        """See ``Operation``."""
        return tuple(
            adjoint.sum_to_size(shape) if wanted else None for shape, wanted in zip(at.saved, at.needed, strict=True)
        )

    def r_forward(self, at: Local, *, owned: bool) -> Tensor | None:
        """See ``Operation``."""
        shape = torch.broadcast_shapes(*at.saved)  # type: ignore[no-untyped-call]
        one, other = at.tangents
        if one is None or other is None:
            given = other if one is None else one
            return None if given is None else given.expand(shape).clone()
        return one + other

    def r_backward(self, at: Local, moved: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        """See ``Operation``."""
        return self.backward(at, moved), ()


class LinearMap(Operation):
    """Anything that is linear in its one input and has no weights: reshapes, means, average pools."""

    new_tangent = False
    new_adjoint = False

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """See ``Operation``; the shape of the input is kept."""
        return self._function(inputs[0]), getattr(inputs[0], "shape", ())

    def backward(self, at: Local, adjoint: Tensor) -> Parts:
        """See ``Operation``; at any point, since the derivative of a linear map is the same everywhere."""
        anywhere = adjoint.new_empty(at.saved)
        if len(at.saved) == 4:
            anywhere = anywhere.contiguous(memory_format=torch.channels_last)
        with torch.enable_grad():
            return torch.autograd.grad(self._function(anywhere.requires_grad_()), anywhere, adjoint)

    def r_forward(self, at: Local, *, owned: bool) -> Tensor | None:
        """See ``Operation``."""
        return None if at.tangents[0] is None else self._function(at.tangents[0])

    def r_backward(self, at: Local, moved: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        """See ``Operation``."""
        return self.backward(at, moved), ()


class Parameter(Operation):
    """A weight that a network uses by itself, not through a layer."""

    new_tangent = False

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """See ``Operation``."""
        return weights[0], None

    def r_forward(self, at: Local, *, owned: bool) -> Tensor | None:
        """See ``Operation``."""
        return at.along[0]

    def r_backward(self, at: Local, moved: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        """See ``Operation``."""
        return (), (moved,)


class Call(Operation):
    """Any other operation, by torch's own derivatives, from the inputs anew each time.

    Along the vector they are taken in forward mode; in reverse mode alone where torch has no other, as for the adjoints
    of SiLU and of group norm.

    Args:
        function: of the weights, the buffers and the inputs.
    """

    # It may be a view, or return what it is given.
    new_tangent = False
    new_adjoint = False

    def __init__(self, function: Callable[[Tensors, Tensors, Sequence[Any]], Any]) -> None:
        self._function = function
        self._tangent, self._moved_adjoints = _ForwardMode(), _ForwardMode()

    def needs_adjoint(self, *, moving: bool) -> bool:
        """See ``Operation``; it may be curved in its weights."""
        return True

    def forward(self, weights: Tensors, buffers: Tensors, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """See ``Operation``; buffers and inputs are kept."""
        return self._function(weights, buffers, inputs), (inputs, buffers)

    def backward(self, at: Local, adjoint: Tensor) -> Parts:
        """See ``Operation``."""
        function, primals = self._smooth(at)
        parts = iter(vjp(function, *primals)[1](adjoint)[len(at.weights) :])
        return tuple(next(parts) if wanted else None for wanted in at.needed)

    def r_forward(self, at: Local, *, owned: bool) -> Tensor | None:
        """See ``Operation``."""
        function, primals = self._smooth(at)
        along = _along_all(at, primals)
        tangent: Tensor | None = self._tangent(function, primals, along)
        return _tangent_in_reverse(function, primals, along) if tangent is None else tangent

    def r_backward(self, at: Local, moved: Tensor, *, owned: bool) -> tuple[Parts, Parts]:
        """See ``Operation``."""
        function, primals = self._smooth(at)

        def adjoints(adjoint: Tensor, *primals: Tensor) -> tuple[Tensor, ...]:
            parts: tuple[Tensor, ...] = vjp(function, *primals)[1](adjoint)
            return parts

        adjoint = torch.zeros_like(moved) if at.adjoint is None else at.adjoint
        along = _along_all(at, primals)
        parts: Tensors | None = self._moved_adjoints(adjoints, (adjoint, *primals), (moved, *along))
        if parts is None:
            parts = _moved_adjoints_in_reverse(function, primals, along, adjoint, moved)
        num_weights = len(at.weights)
        gradients = tuple(
            None if entry is None else part for part, entry in zip(parts[:num_weights], at.along, strict=True)
        )
        of_inputs = iter(parts[num_weights:])
        return tuple(next(of_inputs) if wanted else None for wanted in at.needed), gradients

    def _smooth(self, at: Local) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
        """The operation as a function of the weights and of the needed inputs alone, and their values."""
        inputs, buffers = at.saved
        num_weights = len(at.weights)

        def function(*primals: Tensor) -> Tensor:
            moving = iter(primals[num_weights:])
            given = [next(moving) if wanted else value for value, wanted in zip(inputs, at.needed, strict=True)]
            outputs: Tensor = self._function(primals[:num_weights], buffers, given)
            return outputs

        return function, (*at.weights, *(value for value, wanted in zip(inputs, at.needed, strict=True) if wanted))


class _ForwardMode:
    """One derivative of an operation along a direction in forward mode, if torch has it, which the first use tells."""

    def __init__(self) -> None:
        self._exists = True

    def __call__(self, function: Callable[..., Any], primals: Tensors, along: Tensors) -> Any:
        """None where torch does not have it."""
        if not self._exists:
            return None
        with warnings.catch_warnings():
            # torch warns about its own forward-mode formulas when it loads them.
            warnings.simplefilter("ignore")
            try:
                return jvp(function, tuple(primals), tuple(along))[1]
            except NotImplementedError as error:
                _log.debug("in reverse mode alone: %s", error)
                self._exists = False
                return None


def _tangent_in_reverse(function: Callable[..., Tensor], primals: Tensors, along: Tensors) -> Tensor:
    """The tangent of the output: the transpose of what gives the adjoints, which is linear in that of the output."""
    anywhere = torch.zeros_like(function(*primals))
    parts: Tensors = vjp(lambda adjoint: vjp(function, *primals)[1](adjoint), anywhere)[1](tuple(along))
    return parts[0]


def _moved_adjoints_in_reverse(
    function: Callable[..., Tensor], primals: Tensors, along: Tensors, adjoint: Tensor, moved: Tensor
) -> Tensors:
    """The tangents of the adjoints: the gradient of <y, moved> + <adjoints, along>, as second derivatives commute."""

    def both(*primals: Tensor) -> tuple[Tensor, Tensors]:
        linearised = vjp(function, *primals)
        return linearised[0], linearised[1](adjoint)

    parts: Tensors = vjp(both, *primals)[1]((moved, tuple(along)))
    return parts


def _along_all(at: Local, primals: Tensors) -> tuple[Tensor, ...]:
    """The tangents of the weights and of the needed inputs, zeros where there is none."""
    given = [*at.along, *(tangent for tangent, wanted in zip(at.tangents, at.needed, strict=True) if wanted)]
    return tuple(torch.zeros_like(p) if t is None else t for p, t in zip(primals, given, strict=True))


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one.add_(other)


def _masked(tensor: Tensor, outputs: Tensor, *, owned: bool) -> Tensor:
    if not owned:
        masked: Tensor = aten.threshold_backward(tensor, outputs, 0)
        return masked
    aten.threshold_backward.grad_input(tensor, outputs, 0, grad_input=tensor)
    return tensor


def _channels(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 2))


def _over_channels(values: Tensor) -> Tensor:
    return values.sum([0, *range(2, values.dim())])
