"""The update rule, and the weights that it moves.

One update serves vanilla SGD, heavy-ball momentum, Nudged SGD and the variants (``sharpness.training.nudge``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sharpness.hessian.loss import Loss
from sharpness.hessian.recording import Recorder
from sharpness.training.checkpoints import Snapshot
from sharpness.training.nudge import nudge


class Descent:
    """Weights under the update rule ``weights += nudge(velocity)``.

    The velocity is ``momentum * velocity - learning_rate * gradient``. Nudging changes the step, not the stored
    velocity (the authors' ``correct_v``).

    Args:
        loss: of the network.
        weights: [P], copied.
        buffers: [B], copied.
        learning_rate: η; may be changed between updates.
        momentum: factor on the previous velocity; 0 is plain SGD.
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
        low_precision: bool = False,
    ) -> None:
        self.loss = loss
        self.weights = weights.clone()
        self.buffers = buffers.clone()
        self.learning_rate = learning_rate
        self.velocity: Tensor | None = None
        self.largest_loss = weights.new_zeros(())
        """Largest mini-batch loss so far, on the device; NaN once one was NaN."""
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
        velocity = gradient.mul_(-self.learning_rate)
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
        return Snapshot(step, self.weights.clone(), self.buffers.clone(), self.learning_rate)
