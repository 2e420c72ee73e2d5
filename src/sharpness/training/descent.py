"""The update rule, and the weights that it moves.

One update serves vanilla SGD, heavy-ball momentum, Nudged SGD and the variants (``sharpness.training.nudge``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sharpness.hessian.loss import Loss
from sharpness.hessian.recording import Recorder
from sharpness.training.checkpoints import Snapshot
from sharpness.training.nudge import nudge
from sharpness.training.rules import rule_of


class Descent:
    """Weights under the update rule ``weights += nudge(velocity)``.

    The velocity is ``momentum * velocity - learning_rate * gradient``, or that of another optimizer. Nudging
    changes the step, not the stored velocity (the authors' ``correct_v``).

    Args:
        loss: of the network.
        weights: [P], copied.
        buffers: [B], copied.
        learning_rate: η; may be changed between updates.
        momentum: factor on the previous velocity; 0 is plain SGD.
        optimizer: ``Run.update``, another rule for the velocity; None or empty is SGD with ``momentum``.
        factor_at: factor on the learning rate, by the number of the update.
        low_precision: run convolutions and matrix products in bfloat16.
    """

    def __init__(
        self,
        loss: Loss,
        weights: Tensor,
        buffers: Tensor,
        *,
        learning_rate: float,
        momentum: float,
        optimizer: Mapping[str, Any] | None = None,
        factor_at: Callable[[int], float] = lambda _: 1.0,
        low_precision: bool = False,
    ) -> None:
        self.loss = loss
        self.weights = weights.clone()
        self.buffers = buffers.clone()
        self.learning_rate = learning_rate
        self.velocity: Tensor | None = None
        self.largest_loss = weights.new_zeros(())
        """Largest mini-batch loss so far, on the device; NaN once one was NaN."""
        self.rule = rule_of(optimizer) if optimizer else None
        """The rule for the velocity, with its state; None: SGD, with ``velocity``."""
        self.factor_at = factor_at
        self.rate_factor = factor_at(0)
        """That of the next update."""
        self._momentum = momentum
        self._low_precision = low_precision
        self._recorder = Recorder()

    def step(
        self, inputs: Tensor, targets: Tensor, directions: Tensor | None, *, gamma: float, gamma_outside: float
    ) -> None:
        """Update the weights on one batch; without directions [K, P] this is plain SGD."""
        value, gradient = self._recorder(
            self._value_and_gradient, inputs, targets, in_place=(self.weights, self.buffers)
        )
        torch.maximum(self.largest_loss, value, out=self.largest_loss)
        learning_rate = self.learning_rate * self.rate_factor
        if self.rule is not None:
            velocity = self.rule.velocity(gradient, self.weights, learning_rate)
        else:
            velocity = gradient.mul_(-learning_rate)
        if self._momentum:
            if self.velocity is not None:
                velocity.add_(self.velocity, alpha=self._momentum)
            self.velocity = velocity
        if directions is not None:
            velocity = nudge(velocity, directions, gamma=gamma, gamma_outside=gamma_outside)
        self.weights.add_(velocity)

    def _value_and_gradient(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss.value_and_gradient(
            self.weights, self.buffers, inputs, targets, training=True, low_precision=self._low_precision
        )

    def snapshot(self, step: int) -> Snapshot:
        """Copy the state before update number ``step``."""
        learning_rate = self.learning_rate * self.factor_at(step)
        second_moment = None if self.rule is None else self.rule.second_moment
        copied = None if second_moment is None else second_moment.clone()
        return Snapshot(step, self.weights.clone(), self.buffers.clone(), learning_rate, copied)
