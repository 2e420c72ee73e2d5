"""Exact products with the Hessian of a network's loss, operation by operation: Pearlmutter's R-operator.

An operation y = f(x, w) takes part in four passes (Pearlmutter, "Fast exact multiplication by the Hessian", 1994):

- forward: y;
- backward: the adjoint of x (dL/dx) from the adjoint of y;
- R-forward: the tangent of y, its derivative along the vector, from the tangent of x and the vector's entries for w;
- R-backward: the tangent of the adjoint of x, and of the gradient of w, which is the product's entries for w.

The first two do not depend on the vector. Their results are kept, so that a product is the last two: six convolutions
a layer, where a gradient is three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sharpness.hessian.cross_entropy import Curvature, gradient_and_curvature
from sharpness.hessian.double_backward.casts import working_in
from sharpness.hessian.loss import as_precise, channels_last
from sharpness.hessian.r_operator.operations import Call, Local, UntraceableError
from sharpness.hessian.r_operator.tracing import steps_of


@dataclass
class Kept:
    """What the first two passes over a chunk of examples leave behind."""

    weights: list[Tensor]
    saved: list[object]  # by step, what its operation wants to see again; None where nothing depends on a chosen weight
    adjoints: list[Tensor | None]  # by step, of its output
    active: list[bool]  # by value, whether it depends on a chosen weight
    curvature: Curvature  # of the loss, at the logits
    borrowed: set[int]  # addresses of the memory of weights, buffers and examples

    @property
    def num_bytes(self) -> int:
        """Memory that lives as long as this does, beside weights and examples."""
        storages = {}
        for tensor in _tensors([self.curvature.tensors, self.adjoints, self.saved]):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()  # once where two operations keep the same
        return sum(size for address, size in storages.items() if address not in self.borrowed)


class ROperator:
    """The Hessian of cross-entropy, summed over examples, as a network's operations one after the other.

    Args:
        network: in the mode that is to be differentiated; only its structure is used.
        chosen: by parameter in the order of ``network.parameters()``, whether the Hessian has rows for it.

    Raises:
        UntraceableError: the network's operations depend on its data, or change values in place.
    """

    def __init__(self, network: nn.Module, chosen: Sequence[bool]) -> None:
        self._steps = steps_of(network)
        self._chosen = chosen

    @property
    def is_static(self) -> bool:
        """Whether a product is always the same kernels: of other operations than this project's own nobody knows."""
        return not any(isinstance(step.operation, Call) for step in self._steps)

    @torch.no_grad()
    def linearise(self, weights: list[Tensor], buffers: list[Tensor], inputs: Tensor, targets: Tensor) -> Kept:
        """The forward and the backward pass: less than a gradient of work.

        Args:
            weights: by parameter.
            buffers: by floating-point buffer.
            inputs: [n, ...]; worked on in the precision of the weights.
            targets: [n, ...], as in ``cross_entropy``.
        """
        borrowed = {tensor.untyped_storage().data_ptr() for tensor in [*weights, *buffers, inputs]}
        inputs = as_precise(inputs, weights[0].dtype)
        with working_in(weights[0].dtype):
            logits, saved, active = self._forward(weights, buffers, channels_last(inputs))
            adjoint, curvature = gradient_and_curvature(logits, targets)
            kept = Kept(weights, saved, [None] * len(self._steps), active, curvature, borrowed)
            self._backward(kept, adjoint.to(logits.dtype))
        return kept

    def _forward(
        self, weights: list[Tensor], buffers: list[Tensor], inputs: Tensor
    ) -> tuple[Tensor, list[object], list[bool]]:
        values: list[object] = [inputs]
        active = [False]
        saved: list[object] = []
        last_use = {source: number for number, step in enumerate(self._steps) for source in step.sources}
        for number, step in enumerate(self._steps):
            value, keep = step.operation.forward(
                [weights[index] for index in step.weights],
                [buffers[index] for index in step.buffers],
                [values[source] for source in step.sources],
            )
            depends = any(self._chosen[index] for index in step.weights) or any(active[s] for s in step.sources)
            if depends and not isinstance(value, Tensor) and _tensors(value):
                raise UntraceableError("one of its operations gives several tensors")
            values.append(value)
            active.append(depends and isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()))
            saved.append(keep if active[-1] else None)
            for source in step.sources:
                if last_use[source] == number:
                    values[source] = None  # its memory may be used again
        if not isinstance(logits := values[-1], Tensor):
            raise UntraceableError("the network does not end with one tensor of logits")
        return logits, saved, active

    def _at(self, kept: Kept, number: int) -> Local:
        step = self._steps[number]
        return Local(
            weights=[kept.weights[index] for index in step.weights],
            saved=kept.saved[number],
            needed=[kept.active[source] for source in step.sources],
            adjoint=kept.adjoints[number],
        )

    def _backward(self, kept: Kept, last: Tensor) -> None:
        adjoints: dict[int, Tensor] = {len(self._steps): last}
        for number in reversed(range(len(self._steps))):
            step = self._steps[number]
            adjoint = adjoints.pop(number + 1, None)
            if adjoint is None:
                continue
            at = self._at(kept, number)
            if any(at.needed):
                _accumulate(adjoints, step.sources, step.operation.backward(at, adjoint), at.needed)
            if step.operation.needs_adjoint(moving=any(at.needed)):
                kept.adjoints[number] = adjoint

    @torch.no_grad()
    def add_product(self, kept: Kept, vector: Sequence[Tensor | None], product: Sequence[Tensor | None]) -> None:
        """The R-forward and the R-backward pass: add the Hessian times ``vector`` to ``product``, both by parameter."""
        with working_in(kept.weights[0].dtype):
            self._add_product(kept, vector, product)

    def _add_product(self, kept: Kept, vector: Sequence[Tensor | None], product: Sequence[Tensor | None]) -> None:
        tangents: list[Tensor | None] = [None]
        places: list[Local] = []
        for number, step in enumerate(self._steps):
            at = self._at(kept, number)
            at.along = [vector[index] for index in step.weights]
            at.tangents = [tangents[source] for source in step.sources]
            places.append(at)
            active = kept.active[number + 1]
            tangents.append(step.operation.r_forward(at, owned=step.owns_tangent) if active else None)
        last = tangents[-1]
        if last is None:
            return  # no chosen weight has an influence on the loss
        tangents.clear()
        self._r_backward(places, product, kept.curvature.times(last).to(last.dtype))

    def _r_backward(self, places: list[Local], product: Sequence[Tensor | None], last: Tensor) -> None:
        moved: dict[int, Tensor] = {len(self._steps): last}
        for number in reversed(range(len(self._steps))):
            step, at = self._steps[number], places.pop()
            of_output = moved.pop(number + 1, None)
            if of_output is None:
                continue
            inputs, gradients = step.operation.r_backward(at, of_output, owned=step.owns_adjoint)
            _accumulate(moved, step.sources, inputs, at.needed)
            for index, gradient in zip(step.weights, gradients, strict=True):
                total = product[index]
                if gradient is not None and total is not None:
                    total += gradient


def _accumulate(
    totals: dict[int, Tensor], sources: Sequence[int], parts: Sequence[Tensor | None], needed: Sequence[bool]
) -> None:
    for source, part, wanted in zip(sources, parts, needed, strict=True):
        if wanted and part is not None:
            totals[source] = totals[source] + part if source in totals else part


def _tensors(held: object) -> list[Tensor]:
    if isinstance(held, Tensor):
        return [held]
    return [tensor for part in held for tensor in _tensors(part)] if isinstance(held, list | tuple) else []
