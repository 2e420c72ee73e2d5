"""Optimizers, schedules and arguments of a run: what a study may say, and which runs are one and the same."""

import dataclasses

import pytest
from sample_run import RUN

from sharpness.study import nested
from sharpness.study.axes import runs_of
from sharpness.study.plan import study_of
from sharpness.study.run import NEUTRAL, Run, RunError


def run_with(**changes) -> Run:
    return dataclasses.replace(RUN, **changes)


def test_sgd_and_heavy_ball_are_the_runs_that_they_always_were():
    assert run_with(optimizer="sgd") == run_with(optimizer={"name": "sgd", "momentum": 0.0}) == RUN
    assert run_with(optimizer={"name": "heavy_ball", "momentum": 0.5}) == run_with(momentum=0.5)
    assert run_with(optimizer="heavy_ball").momentum == 0.9
    assert run_with(optimizer="heavy_ball", momentum=0.3) == run_with(momentum=0.3)


def test_steps_and_a_plateau_are_the_fields_of_the_learning_rate():
    steps = {"name": "steps", "epochs": [50, 75], "factor": 0.2}
    assert run_with(schedule=steps) == run_with(learning_rate_epochs=(50, 75), learning_rate_factor=0.2)
    assert run_with(schedule={"name": "plateau", "patience": 3}) == run_with(plateau_patience=3)
    assert run_with(schedule="constant") == RUN
    assert run_with(schedule={"name": "plateau", "warmup": 2}).rates.factor(0) == 1 / (2 * RUN.steps_per_epoch)


def test_what_is_as_by_default_makes_no_other_run():
    assert run_with(optimizer={"name": "adam", "beta1": 0.9}) == run_with(optimizer="adam")
    assert run_with(optimizer="adam").update == {"name": "adam", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}


def test_a_run_of_an_older_version_keeps_its_fields():
    assert set(RUN.fields()) == {field.name for field in dataclasses.fields(Run)} - set(NEUTRAL)
    assert run_with(optimizer="adam").fields()["optimizer"] == '{"name": "adam"}'


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": "adm"}, "optimizer has the name 'adm', known are sgd, .* (did you mean adam?)"),
        ({"optimizer": {"beta1": 0.9}}, "optimizer lacks the key 'name'"),
        ({"optimizer": {"name": "adam", "lr": 0.1}}, "learning_rate is a field of the run"),
        ({"optimizer": {"name": "adam", "beta1": 1}}, "beta1 must be less than 1, got 1"),
        ({"optimizer": {"name": "adam", "beta1": "0.9"}}, "beta1 must be of type number, got 0.9"),
        ({"optimizer": "adam", "momentum": 0.9}, "adam does not use the field momentum"),
        ({"schedule": "cosin"}, "schedule has the name 'cosin', .*did you mean cosine"),
        ({"schedule": {"name": "cosine", "warmup": -1}}, "warmup must be at least 0, got -1"),
        (
            {"schedule": {"name": "steps", "epochs": 1}},
            "epochs must be of type array, got 1; in a grid, write a list of lists",
        ),
        ({"schedule": "steps"}, "schedule steps lacks epochs, after which"),
        ({"model_args": {"width": "1e-3"}}, "reads as text; write 0.001"),
        ({"model_args": {"width": float("nan")}}, "must be finite"),
        ({"model_args": [1]}, "model_args must be a mapping"),
    ],
)
def test_what_is_wrong_with_them_is_one_sentence(changes, said):
    with pytest.raises(RunError) as told:
        run_with(**changes)
    parts = said.split(".*")
    assert all(part in str(told.value) for part in parts), str(told.value)
    assert "\n" not in str(told.value)


def test_fields_inside_an_optimizer_and_arguments_are_axes():
    defaults = {**dataclasses.asdict(RUN), "optimizer": {"name": "adam", "beta1": 0.8}, "model_args": {"depth": 2}}
    runs = runs_of(defaults, {"optimizer": {"beta2": [0.9, 0.99]}, "model_args": {"width": [8, 16, 32]}})
    assert [(run.update["beta1"], run.update["beta2"], nested.as_mapping(run.model_args)) for run in runs] == [
        (0.8, beta2, {"depth": 2, "width": width}) for beta2 in (0.9, 0.99) for width in (8, 16, 32)
    ]
    runs = runs_of(defaults, {"optimizer": ["sgd", {"name": "adamw", "weight_decay": [0.0, 0.1]}]})
    assert [run.update.get("weight_decay") for run in runs] == [None, 0.0, 0.1]
    assert len({run.name for run in runs}) == 3


def test_an_argument_that_is_a_list_stands_in_a_list_of_lists():
    (run,) = runs_of(dataclasses.asdict(RUN), {"model_args": {"widths": [[8, 4]]}})
    assert nested.as_mapping(run.model_args) == {"widths": [8, 4]}


def test_captions_say_what_was_trained_otherwise():
    study = {
        "study": "one",
        "defaults": {"loss": "mse", "schedule": {"name": "cosine", "warmup": 1}},
        "experiments": {
            "a": {"kind": "spectrum", "grids": {"run": [{"optimizer": ["sgd", {"name": "adam", "beta2": 0.9}]}]}},
            "b": {"kind": "eigenvalues"},
        },
    }
    caption = study_of(study, source="one").caption_for_people("a")
    assert "loss mse; optimizer sgd, adam (beta2 0.9); schedule cosine (warmup 1)" in caption
    del study["defaults"]
    assert "optimizer" not in study_of(study, source="one").caption_for_people("b")
