"""The stability limits of optimizers: torch's own steps on a quadratic stay or grow on either side of them."""

import inspect
import math

import pytest
import torch
from torch import nn

from sharpness.tracking.limits import stability_limit

STEPS = 2000


def sizes_of_the_weight(make, eigenvalue):
    """|w| after every step on the loss ``eigenvalue`` w² / 2, relative to the first one."""
    # So small that the squared gradients are nothing beside eps: the preconditioner is the identity.
    start = 1e-12
    weight = nn.Parameter(torch.tensor([start], dtype=torch.float64))
    optimizer = make([weight])
    sizes = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        (eigenvalue * weight.square() / 2).sum().backward()
        optimizer.step()
        sizes.append(abs(weight.item()) / start)
    return sizes


OPTIMIZERS = {
    "SGD": lambda w: torch.optim.SGD(w, lr=0.1),
    "SGD with a rate in a tensor": lambda w: torch.optim.SGD(w, lr=torch.tensor(0.1, dtype=torch.float64)),
    "SGD with weight decay": lambda w: torch.optim.SGD(w, lr=0.1, weight_decay=3.0),
    "heavy ball": lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9),
    "heavy ball with dampening": lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.5, dampening=0.3),
    "heavy ball with weight decay": lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.5, weight_decay=2.0),
    "Nesterov's": lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9, nesterov=True),
    "Nesterov's, less": lambda w: torch.optim.SGD(w, lr=0.2, momentum=0.3, nesterov=True),
    "RMSprop": lambda w: torch.optim.RMSprop(w, lr=0.1, eps=1.0),
    "RMSprop with momentum": lambda w: torch.optim.RMSprop(w, lr=0.1, eps=1.0, momentum=0.8),
    "Adam": lambda w: torch.optim.Adam(w, lr=0.1, eps=1.0),
    "Adam without momentum": lambda w: torch.optim.Adam(w, lr=0.1, eps=1.0, betas=(0.0, 0.99)),
    "Adam, other momentum": lambda w: torch.optim.Adam(w, lr=0.02, eps=1.0, betas=(0.7, 0.999)),
    "NAdam, at its last momentum": lambda w: torch.optim.NAdam(w, lr=0.1, eps=1.0, momentum_decay=1e6),
    "NAdam, at its first momentum": lambda w: torch.optim.NAdam(w, lr=0.1, eps=1.0, momentum_decay=0.0),
    "NAdam, decoupled": lambda w: torch.optim.NAdam(
        w, lr=0.1, betas=(0.7, 0.99), eps=1.0, momentum_decay=1e6, weight_decay=2.0, decoupled_weight_decay=True
    ),
    "Adagrad": lambda w: torch.optim.Adagrad(w, lr=0.1, eps=1.0),
    "AdamW": lambda w: torch.optim.AdamW(w, lr=0.1, eps=1.0, weight_decay=2.0),
}
if "decoupled_weight_decay" in inspect.signature(torch.optim.Adam).parameters:  # newer than torch 2.4
    OPTIMIZERS["Adam, decoupled"] = lambda w: torch.optim.Adam(
        w, lr=0.1, eps=1.0, weight_decay=1.0, decoupled_weight_decay=True
    )


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_steps_stay_just_below_the_limit_and_grow_just_above(make):
    limit = stability_limit(make([nn.Parameter(torch.zeros(1))])).eigenvalue

    assert max(sizes_of_the_weight(make, 0.99 * limit)[-10:]) < 1
    # Not at the end: once the weight is large, Adam and RMSprop shorten its steps.
    assert max(sizes_of_the_weight(make, 1.01 * limit)) > 1e3


def test_the_limits_are_those_of_the_literature():
    weight = [nn.Parameter(torch.zeros(1))]

    assert stability_limit(torch.optim.SGD(weight, lr=0.05)).rate_times_eigenvalue == pytest.approx(2)
    assert stability_limit(torch.optim.SGD(weight, lr=0.05, momentum=0.9)).rate_times_eigenvalue == pytest.approx(3.8)
    # Cohen et al., 2022: 38 / η for Adam's usual momentum.
    adam = stability_limit(torch.optim.Adam(weight, lr=0.001))
    assert adam.eigenvalue == pytest.approx(38_000)
    assert adam.is_preconditioned


def test_the_limit_follows_a_schedule_and_is_infinite_without_steps():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    optimizer.step()
    schedule.step()
    assert stability_limit(optimizer).eigenvalue == pytest.approx(200)

    still = stability_limit(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.0))
    assert (still.learning_rate, still.eigenvalue, still.rate_times_eigenvalue) == (0, math.inf, None)


