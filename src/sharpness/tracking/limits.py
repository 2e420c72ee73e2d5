"""Up to which eigenvalue the steps of an optimizer are stable on a quadratic loss.

On the loss λ w² / 2 each optimizer here is a linear recurrence of w and its momentum. The roots of its characteristic
polynomial z² - T z + D lie inside the unit circle if and only if |D| < 1, 1 - T + D > 0 and 1 + T + D > 0. As λ grows,
the last condition fails first. With learning rate η and momentum β:

    SGD             T = 1 - η λ               D = 0              η λ < 2
    heavy ball      T = 1 + β - η λ           D = β              η λ < 2 (1 + β)
    Nesterov's      T = (1 + β) (1 - η λ)     D = β (1 - η λ)    η λ < 2 (1 + β) / (1 + 2 β)
    Adam            T = 1 + β - (1 - β) η λ   D = β              η λ < 2 (1 + β) / (1 - β)
    NAdam           T = 1 + β - (a + b) η λ   D = β (1 - a η λ)  η λ < 2 (1 + β) / (a (1 + β) + b)

NAdam's a = 1 - μ and b = (1 - β) μ' follow from its momenta μ of the next step and μ' of that after it. Adam, NAdam,
RMSprop and Adagrad divide each step by a slowly changing diagonal D, which is taken to be fixed: λ is then an
eigenvalue of D^-½ H D^-½ (Cohen et al., "Adaptive gradient methods at the edge of stability", 2022). So it is where
groups of parameters have learning rates of their own: η is the largest, and D is divided by the group's part of it. A
weight decay δ in the gradient adds δ to every eigenvalue; decoupled, it makes the 1 in T, and D's 1, 1 - η δ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

from sharpness.hessian.preconditioner import relative_rates

_Group = Mapping[str, Any]  # of parameters, with the settings of the optimizer for them


@dataclass(frozen=True)
class StabilityLimit:
    """The stability limit of an optimizer with its present settings."""

    learning_rate: float  # η, the largest of all groups of parameters
    eigenvalue: float  # the steps are stable for smaller eigenvalues of the Hessian, preconditioned or not
    is_preconditioned: bool  # whether the eigenvalues are those of the preconditioned Hessian

    @property
    def rate_times_eigenvalue(self) -> float | None:
        """The limit of η λ; None at a learning rate of 0, which is stable whatever the eigenvalue."""
        return self.learning_rate * self.eigenvalue if self.learning_rate else None


def stability_limit(optimizer: Optimizer) -> StabilityLimit:
    """Return the largest eigenvalue with which the steps of a torch optimizer are stable.

    Where groups of parameters differ in weight decay, the limit is that of the strongest.

    Args:
        optimizer: SGD (with momentum, dampening, Nesterov's momentum or weight decay), RMSprop, Adagrad, Adam, AdamW or
            NAdam.

    Raises:
        TypeError: no limit is known for this optimizer.
        ValueError: it maximises, its groups differ in more than learning rate and weight decay, or it adds its weight
            decay to gradients that it then divides (all but SGD).
    """
    rule = next((rule for kind, rule in _RULES.items() if isinstance(optimizer, kind)), None)
    if rule is None:
        known = ", ".join(kind.__name__ for kind in _RULES)
        raise TypeError(
            f"the stability limit is known for {known}, not for {type(optimizer).__name__}: give optimizer=None to "
            "follow the eigenvalues alone"
        )
    groups = [group for group in optimizer.param_groups if group["params"]]
    _check(optimizer, groups)
    shares = dict(zip(map(id, optimizer.param_groups), relative_rates(optimizer), strict=True))
    rate = max(float(group["lr"]) for group in groups)
    decays = [{**group, "weight_decay": group["weight_decay"] * shares[id(group)]} for group in groups]
    now = _steps_of(optimizer)
    limit = min(rule({**group, "now": now}, rate) for group in decays) if rate else math.inf
    divides = not isinstance(optimizer, SGD) or len({shares[id(group)] for group in groups}) > 1
    return StabilityLimit(rate, limit, is_preconditioned=divides)


def _steps_of(optimizer: Optimizer) -> _Group:
    """The state of the first parameter that has one: how many steps were made."""
    return next((state for state in optimizer.state.values() if "step" in state), {})


def _check(optimizer: Optimizer, groups: Sequence[_Group]) -> None:
    name = type(optimizer).__name__
    if any(group.get("maximize") for group in groups):
        raise ValueError(f"{name} maximises: a stability limit is one of descent")
    for key in ("momentum", "dampening", "nesterov", "betas", "momentum_decay", "lr_decay"):
        values = [group[key] for group in groups if key in group]
        if any(value != values[0] for value in values):
            raise ValueError(
                f"the groups of {name} must agree in {key} for one stability limit, got "
                f"{' and '.join(map(str, dict.fromkeys(values)))}"
            )
    if not isinstance(optimizer, SGD):
        for group in groups:
            if group["weight_decay"] and not _is_decoupled(optimizer, group):
                decay, decoupled = group["weight_decay"], _decoupled(optimizer, group)
                raise ValueError(
                    f"{name} divides its weight decay of {decay:g} as part of the gradient, so that the limit is one "
                    f"of loss and penalty together: give {decoupled}weight_decay=0 and a loss with the penalty "
                    f"{decay:g} / 2 Σ w², in the tracker too, or optimizer=None to follow the eigenvalues alone"
                )


def _is_decoupled(optimizer: Optimizer, group: _Group) -> bool:
    return isinstance(optimizer, AdamW) or bool(group.get("decoupled_weight_decay"))


def _decoupled(optimizer: Optimizer, group: _Group) -> str:
    """Beginning of a list of what to use instead of weight decay that is part of the gradient."""
    if isinstance(optimizer, Adam):
        return "AdamW, or "
    return "decoupled_weight_decay=True, or " if "decoupled_weight_decay" in group else ""


def _of_sgd(group: _Group, rate: float) -> float:
    momentum = group["momentum"]
    limit = 2 * (1 + momentum) / (1 + 2 * momentum if group["nesterov"] else 1)
    # The first step is not dampened.
    dampening = group["dampening"] if momentum else 0
    return float(limit / (rate * (1 - dampening)) - group["weight_decay"]) if dampening != 1 else math.inf


def _of_rmsprop(group: _Group, rate: float) -> float:
    return float(2 * (1 + group["momentum"]) / rate)


def _of_adam(group: _Group, rate: float) -> float:
    momentum = float(group["betas"][0])
    return (1 + momentum) / (1 - momentum) * (2 - rate * float(group["weight_decay"])) / rate


def _of_nadam(group: _Group, rate: float) -> float:
    beta = float(group["betas"][0])
    step = float(group["now"].get("step", 0)) + 1
    momentum, following = (beta * (1 - 0.5 * 0.96 ** (s * group["momentum_decay"])) for s in (step, step + 1))
    slope = (1 - momentum) * (1 + beta) + (1 - beta) * following
    return float((1 + beta) * (2 - rate * float(group["weight_decay"])) / slope / rate)


def _of_adagrad(group: _Group, rate: float) -> float:
    return 2 * (1 + float(group["now"].get("step", 0)) * float(group["lr_decay"])) / rate


_RULES: dict[type[Optimizer], Callable[[_Group, float], float]] = {
    SGD: _of_sgd,
    RMSprop: _of_rmsprop,
    Adagrad: _of_adagrad,
    NAdam: _of_nadam,
    Adam: _of_adam,
    AdamW: _of_adam,
}
