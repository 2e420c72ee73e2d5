"""The limit of stability follows what was trained: measured by gradient descent on a quadratic, step by step."""

import json
import math
from functools import partial

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional
from torch.optim import AdamW

from sharpness.analysis.claims.collected import of_the_posters_training
from sharpness.analysis.figures.stability import draw_limits, legend_of_limit, limits_of, name_of_limit
from sharpness.hessian.loss import Loss, flatten
from sharpness.study.optimizers import OPTIMIZERS, RateSchedule, filled
from sharpness.tracking.limits import stability_limit
from sharpness.training.criteria import criterion_of
from sharpness.training.descent import Descent

RATE = 0.1
CASES = [
    {"momentum": 0.0, "optimizer": "{}"},
    {"momentum": 0.9, "optimizer": "{}"},
    {"momentum": 0.0, "optimizer": '{"name": "nesterov"}'},
    {"momentum": 0.0, "optimizer": '{"momentum": 0.5, "name": "nesterov"}'},
]


def rows_of(**changes):
    return pd.DataFrame([{"learning_rate": RATE, "gamma": 1.0, "momentum": 0.0, "optimizer": "{}"} | changes])


def grows(case, curvature):
    """Whether descent on the loss curvature / 2 * weight² leaves its minimum."""
    told = json.loads(case["optimizer"])
    optimizer = {"name": told["name"], **filled(told, OPTIMIZERS)} if told else None
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    loss = Loss(model, l2=0.0, criterion=criterion_of("mse", 0))
    descent = Descent(loss, *flatten(model), learning_rate=RATE, momentum=case["momentum"], optimizer=optimizer)
    inputs = torch.tensor([[math.sqrt(curvature / 2)]]).double()
    for _ in range(400):
        descent.step(inputs, torch.zeros(1, 1).double(), None, gamma=1, gamma_outside=1)
    assert functional.mse_loss(inputs, torch.zeros(1, 1).double()) == pytest.approx(curvature / 2)
    return abs(float(descent.weights)) > 1


@pytest.mark.parametrize("case", CASES, ids=str)
def test_descent_is_stable_below_the_limit_and_not_above(case):
    (limit,) = limits_of(rows_of(**case))
    assert not grows(case, 0.98 * limit)
    assert grows(case, 1.02 * limit)


def test_an_optimizer_that_scales_each_weight_has_no_limit_on_the_hessian_itself():
    rows = rows_of(optimizer='{"name": "adam"}')
    assert limits_of(rows).isna().all()
    assert name_of_limit(rows) == ""
    assert legend_of_limit(rows) == []


@pytest.mark.parametrize(
    ("told", "torchs"),
    [
        ({"name": "adam"}, partial(torch.optim.Adam)),
        ({"name": "adam", "beta1": 0.5}, partial(torch.optim.Adam, betas=(0.5, 0.999))),
        ({"name": "adamw"}, partial(AdamW, weight_decay=0.01)),
        (
            {"name": "adamw", "weight_decay": 2.0, "beta1": 0.0},
            partial(AdamW, weight_decay=2, betas=(0.0, 0.9)),
        ),
        ({"name": "rmsprop"}, partial(torch.optim.RMSprop)),
        ({"name": "rmsprop", "momentum": 0.7}, partial(torch.optim.RMSprop, momentum=0.7)),
    ],
    ids=str,
)
def test_the_preconditioned_limit_is_that_of_torchs_optimizer(told, torchs):
    rows = rows_of(optimizer=json.dumps(told), preconditioner="optimizer")
    limit = stability_limit(torchs([nn.Parameter(torch.zeros(1))], lr=RATE))

    assert limit.is_preconditioned
    assert list(limits_of(rows)) == pytest.approx([limit.eigenvalue])
    (line,) = legend_of_limit(rows)
    number, _, decay = line.get_label().partition(" / learning rate")
    assert float(number) / RATE + float(decay.replace(" ", "") or 0) == pytest.approx(limit.eigenvalue, rel=0.01)
    # Where the largest preconditioned directions are nudged, nobody knows.
    assert limits_of(rows.assign(gamma=0.5)).isna().all()


@pytest.mark.parametrize("schedule", [{"name": "cosine", "warmup": 1, "end": 0.1}, {"name": "linear"}])
def test_a_limit_moves_with_the_learning_rate(schedule):
    """The rate that a checkpoint has of the next update, as training takes it."""
    fields = {"num_training": 100, "batch_size": 10, "epochs": 4, "learning_rate_factor": 0.0}
    steps = [0, 5, 9, 10, 25, 39]
    rows = pd.concat([rows_of(step=step, epoch=step / 10, schedule=json.dumps(schedule), **fields) for step in steps])
    rates = RateSchedule.of(schedule, steps_per_epoch=10, epochs=4)

    assert list(limits_of(rows)) == pytest.approx([2 / (RATE * rates.factor(step)) for step in steps])
    axes = Figure().add_subplot()
    axes.plot([0, 4], [1, 1000])
    draw_limits(axes, rows, ["black"] * len(rows))
    (course,) = axes.get_lines()[1:]
    assert list(course.get_ydata()) == pytest.approx(list(limits_of(rows)))


def test_a_rate_that_is_cut_has_two_limits_and_one_that_waits_for_a_plateau_those_that_were_measured():
    fields = {"num_training": 100, "batch_size": "full", "epochs": 4, "learning_rate_factor": 0.1}
    rows = pd.concat([rows_of(step=step, learning_rate_epochs="2 3", **fields) for step in range(4)])

    assert list(limits_of(rows)) == pytest.approx([20, 20, 200, 2000])
    assert limits_of(rows.assign(plateau_patience=3.0)).isna().all()
    assert legend_of_limit(rows.assign(plateau_patience=3.0)) == []
    told = rows.assign(plateau_patience=3.0, learning_rate_now=[0.1, 0.1, 0.1, 0.01], learning_rate_epochs="")
    assert list(limits_of(told)) == pytest.approx([20, 20, 20, 200])
    axes = Figure().add_subplot()
    draw_limits(axes, told.assign(epoch=told["step"], schedule="{}"), ["black"] * 4)
    (course,) = axes.get_lines()
    assert course.get_drawstyle() == "steps-post"  # the rate stays until it is cut
    other = told.assign(learning_rate_now=[0.1, 0.01, 0.01, 0.01], run="other seed")
    axes = Figure().add_subplot()
    draw_limits(
        axes, pd.concat([told.assign(run="seed"), other]).assign(epoch=lambda rows: rows["step"]), ["black"] * 8
    )
    assert sorted(list(line.get_ydata()) for line in axes.get_lines()) == [
        pytest.approx([20, 20, 20, 200]),
        pytest.approx([20, 200, 200, 200]),
    ]
    # A table of several runs has no number where nothing cuts a rate.
    fixed = rows.assign(learning_rate_now=float("nan"), learning_rate_epochs="")
    assert list(limits_of(pd.concat([told, fixed]))) == pytest.approx([20, 20, 20, 200, 20, 20, 20, 20])


def test_the_claims_are_about_sgd_on_the_cross_entropy():
    table = pd.concat(
        [rows_of(loss_function="cross_entropy"), rows_of(optimizer='{"name": "adam"}'), rows_of(loss_function="mse")]
    )
    assert len(of_the_posters_training(table.reset_index())) == 1
