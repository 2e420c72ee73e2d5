"""The whole study: what is filled in, where each value comes from, and that reading it again changes nothing."""

import re
from dataclasses import asdict
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sharpness.stages.config import config
from sharpness.study.effective import effective
from sharpness.study.file import key_lines
from sharpness.study.keys import study_schema
from sharpness.study.kinds import KINDS
from sharpness.study.plan import study_in, study_of
from sharpness.study.schema import StudyError, problems
from sharpness.study.showing import as_yaml

ROOT = Path(__file__).parents[2]
WHOLE = ROOT / "tests/workflow/small.yaml"  # as studies were before there were defaults: it says everything
STUDIES = sorted([ROOT / "config.yaml", *ROOT.glob("workflow/studies/*.yaml"), WHOLE])
MINIMAL = """\
study: mine
defaults: { data: digits, model: simple_cnn, num_training: 500, epochs: 2 }
experiments:
  rates:
    kind: eigenvalues
    grids:
      learning_rate: [{ learning_rate: [0.05, 0.1, 0.2], seed: [0, 1] }]
"""


def plan_of(study) -> tuple:
    """What a study is expanded to."""
    return (
        {name: asdict(run) for name, run in study.runs.items()},
        study.chunks,
        {what: (study.parts(*what), study.settings(*what[1:])) for what in study.measured},
        {
            name: (each.kind, each.measure, each.members, study.caption(name))
            for name, each in study.experiments.items()
        },
        {key: value for key, value in study.config.items() if not isinstance(value, dict)},
    )


def test_the_smallest_study_plans():
    study = study_of(yaml.safe_load(MINIMAL), source="mine")
    assert len(study.runs) == 6
    assert study.settings("spectrum", "default")["num_examples"] == 250
    assert {run.direction_examples for run in study.runs.values()} == {0}
    assert (study.config["validation_epoch"], study.config["evaluation_examples"]) == (1, 500)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "defaults", [{}, {"num_training": 30, "epochs": 2}, {"data": "cifar10", "epochs": 200}], ids=str
)
def test_every_kind_plans_with_nothing_but_its_name(kind, defaults):
    study = study_of({"study": "mine", "defaults": defaults, "experiments": {"one": {"kind": kind}}}, source="mine")
    assert list(study.measured)
    assert plan_of(study_of(study.config, source="again")) == plan_of(study)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_a_whole_study_read_again_is_the_same(path):
    study = study_in(path)
    shown = yaml.safe_load(as_yaml(study.whole, key_lines(path)))
    assert shown == study.config
    assert list(problems(shown, study_schema())) == []
    assert plan_of(study_of(shown, source="again")) == plan_of(study)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_the_schema_is_one_by_which_other_programs_accept_every_study(path):
    jsonschema.Draft202012Validator.check_schema(study_schema())
    for study in (yaml.safe_load(path.read_text()), yaml.safe_load(as_yaml(study_in(path).whole))):
        jsonschema.validate(study, study_schema(), cls=jsonschema.Draft202012Validator)


def is_in(told, whole):
    """Whether all that is told stands in the whole, too; what was added since is there besides."""
    if isinstance(told, dict):
        return told.keys() <= whole.keys() and all(is_in(value, whole[key]) for key, value in told.items())
    return told == whole


def test_a_study_that_says_everything_keeps_every_word():
    told = yaml.safe_load(WHOLE.read_text())
    whole = study_in(WHOLE).config
    assert told.keys() == whole.keys()
    assert is_in(told, whole)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_each_value_is_shown_with_the_line_that_has_it_or_as_a_default(path):
    text = path.read_text().splitlines()
    shown = as_yaml(study_in(path).whole, key_lines(path)).splitlines()
    for line in shown:
        if match := re.fullmatch(r"[\s-]*(\w+): .*\S  +# line (\d+)", line):
            assert re.search(rf"\b{match[1]}:", text[int(match[2]) - 1]), line
        else:
            assert line.endswith(("# default", ":", "{}")), line
    # Every value of the file is shown, but those that others replace.
    assert len([line for line in shown if "# line" in line]) > 10


def test_the_command_prints_the_whole_study_of_a_file(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)
    config(path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.startswith(("  num_training", "  seed"))] == [
        ["num_training:", "500", "#", "line", "2"],
        ["seed:", "0", "#", "default"],
    ]


@pytest.mark.parametrize(
    ("axes", "filled"),
    [
        ({"data": "fashion_mnist"}, {"num_training": 50_000}),
        ({"data": ["fashion_mnist", "cifar10"]}, {"num_training": 45_000}),
        ({"num_training": [100, 700]}, {"batch_size": 100, "direction_examples": 100}),
        ({"num_training": 100, "batch_size": 10}, {"direction_examples": 100}),
        ({"num_directions": 9}, {"direction_products": 36}),
        ({"learning_rate": 0.1}, {}),
    ],
    ids=str,
)
def test_a_default_that_follows_from_an_axis_follows_it_in_the_grid(axes, filled):
    grids = {"grids": {"learning_rate": [axes]}}
    whole = effective({"study": "mine", "experiments": {"one": {"kind": "eigenvalues", **grids}}})
    (block,) = whole.config["experiments"]["one"]["grids"]["learning_rate"]
    assert {key: block[key] for key in filled} == filled
    assert {key: block[key] for key in axes} == axes


