"""What the runs of a grid differ in, whatever the grid's name."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpness.study.axes import runs_of
from sharpness.study.plan import study_of
from sharpness.study.runs import FIELDS, as_record
from sharpness.study.varied import Axis, axes_of, axis_of, in_order

DEFAULTS = study_of({"study": "s", "experiments": {"e": {"kind": "spectrum"}}}, source="s").config["defaults"]


def records(**axes):
    return [as_record(run) for run in runs_of(DEFAULTS, axes)]


def axis_along(name="mine", **axes):
    return axis_of(name, records(**axes))


@pytest.mark.parametrize(
    ("axes", "field", "values"),
    [
        ({"learning_rate": [0.1, 0.2]}, "learning_rate", [0.1, 0.2]),
        ({"batch_size": [16, "full"]}, "batch_size", [16, "full"]),
        ({"momentum": [0.0, 0.9]}, "momentum", [0.0, 0.9]),
        ({"gamma": [0.1, 1, 10]}, "gamma", [0.1, 1, 10]),
        ({"gamma": 0.1, "num_directions": [2, 5]}, "num_directions", [2, 5]),
        ({"num_training": [100, 200], "batch_size": 100}, "num_training", [100, 200]),
        ({"augment": [False, True]}, "augment", ["false", "true"]),
        ({"loss_bound": [None, 10.0]}, "loss_bound", ["null", 10.0]),
        ({"loss": ["mse", "cross_entropy"]}, "loss_function", ["mse", "cross_entropy"]),
        ({"optimizer": [{"name": "adam", "beta2": [0.9, 0.999]}]}, "optimizer.beta2", [0.9, 0.999]),
        ({"optimizer": ["sgd", "heavy_ball"]}, "momentum", [0.0, 0.9]),
        (
            {"optimizer": ["sgd", "heavy_ball", {"name": "adam", "beta1": 0.8}]},
            "optimizer",
            ["sgd", "heavy ball (momentum 0.9)", "adam (beta1 0.8)"],
        ),
        ({"schedule": ["constant", "cosine"]}, "schedule", ["constant", "cosine"]),
        ({"schedule": [{"name": "cosine", "warmup": [0, 1]}]}, "schedule.warmup", [0, 1]),
        (
            {"schedule": [{"name": "steps", "epochs": [[3]]}, "plateau", "linear"], "epochs": 9},
            "schedule",
            ["times 0.1 after epoch 3", "plateau (patience 5)", "linear"],
        ),
        ({"schedule": ["constant", {"name": "plateau"}]}, "schedule", ["constant", "plateau (patience 5)"]),
        ({"schedule": [{"name": "plateau", "patience": [2, 5]}]}, "plateau_patience", [2, 5]),
        ({"learning_rate_epochs": [[], [1], [5]]}, "learning_rate_epochs", ["null", "1", "5"]),
        ({"model": "m.py:f", "model_args": {"width": [8, 16]}}, "model_args.width", [8, 16]),
        (
            {"model": "m.py:f", "model_args": {"width": [8, 16], "depth": [1]}},
            "model_args.width",
            [8, 16],
        ),
        (
            {"model": "m.py:f", "model_args": [{"width": 8, "depth": 1}, {"width": 16, "depth": 2}]},
            "model_args",
            ["depth 1, width 8", "depth 2, width 16"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_axis_is_what_the_runs_differ_in(axes, field, values):
    found = axis_along(seed=[0, 1], **axes)

    assert found.field == field
    shown = list(dict.fromkeys(found.value(record) for record in records(**axes)))
    assert shown == values


def test_of_two_settings_that_differ_it_is_that_of_the_grids_name():
    axes = {"learning_rate": [0.1, 0.2], "optimizer": [{"name": "adam", "beta2": [0.9, 0.99]}]}

    assert axis_along("beta2", **axes).field == "optimizer.beta2"
    assert axis_along("mine", **axes).field == axis_along("learning_rate", **axes).field == "learning_rate"


@pytest.mark.parametrize(
    ("name", "axes", "field"),
    [
        ("batch_size", {}, "batch_size"),
        ("mine", {}, "learning_rate"),
        ("mine", {"gamma": 0.5}, "gamma"),
        ("optimizer", {"optimizer": "adam"}, "learning_rate"),
        ("model", {"model": ["simple_cnn", "resnet8"]}, "learning_rate"),
    ],
)
def test_where_nothing_differs_within_a_network_there_is_an_axis_still(name, axes, field):
    assert axis_along(name, seed=[0, 1, 2], **axes).field == field


@given(
    st.sets(
        st.sampled_from(["learning_rate", "momentum", "l2", "epochs", "augment", "precision", "padding"]), max_size=3
    ),
    st.data(),
)
def test_every_field_that_differs_is_found_and_no_other(fields, data):
    values = {
        "learning_rate": [0.1, 0.3],
        "momentum": [0.0, 0.5],
        "l2": [0.0, 0.1],
        "epochs": [2, 3],
        "augment": [False, True],
        "precision": ["float32", "bfloat16"],
        "padding": ["same", "alternating"],
    }
    found = records(seed=[0, 1], **{field: values[field] for field in fields})

    assert [axis.field for axis in axes_of(data.draw(st.permutations(found)))] == [
        field for field in FIELDS if field in fields
    ]


@given(st.lists(st.one_of(st.floats(1e-6, 1e6), st.just("full")), max_size=6))
def test_numbers_are_sorted_and_the_full_batch_is_last(values):
    found = in_order(values)

    numbers = [value for value in found if value != "full"]
    assert numbers == sorted(set(numbers))
    assert found == numbers + ["full"] * ("full" in values)


def test_words_stay_in_their_order():
    for values in itertools.permutations(["sgd", "adam", "full"]):
        assert in_order([*values, *values]) == list(values)


def test_names_for_people():
    assert [Axis(field).words for field in ("learning_rate", "optimizer.beta2", "model_args.num_heads", "gamma")] == [
        "learning rate",
        "beta2",
        "num heads",
        "γ",
    ]
