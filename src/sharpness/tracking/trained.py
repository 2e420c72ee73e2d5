"""Check that an optimizer trains the weights whose curvature is tracked, so that its limit is theirs."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from sharpness.hessian.layout import Layout


def check_trained(optimizer: Optimizer, model: nn.Module, rows: Layout, *, all_trained: bool) -> None:
    """Check that an optimizer trains the weights that have rows; it may hold frozen ones too.

    Args:
        optimizer: beside whose limit the eigenvalues stand.
        model: whose curvature is followed.
        rows: the weights that have rows.
        all_trained: whether these must be all that it trains, and not a block that was asked for.

    Raises:
        ValueError: it does not.
    """
    parameters = dict(model.named_parameters())
    names = {id(parameter): name for name, parameter in parameters.items()}
    trained: set[str] = set()
    for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
        if not parameter.requires_grad:
            continue
        name = names.get(id(parameter))
        if name is None:
            raise ValueError(
                f"the optimizer trains a parameter of shape {list(parameter.shape)} that the model does not have: give "
                "an optimizer of this model's parameters, or optimizer=None to follow the eigenvalues alone"
            )
        if all_trained and name not in rows.names:
            raise ValueError(
                f"the optimizer trains {name}, which has no rows: give parameters='trained', and make a new tracker "
                "once weights have been unfrozen"
            )
        trained.add(name)
    for name in rows.names:
        if name in trained:
            continue
        if not parameters[name].requires_grad:
            raise ValueError(
                f"{name} has rows but requires no gradient: give parameters='trained', and make a new tracker once "
                "weights have been frozen"
            )
        example = f", such as {min(trained)!r}," if trained else ""
        raise ValueError(
            f"the optimizer does not train {name}, which has rows: give parameters the names of those that it "
            f"trains{example} or give the optimizer that trains all"
        )
