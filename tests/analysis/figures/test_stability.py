"""The limit of stability follows what was trained: measured by gradient descent on a quadratic, step by step."""

import json
import math

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

from sharpness.analysis.claims.collected import of_the_posters_training
from sharpness.analysis.figures.stability import legend_of_limit, limits_of, name_of_limit
from sharpness.hessian.loss import Loss, flatten
from sharpness.study.optimizers import OPTIMIZERS, filled
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


def test_an_optimizer_that_scales_each_weight_has_no_limit():
    rows = rows_of(optimizer='{"name": "adam"}')
    assert limits_of(rows).isna().all()
    assert name_of_limit(rows) == legend_of_limit(rows).get_label() == "no limit of this optimizer"


def test_the_claims_are_about_sgd_on_the_cross_entropy():
    table = pd.concat(
        [rows_of(loss_function="cross_entropy"), rows_of(optimizer='{"name": "adam"}'), rows_of(loss_function="mse")]
    )
    assert len(of_the_posters_training(table.reset_index())) == 1
