"""Exact Hessian-vector products, operation by operation: Pearlmutter's R-operator.

An operation y = f(x, w) has four passes (Pearlmutter, "Fast exact multiplication by the Hessian", 1994):

- forward: y;
- backward: the adjoint of x (dL/dx) from the adjoint of y;
- R-forward: the tangent of y, its derivative along the vector, from the tangent of x and the vector's entries for w;
- R-backward: the tangent of the adjoint of x, and that of the gradient of w, which are the product's entries for w.

The first two passes do not depend on the vector, so their results are cached, and a product takes only the last two:
six convolutions per layer, where a gradient takes three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sharpness.hessian.curvature import CurvatureKind, at_outputs
from sharpness.hessian.double_backward.casts import working_in
from sharpness.hessian.inputs import Inputs, tensors_of
from sharpness.hessian.loss import as_precise, channels_last
from sharpness.hessian.losses.criterion import Criterion, OutputCurvature
from sharpness.hessian.r_operator.operation import Context, Parts, UntraceableError
from sharpness.hessian.r_operator.tracing import steps_of


@dataclass
class Linearisation:
    """Cached results of the first two passes over a chunk of examples."""

    weights: list[Tensor]
    saved: list[object]  # by step; None if nothing depends on a chosen weight
    adjoints: list[Tensor | None]  # by step, of its output, if its operation needs it
    active: list[bool]  # by value, whether it depends on a chosen weight
    gradient: Tensor | None  # of the loss at the outputs, where products need it
    curvature: OutputCurvature  # of the loss at the outputs
    borrowed: set[int]  # addresses of storage shared with weights, buffers and examples

    @property
    def num_bytes(self) -> int:
        """Bytes of memory that this holds, beside weights, buffers and examples."""
        storages = {}
        for tensor in _tensors([self.curvature.tensors, self.gradient, self.adjoints, self.saved]):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()  # a dictionary, since operations may share storage
        return sum(size for address, size in storages.items() if address not in self.borrowed)


class ROperator:
    """Products with a curvature of the loss, summed over terms, through a network's list of operations.

    The Gauss-Newton matrix and the sum of squared gradients take the same passes as the Hessian, but leave the adjoints
    out, and with them all second derivatives of the network.

    Args:
        network: in the mode to differentiate; only its structure is used.
        chosen: by parameter, in the order of ``network.parameters()``: whether the Hessian has rows for it.
        criterion: the loss of outputs and targets.
        kind: of curvature.

    Raises:
        UntraceableError: the network's operations depend on its data, or change values in place.
    """

    def __init__(
        self, network: nn.Module, chosen: Sequence[bool], criterion: Criterion, kind: CurvatureKind = "hessian"
    ) -> None:
        self._steps = steps_of(network)
        self._chosen = chosen
        self.criterion = criterion
        self.kind = kind

    @property
    def is_static(self) -> bool:
        """Whether every product runs the same kernels."""
        return all(step.operation.is_recordable for step in self._steps)

    @torch.no_grad()
    def linearise(self, weights: list[Tensor], buffers: list[Tensor], inputs: Inputs, targets: Tensor) -> Linearisation:
        """Run the forward and the backward pass, at less than the cost of a gradient.

        Args:
            weights: by parameter.
            buffers: by floating-point buffer.
            inputs: [n, ...]; converted to the precision of the weights.
            targets: [n, ...], as the criterion takes them.
        """
        borrowed = {tensor.untyped_storage().data_ptr() for tensor in [*weights, *buffers, *tensors_of(inputs)]}
        inputs = as_precise(inputs, weights[0].dtype)
        with working_in(weights[0].dtype):
            logits, saved, active = self._forward(
                weights, buffers, channels_last(inputs) if isinstance(inputs, Tensor) else inputs
            )
            adjoint, curvature = at_outputs(self.kind, self.criterion, logits, targets)
            gradient = adjoint if self.kind == "gradient_covariance" else None
            none = [None] * len(self._steps)
            linearisation = Linearisation(weights, saved, [*none], active, gradient, curvature, borrowed)
            if self.kind == "hessian":
                self._backward(linearisation, adjoint.to(logits.dtype))
        return linearisation

    def _forward(
        self, weights: list[Tensor], buffers: list[Tensor], inputs: Inputs
    ) -> tuple[Tensor, list[object], list[bool]]:
        values: list[object] = [inputs]
        active = [False]
        saved: list[object] = []
        last_use = {index: number for number, step in enumerate(self._steps) for index in step.inputs}
        for number, step in enumerate(self._steps):
            value, save = step.operation.forward(
                [weights[index] for index in step.weights],
                [buffers[index] for index in step.buffers],
                [values[index] for index in step.inputs],
            )
            depends = any(self._chosen[index] for index in step.weights) or any(active[i] for i in step.inputs)
            if depends and not isinstance(value, Tensor) and _tensors(value):
                raise UntraceableError("one of its operations returns several tensors")
            values.append(value)
            active.append(depends and isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()))
            saved.append(save if active[-1] else None)
            for index in step.inputs:
                if last_use[index] == number:
                    values[index] = None  # free its memory
        if not isinstance(logits := values[-1], Tensor):
            raise UntraceableError("the network does not return a single tensor of logits")
        return logits, saved, active

    def _context(self, linearisation: Linearisation, number: int) -> Context:
        step = self._steps[number]
        return Context(
            weights=[linearisation.weights[index] for index in step.weights],
            saved=linearisation.saved[number],
            needed=[linearisation.active[index] for index in step.inputs],
            adjoint=linearisation.adjoints[number],
        )

    def _backward(self, linearisation: Linearisation, last: Tensor) -> None:
        adjoints: dict[int, Tensor] = {len(self._steps): last}
        for number in reversed(range(len(self._steps))):
            step = self._steps[number]
            adjoint = adjoints.pop(number + 1, None)
            if adjoint is None:
                continue
            ctx = self._context(linearisation, number)
            if any(ctx.needed):
                _accumulate(adjoints, step.inputs, step.operation.backward(ctx, adjoint), ctx.needed)
            if step.operation.needs_adjoint(active=any(ctx.needed)):
                linearisation.adjoints[number] = adjoint

    @torch.no_grad()
    def add_product(self, linearisation: Linearisation, vector: Parts, product: Parts) -> None:
        """Run the R-forward and R-backward passes: add the curvature times ``vector`` to ``product``, by parameter."""
        with working_in(linearisation.weights[0].dtype):
            self._add_product(linearisation, vector, product)

    def _add_product(self, linearisation: Linearisation, vector: Parts, product: Parts) -> None:
        tangents: list[Tensor | None] = [None]
        contexts: list[Context] = []
        for number, step in enumerate(self._steps):
            ctx = self._context(linearisation, number)
            ctx.weight_tangents = [vector[index] for index in step.weights]
            ctx.input_tangents = [tangents[index] for index in step.inputs]
            contexts.append(ctx)
            active = linearisation.active[number + 1]
            tangents.append(step.operation.r_forward(ctx, owned=step.owns_tangent) if active else None)
        last = tangents[-1]
        if last is None:
            return  # the loss does not depend on any chosen weight
        tangents.clear()
        self._r_backward(contexts, product, linearisation.curvature.times(last).to(last.dtype))

    @torch.no_grad()
    def add_gradient(self, linearisation: Linearisation, total: Parts) -> None:
        """Add the gradient of the summed loss to ``total``, by parameter; not for the Hessian."""
        assert linearisation.gradient is not None
        if not linearisation.active[-1]:
            return
        with working_in(linearisation.weights[0].dtype):
            contexts = [self._context(linearisation, number) for number in range(len(self._steps))]
            for step, ctx in zip(self._steps, contexts, strict=True):
                ctx.weight_tangents = [total[index] for index in step.weights]  # which have a gradient
                ctx.input_tangents = [None] * len(step.inputs)
            # Without adjoints and tangents, the tangent of a gradient is linear in that of the outputs' adjoint.
            self._r_backward(contexts, total, linearisation.gradient.to(linearisation.weights[0].dtype, copy=True))

    def _r_backward(self, contexts: list[Context], product: Parts, last: Tensor) -> None:
        r_adjoints: dict[int, Tensor] = {len(self._steps): last}
        for number in reversed(range(len(self._steps))):
            step, ctx = self._steps[number], contexts.pop()
            r_adjoint = r_adjoints.pop(number + 1, None)
            if r_adjoint is None:
                continue
            inputs, gradients = step.operation.r_backward(ctx, r_adjoint, owned=step.owns_adjoint)
            _accumulate(r_adjoints, step.inputs, inputs, ctx.needed)
            for index, gradient in zip(step.weights, gradients, strict=True):
                total = product[index]
                if gradient is not None and total is not None:
                    total += gradient


def _accumulate(totals: dict[int, Tensor], indices: Sequence[int], parts: Parts, needed: Sequence[bool]) -> None:
    for index, part, wanted in zip(indices, parts, needed, strict=True):
        if wanted and part is not None:
            totals[index] = totals[index] + part if index in totals else part


def _tensors(held: object) -> list[Tensor]:
    if isinstance(held, Tensor):
        return [held]
    return [tensor for part in held for tensor in _tensors(part)] if isinstance(held, list | tuple) else []