def test_groups_may_differ_in_weight_decay_of_which_the_strongest_counts():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "weight_decay": decay} for decay in (0.0, 5.0)]
    assert stability_limit(torch.optim.SGD(groups, lr=0.1)).eigenvalue == pytest.approx(15)


def test_the_limits_of_nadam_and_adagrad_follow_their_steps():
    weight = nn.Parameter(torch.ones(1))
    for optimizer, limits in (
        # At first half of beta is NAdam's momentum: 3.8 / (0.55 * 1.9 + 0.1 * 0.45).
        (torch.optim.NAdam([weight], lr=1.0), (3.4866, 3.4871)),
        (torch.optim.Adagrad([weight], lr=1.0, lr_decay=0.5), (2.0, 3.0)),
    ):
        found = [stability_limit(optimizer).eigenvalue]
        weight.sum().backward()
        optimizer.step()
        assert [*found, stability_limit(optimizer).eigenvalue] == pytest.approx(limits, abs=1e-4)


def test_of_rates_by_group_the_largest_counts_and_curvature_by_their_shares():
    def make(weights):
        return torch.optim.SGD([{"params": weights}, {"params": [other], "lr": 0.05, "weight_decay": 8.0}], lr=0.2)

    other = nn.Parameter(torch.zeros(1))
    limit = stability_limit(make([nn.Parameter(torch.zeros(1))]))
    assert (limit.learning_rate, limit.is_preconditioned) == (0.2, True)
    # The decay of 8 counts by the share of its group's rate, a quarter.
    assert limit.eigenvalue == pytest.approx(2 / 0.2 - 8 / 4)
    same = [{"params": [nn.Parameter(torch.zeros(1))], "lr": 0.2}, {"params": [nn.Parameter(torch.zeros(1))]}]
    assert not stability_limit(torch.optim.SGD(same, lr=0.2)).is_preconditioned


OTHERS = ("Adadelta", "Adafactor", "Adamax", "ASGD", "LBFGS", "Muon", "RAdam", "Rprop", "SparseAdam")


def test_every_optimizer_of_torch_has_a_limit_or_a_sentence():
    known = {"Adagrad", "Adam", "AdamW", "NAdam", "RMSprop", "SGD"}
    kinds = {name: kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
    of_torch = {name for name, kind in kinds.items() if issubclass(kind, torch.optim.Optimizer)} - {"Optimizer"}
    assert of_torch <= known | set(OTHERS)
    for name in of_torch:
        optimizer = kinds[name]([nn.Parameter(torch.zeros(2, 2))], lr=0.1)
        if name in known:
            assert 0 < stability_limit(optimizer).eigenvalue < math.inf, name
        else:
            with pytest.raises(TypeError, match=f"SGD, RMSprop, Adagrad, NAdam, Adam, AdamW, not for {name}: give"):
                stability_limit(optimizer)


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda w: torch.optim.SGD(w, lr=0.1, maximize=True), ValueError, "SGD maximises"),
        (lambda w: torch.optim.Adam(w, weight_decay=0.1), ValueError, "weight decay of 0.1 as part of the gradient"),
        (lambda w: torch.optim.Adam(w, weight_decay=0.1), ValueError, "give AdamW, or weight_decay=0 and a loss"),
        (lambda w: torch.optim.NAdam(w, weight_decay=0.1), ValueError, "give decoupled_weight_decay=True, or weight_"),
        (lambda w: torch.optim.RMSprop(w, weight_decay=0.1), ValueError, "give weight_decay=0 and a loss with the pen"),
        (lambda w: torch.optim.Adagrad(w, weight_decay=0.1), ValueError, "give weight_decay=0 and a loss with the pen"),
        (
            lambda w: torch.optim.SGD(
                [{"params": w}, {"params": [nn.Parameter(torch.zeros(1))], "momentum": 0.5}], lr=0.1
            ),
            ValueError,
            "must agree in momentum for one stability limit, got 0 and 0.5",
        ),
        (
            lambda w: torch.optim.Adam(
                [{"params": w}, {"params": [nn.Parameter(torch.zeros(1))], "betas": (0.5, 0.9)}]
            ),
            ValueError,
            "must agree in betas",
        ),
    ],
)
def test_an_optimizer_without_one_limit_is_refused_in_a_sentence(make, kind, said):
    with pytest.raises(kind, match=said):
        stability_limit(make([nn.Parameter(torch.zeros(1))]))
