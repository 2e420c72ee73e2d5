"""The criterion that a user's ``loss`` argument stands for."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sharpness.hessian.losses.classes import CrossEntropy
from sharpness.hessian.losses.criterion import Criterion, Summed
from sharpness.hessian.losses.numbers import BinaryCrossEntropy, SquaredError
from sharpness.hessian.losses.own import OwnLoss

AnyLoss = nn.Module | Callable[[Any, Any], Any]
"""A loss as a user gives it: one of torch's, or a function of model and batch."""

_FUNCTIONS: dict[object, Criterion] = {
    functional.cross_entropy: CrossEntropy(soft=True),
    functional.mse_loss: SquaredError(),
    functional.binary_cross_entropy_with_logits: BinaryCrossEntropy(),
}
_KNOWN = (
    "torch.nn.CrossEntropyLoss, MSELoss or BCEWithLogitsLoss, or a function loss(model, batch) that returns "
    "(sum over terms, number of terms)"
)


def criterion_of(loss: AnyLoss | Criterion | None) -> Criterion:
    """Return the criterion of a ``loss`` as a user gives it; None is the cross-entropy of classes.

    Raises:
        TypeError: it is no loss.
        ValueError: it is a loss of torch's without a rule, or with settings out of range.
    """
    if loss is None:
        return CrossEntropy()
    if isinstance(loss, Criterion):
        return loss
    if isinstance(loss, Hashable) and loss in _FUNCTIONS:
        return _FUNCTIONS[loss]
    if isinstance(loss, nn.Module):
        return _of_torch(loss)
    if isinstance(loss, type) or not callable(loss):
        made = f"{loss.__name__}()" if isinstance(loss, type) else None
        raise TypeError(f"loss must be {_KNOWN}, got {loss!r}{f': give {made}' if made else ''}")
    return OwnLoss(loss)


def _of_torch(loss: nn.Module) -> Criterion:
    criterion: Criterion
    if type(loss) is nn.CrossEntropyLoss:
        if not 0 <= loss.label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be from 0 to 1, got {loss.label_smoothing}")
        weights = _weights("weight", loss.weight)
        criterion = CrossEntropy(weights, loss.ignore_index, float(loss.label_smoothing), soft=True)
    elif type(loss) is nn.MSELoss:
        criterion = SquaredError()
    elif type(loss) is nn.BCEWithLogitsLoss:
        criterion = BinaryCrossEntropy(_weights("weight", loss.weight), _weights("pos_weight", loss.pos_weight))
    else:
        raise ValueError(f"the loss {type(loss).__name__} has no rule here: give {_KNOWN}")
    if loss.reduction == "sum":
        return Summed(criterion)
    if loss.reduction != "mean":
        raise ValueError(f"a loss with reduction={loss.reduction!r} is not one number: give 'mean' or 'sum'")
    return criterion


def _weights(name: str, given: Tensor | None) -> Tensor | None:
    if given is None:
        return None
    weights = given.detach().to(torch.float64, copy=True)
    if not torch.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"the loss's {name} must be finite and not negative, got {given.tolist()}")
    return weights
