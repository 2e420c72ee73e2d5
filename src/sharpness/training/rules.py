"""Rules for the velocity, the vector that an update adds to the weights, beside that of SGD and heavy ball.

Each is torch's optimizer of the name, on flat weights and with a state that is saved and read by name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Rule(ABC):
    """A rule for the velocity, with its state."""

    def __init__(self, settings: Mapping[str, float]) -> None:
        self.settings = dict(settings)
        self.state: dict[str, Tensor] = {}
        """Vectors [P] by name; empty before the first update."""
        self.num_updates = 0

    def velocity(self, gradient: Tensor, weights: Tensor, learning_rate: float) -> Tensor:
        """Return the velocity [P] of the next update, and advance the state.

        Args:
            gradient: [P]; overwritten.
            weights: [P], before the update.
            learning_rate: of this update.
        """
        self.num_updates += 1
        velocity = self._velocity(gradient, learning_rate)
        if decay := self.settings.get("weight_decay", 0.0):
            velocity.sub_(weights, alpha=learning_rate * decay)
        return velocity

    @property
    def second_moment(self) -> Tensor | None:
        """The running mean of squared gradients [P], by the root of which it divides; None before the first update."""
        return self.state.get("square")

    @abstractmethod
    def _velocity(self, gradient: Tensor, learning_rate: float) -> Tensor: ...

    def _held(self, name: str, like: Tensor) -> Tensor:
        """A vector of the state, zero at first."""
        if name not in self.state:
            self.state[name] = torch.zeros_like(like)
        return self.state[name]


class Nesterov(Rule):
    """Nesterov's momentum: ``momentum * velocity - learning_rate * gradient`` with the velocity already updated."""

    def _velocity(self, gradient: Tensor, learning_rate: float) -> Tensor:
        momentum = self.settings["momentum"]
        step = gradient.mul_(-learning_rate)
        held = self._held("velocity", step).mul_(momentum).add_(step)
        return step.add_(held, alpha=momentum)


class Adam(Rule):
    """Adam (Kingma and Ba 2015, algorithm 1), and AdamW (Loshchilov and Hutter 2019) with a decay of the weights."""

    def _velocity(self, gradient: Tensor, learning_rate: float) -> Tensor:
        beta1, beta2 = self.settings["beta1"], self.settings["beta2"]
        mean = self._held("mean", gradient).lerp_(gradient, 1 - beta1)
        square = self._held("square", gradient).mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = math.sqrt(1 - beta2**self.num_updates)
        root = torch.sqrt(square, out=gradient).div_(scale).add_(self.settings["epsilon"])
        return torch.div(mean, root, out=root).mul_(-learning_rate / (1 - beta1**self.num_updates))


class RMSProp(Rule):
    """RMSProp (Tieleman and Hinton 2012): the gradient over the root of its mean square; with heavy-ball momentum."""

    def _velocity(self, gradient: Tensor, learning_rate: float) -> Tensor:
        decay, momentum = self.settings["decay"], self.settings["momentum"]
        square = self._held("square", gradient).mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
        step = gradient.div_(square.sqrt().add_(self.settings["epsilon"]))
        if momentum:
            step.copy_(self._held("steps", step).mul_(momentum).add_(step))
        return step.mul_(-learning_rate)


_RULES: dict[str, type[Rule]] = {"nesterov": Nesterov, "adam": Adam, "adamw": Adam, "rmsprop": RMSProp}


def denominator(optimizer: Mapping[str, Any], second_moment: Tensor, num_updates: int) -> Tensor:
    """Compute what Adam, AdamW or RMSProp divided its last update by, [P] in float64, positive.

    Args:
        optimizer: its name and all its settings.
        second_moment: [P], after that update.
        num_updates: until then, at least one.
    """
    unbiased: Tensor = second_moment.double()
    if "beta2" in optimizer:
        unbiased = unbiased / (1 - optimizer["beta2"] ** num_updates)
    return unbiased.sqrt() + float(optimizer["epsilon"])


def rule_of(optimizer: Mapping[str, Any]) -> Rule:
    """Return the rule of an optimizer, by its name and all its settings, before the first update."""
    return _RULES[optimizer["name"]]({key: value for key, value in optimizer.items() if key != "name"})