def test_settings_take_what_they_do_not_say_from_those_named_default():
    spectrum = {"default": {"tolerance": 0.1, "num_eigenvalues": 3}, "fine": {"tolerance": 0.01}, "ends": {}}
    experiments = {"one": {"kind": "eigenvalues", "measure": {"spectrum": ["fine"]}}, "two": {"kind": "table"}}
    study = study_of({"study": "mine", "spectrum": spectrum, "experiments": experiments}, source="mine")
    assert list(study.config["spectrum"]) == ["fine", "ends"]
    assert study.settings("spectrum", "fine") | {"tolerance": 0.01, "num_eigenvalues": 3} == study.settings(
        "spectrum", "fine"
    )
    assert (study.settings("spectrum", "ends")["tolerance"], study.config["spectrum"]["ends"]["checkpoints"]) == (
        0.1,
        "ends",
    )


@pytest.mark.slow
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists))
def test_a_value_of_any_kind_is_shown_as_yaml(value):
    from sharpness.study.showing import _flow

    assert yaml.safe_load(_flow(value)) == value


# All that is wrong is said at once.

WRONG = """\
study: Wrong
chunks_per_run: 0
defaults: { learning_rat: 0.1, momentum: 1.5, num_training: 100, num_training: 200, batch_size: 300 }
spectrum:
  leading: { checkpoints: sometimes, tolerance: "1e-3" }
  fine: { num_examples: 500 }
slices:
  default: { scales: [-1, 1] }
experiments:
  rates:
    kind: eigenvalues
    measure: { spectrum: [leading] }
    grids:
      rates: [{ learning_rate: [0.1, 0.1] }]
  small:
    kind: slices
    grids:
      run: [{ batch_size: 10, model: vgg11 }]
  smaller:
    kind: slices
    grids:
      run: [{ batch_size: 10 }]
  fine:
    kind: eigenvalues
    measure: { spectrum: [fine] }
    grids:
      batch_size: [{ batch_size: [10, 300] }]
  unknown: { kind: slice }
"""


def test_all_that_is_wrong_with_a_file_is_said_at_once_a_line_each(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG)
    with pytest.raises(StudyError) as caught:
        study_in(path)
    *lines, count = str(caught.value).splitlines()
    expected = [
        "the key 'num_training' is given twice in line 3, as 100 and as 200",
        "study is 'Wrong', must match",
        "chunks_per_run is 0, must be at least 1",
        "unknown key 'learning_rat' in defaults",
        "defaults.momentum is 1.5, must be less than 1",
        "spectrum.leading.tolerance is '1e-3', must be of type number (YAML reads it as text; write 0.001)",
        "spectrum.leading.checkpoints is 'sometimes', known are trajectory, few, switch, ends",
        "experiments.rates.grids.rates[0].learning_rate is [0.1, 0.1], must not repeat a value",
        "experiments.unknown.kind is 'slice', known are",
        "experiments.rates.grids.rates: batch_size must be at most num_training, got batch_size 300 ",
        "experiments.small.grids.run: vgg11 cannot work on images of 1x16x16",
        "spectrum.fine.num_examples must be at most 200, the num_training of digits-200-simple_cnn-lr0.05-bs10-",
        "slices.default.scales is [-1, 1], must have 0 and a positive k",
    ]
    assert len(lines) >= len(expected)
    for sentence in expected:
        assert [line for line in lines if line.startswith(f"{path}: {sentence}")], (sentence, lines)
    assert count == f"{path}: {len(lines)} things are wrong with this study"
    assert len({line.split(": ", 1)[1] for line in lines}) == len(lines)


def test_a_value_that_is_taken_out_accuses_no_other():
    wrong = {"data": "cifar", "model": "resnet", "epochs": 0, "num_training": 1}
    measured = {"leading": {"checkpoints": "late"}}
    schedules = {"late": {"at_epochs": [70]}}
    experiments = {"one": {"kind": "eigenvalues", "measure": {"spectrum": ["leading"]}}}
    study = {
        "study": "s",
        "defaults": wrong,
        "checkpoints": schedules,
        "spectrum": measured,
        "experiments": experiments,
    }
    with pytest.raises(StudyError) as caught:
        study_of(study, source="s")
    assert [line.split()[1] for line in str(caught.value).splitlines()] == [*(f"defaults.{key}" for key in wrong), "4"]
