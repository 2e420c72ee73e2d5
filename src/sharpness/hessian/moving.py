"""The Hessian along a training: what the operators at its weights share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sharpness.hessian.examples import Examples
from sharpness.hessian.inputs import mapped
from sharpness.hessian.layout import Layout
from sharpness.hessian.loss import flatten
from sharpness.hessian.preconditioner import Preconditioner, inverse_root
from sharpness.hessian.processes import Processes
from sharpness.hessian.product import HessianProduct
from sharpness.runtime.device import alone

if TYPE_CHECKING:
    from sharpness.hessian.operator import HessianOperator


@dataclass(frozen=True)
class MovingHessian:
    """Operators at the weights that a model has at a time, with the loss, examples and checks of one operator."""

    product: HessianProduct
    examples: Examples
    num_examples: int  # of this process
    processes: Processes
    layout: Layout
    dtype: torch.dtype
    device: torch.device
    chunk_size: int
    memory_budget: int

    @classmethod
    def of(cls, operator: HessianOperator) -> MovingHessian:
        """Return what ``operator`` shares with those at other weights; the operator itself is not kept."""
        return cls(
            operator._product,
            operator._examples,
            operator._totals.num_examples,
            operator._processes,
            operator.layout,
            operator.dtype,
            operator.device,
            operator._chunk_size,
            operator._memory_budget,
        )

    def at_present(
        self, model: nn.Module, *, preconditioner: Preconditioner | None = None, chosen: Tensor | None = None
    ) -> HessianOperator:
        """Build the operator at the present weights and buffers of ``model``.

        Args:
            model: the one that the operator is of.
            preconditioner: as for ``HessianOperator``.
            chosen: indices of the examples to take; None takes all.

        Raises:
            FloatingPointError: the weights or the curvature are not finite.
        """
        from sharpness.hessian.operator import HessianOperator

        with alone(self.device):
            weights, buffers = (flat.to(self.dtype) for flat in flatten(model))
            root = None
            if preconditioner is not None:
                root = inverse_root(preconditioner, model, self.layout, self.dtype, self.device)
        operator = HessianOperator.__new__(HessianOperator)
        examples = replace(self.examples, num_bytes=0) if chosen is None else self._chosen(chosen)
        with self.processes.together():
            operator._prepare(
                self.product, weights, buffers, examples, self.chunk_size, self.memory_budget, self.layout, root
            )
        operator._join(self.processes)
        return operator

    @property
    def can_choose(self) -> bool:
        """Whether the examples are at hand one by one."""
        return len(self.examples.kept) == 1 and self.examples.stream is None and self.examples.divisible

    def _chosen(self, chosen: Tensor) -> Examples:
        ((inputs, targets),) = self.examples.kept
        chosen = chosen.to(self.device)
        few = mapped(lambda tensor: tensor[chosen] if tensor.dim() else tensor, inputs)
        return Examples([(few, targets[chosen] if len(targets) else targets)])
