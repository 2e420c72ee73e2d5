"""A study: what it expands to, and the one sentence that its author reads when something is wrong with it."""

import copy
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharpness.stages.forecast import forecast
from sharpness.stages.publish import publish
from sharpness.study.plan import ENDS, KINDS, Study, study_of
from sharpness.study.schedule import Schedule
from sharpness.study.schema import StudyError

ROOT = Path(__file__).parents[2]
STUDIES = sorted([*ROOT.glob("config.yaml"), *ROOT.glob("workflow/studies/*.yaml")])
DELETED = object()

# 100 images in batches of 10: ten steps an epoch, 40 in the four epochs.
SMALL = """
study: small
chunks_per_run: 3
evaluation_examples: 100
evaluation_epochs: [] # every epoch
validation_epoch: 1
state_seconds: 60
tensorboard: false
defaults:
  data: digits
  num_training: 100
  augment: false
  model: simple_cnn
  padding: alternating
  init_scale: null
  learning_rate: 0.1
  learning_rate_epochs: []
  learning_rate_factor: 0.1
  batch_size: 10
  momentum: 0
  l2: 0
  precision: float32
  gamma: 1
  gamma_outside: 1
  num_directions: 2
  direction_examples: 50
  direction_tolerance: 0.1
  direction_products: 20
  direction_precision: float32
  epochs: 4
  plateau_patience: null
  stop_patience: null
  loss_bound: null
  seed: 0
checkpoints:
  early: { at_epochs: [0, 0.5, 1] }
  later: { at_epochs: [1, 2, 3, 4, 9] }
spectrum:
  leading: &spectrum
    checkpoints: early
    num_examples: 60
    tolerance: 0.01
    max_products: 30
    num_eigenvalues: 5
    resample: false
    augment: false
    parameters: "*"
    precision: float32
    probe_products: 8
    frobenius_products: 0
  final: { <<: *spectrum, checkpoints: ends }
slices:
  top:
    checkpoints: later
    num_examples: 60
    tolerance: 0.01
    max_products: 30
    loss_examples: 100
    num_batches: 2
    scales: [-1, 0, 1]
experiments:
  rates:
    kind: eigenvalues
    measure: { spectrum: [leading] }
    grids:
      learning_rate: [{ learning_rate: [0.1, 0.2], seed: [0, 1] }]
      batch_size: [{ batch_size: [10, 50], seed: [0, 1] }]
  slice:
    kind: slices
    measure: { slices: [top] }
    grids:
      run: [{ seed: 0 }]
  results:
    kind: table
    measure: { spectrum: [final] }
    grids:
      gamma: [{ gamma: [1, 0.1] }]
"""
SHARED = "digits-100-simple_cnn-lr0.1-bs10-e4-seed0"
FASTER = "digits-100-simple_cnn-lr0.2-bs10-e4-seed1"
NUDGED = "digits-100-simple_cnn-lr0.1-bs10-gamma0.1-K2-n50-tol0.1-max20-e4-seed0"


def small(*changes: tuple[tuple, object]) -> dict:
    """The small study with values replaced, added or deleted, each at its path."""
    config = copy.deepcopy(yaml.safe_load(SMALL))
    for path, value in changes:
        parent = config
        for key in path[:-1]:
            parent = parent[key]
        if value is DELETED:
            del parent[path[-1]]
        else:
            parent[path[-1]] = value
    return config


def expand(config):
    return study_of(config, source="study.yaml")


def message_of(config) -> str:
    with pytest.raises(StudyError) as caught:
        expand(config)
    return str(caught.value)


@pytest.fixture(scope="module", params=STUDIES, ids=lambda path: path.name)
def published(request):
    return study_of(yaml.safe_load(request.param.read_text()), source=request.param.name)


# What a study expands to.


def test_there_is_a_study_for_the_digits():
    assert "digits.yaml" in [path.name for path in STUDIES]


def test_what_experiments_and_grids_share_is_trained_once():
    study = expand(small())

    # 2 rates x 2 seeds; of 2 batch sizes x 2 seeds one size is there already; of 2 gammas one is plain SGD.
    assert len(study.runs) == 4 + 2 + 1
    assert len(study.experiments["rates"].runs) == 6
    assert list(study.experiments["slice"].runs) == [SHARED]
    assert list(study.experiments["results"].runs) == [SHARED, NUDGED]


def test_a_run_of_two_grids_is_listed_in_both():
    grids = expand(small()).experiments["rates"].grids

    assert [run.name for run in grids["learning_rate"]].count(SHARED) == 1
    assert [run.name for run in grids["batch_size"]].count(SHARED) == 1


def test_a_run_that_two_blocks_of_a_grid_name_is_listed_once():
    blocks = [{"seed": [0, 1]}, {"learning_rate": [0.1, 0.2]}]
    study = expand(small((("experiments", "slice", "grids", "run"), blocks)))

    assert [(run.learning_rate, run.seed) for run in study.experiments["slice"].grids["run"]] == [
        (0.1, 0),
        (0.1, 1),
        (0.2, 0),
    ]


def test_each_run_is_measured_once_with_each_settings():
    measured = list(expand(small()).measured)

    assert len(measured) == len(set(measured)) == 6 + 1 + 2
    assert [run for run, *what in measured if what == ["spectrum", "final"]] == [SHARED, NUDGED]
    assert [run for run, *what in measured if what == ["slices", "top"]] == [SHARED]


def test_two_experiments_with_the_same_settings_measure_a_shared_run_once():
    again = {
        "kind": "spectrum",
        "measure": {"spectrum": ["leading"]},
        "grids": {"run": [{"gamma": [1, 0.1]}]},
    }
    study = expand(small((("experiments", "again"), again)))

    assert list(study.measured).count((SHARED, "spectrum", "leading")) == 1
    assert (NUDGED, "spectrum", "leading") in study.measured


def test_the_checkpoints_of_a_run_are_those_that_its_measurements_want_and_no_others():
    chunks = expand(small()).chunks

    assert chunks[SHARED] == [[0, 5], [10, 20], [30, 40]]  # early and later; epoch 9 is past the end
    assert chunks[FASTER] == [[0], [5], [10]]  # early
    assert chunks[NUDGED] == [[], [], []]  # only its best and its last


def test_a_measurement_reads_the_parts_that_hold_its_steps():
    study = expand(small())

    assert study.parts(SHARED, "spectrum", "leading") == {"0": [0, 5], "1": [10]}
    assert study.parts(SHARED, "slices", "top") == {"1": [10, 20], "2": [30, 40]}


def test_the_part_before_holds_the_measured_checkpoint_before_a_parts_first_one():
    study = expand(small())

    assert study.part_before(SHARED, "spectrum", "leading", "0") is None
    assert study.part_before(SHARED, "spectrum", "leading", "1") == ("0", 5)
    assert study.part_before(SHARED, "slices", "top", "1") is None
    assert study.part_before(SHARED, "slices", "top", "2") == ("1", 20)


def test_the_best_and_the_last_checkpoint_are_a_part_of_their_own_with_no_planned_step():
    study = expand(small())

    assert study.parts(NUDGED, "spectrum", "final") == {"ends": []}
    assert study.schedule_steps("spectrum", "final", study.runs[NUDGED]) == []


def test_settings_are_those_of_the_file_without_the_schedule():
    assert expand(small()).settings("spectrum", "final") == {
        "num_examples": 60,
        "tolerance": 0.01,
        "max_products": 30,
        "bracket": 0.2,
        "num_eigenvalues": 5,
        "resample": False,
        "augment": False,
        "parameters": "*",
        "precision": "float32",
        "probe_products": 8,
        "frobenius_products": 0,
    }


def test_a_setting_that_was_added_later_changes_no_job_that_does_not_ask_for_it():
    asking = expand(small((("spectrum", "final", "keep_vectors"), True)))
    assert asking.settings("spectrum", "final")["keep_vectors"]
    assert asking.measurement("spectrum", "final").keep_vectors
    plain = expand(small((("spectrum", "final", "keep_vectors"), False)))
    assert "keep_vectors" not in plain.settings("spectrum", "final")
    assert not plain.measurement("spectrum", "final").keep_vectors


def test_a_study_has_the_name_and_the_number_of_chunks_of_its_file():
    study = expand(small())

    assert (study.name, study.num_chunks) == ("small", 3)


def test_full_batches_take_one_step_an_epoch():
    study = expand(small((("experiments", "slice", "grids", "run"), [{"batch_size": "full"}])))

    assert study.chunks["digits-100-simple_cnn-lr0.1-bsfull-e4-seed0"] == [[1, 2], [3], [4]]


def test_five_hundred_seeds_are_five_hundred_runs():
    study = expand(small((("experiments", "rates", "grids"), {"learning_rate": [{"seed": list(range(500))}]})))

    assert len(study.experiments["rates"].runs) == 500
    assert len(study.runs) == 500 + 1


@settings(max_examples=30, deadline=None)
@given(
    num_chunks=st.integers(1, 9),
    early=st.lists(st.floats(0, 4), min_size=1, max_size=9, unique=True),
    dense_epochs=st.floats(0.1, 6),
    dense_images=st.integers(1, 99),
    every_epochs=st.integers(1, 6),
)
def test_parts_cover_exactly_the_schedule_each_step_once(num_chunks, early, dense_epochs, dense_images, every_epochs):
    later = {"dense_epochs": dense_epochs, "dense_images": dense_images, "every_epochs": every_epochs}
    schedules = {"early": {"at_epochs": early}, "later": later}
    study = expand(small((("checkpoints",), schedules), (("chunks_per_run",), num_chunks)))
    expected = {"spectrum": Schedule(at_epochs=tuple(early)), "slices": Schedule(**later)}

    for measurement, name in (("spectrum", "leading"), ("slices", "top")):
        parts = study.parts(SHARED, measurement, name)
        assert [step for steps in parts.values() for step in steps] == expected[measurement].steps(study.runs[SHARED])
        for part, steps in parts.items():
            assert set(steps) <= set(study.chunks[SHARED][int(part)])
            assert steps != []


def test_a_published_study_measures_every_planned_step_once(published):
    for run, measurement, name in published.measured:
        parts = published.parts(run, measurement, name)
        planned = published.schedule_steps(measurement, name, published.runs[run])
        assert [step for steps in parts.values() for step in steps] == planned
        assert parts.keys() == {ENDS} if not planned else set(parts) <= set(map(str, range(published.num_chunks)))


def test_a_published_study_stores_no_step_that_nothing_measures(published):
    for run, chunks in published.chunks.items():
        wanted = {
            step
            for of, measurement, name in published.measured
            if of == run
            for step in published.schedule_steps(measurement, name, published.runs[run])
        }
        assert len(chunks) == published.num_chunks
        assert [step for chunk in chunks for step in chunk] == sorted(wanted)


def test_a_published_study_describes_each_of_its_experiments_in_one_line(published):
    for name in published.experiments:
        assert re.fullmatch(r"\S.* training images.*\S", published.caption(name))


def test_a_caption_says_what_was_measured_on_what():
    assert expand(small()).caption("results") == (
        "simple_cnn on digits (100 training images); 1 seed; spectrum final: Hessian on 60 training images, top 5, "
        "residuals at most 0.01; directions of NSGD from 50 training images, once an epoch"
    )
    assert expand(small()).caption("rates") == (
        "simple_cnn on digits (100 training images); 2 seeds; spectrum leading: Hessian on 60 training images, top 5, "
        "residuals at most 0.01"
    )
    assert expand(small()).caption_for_people("rates") == (
        "SimpleCNN, digits, 100 images; 2 seeds; spectrum leading: Hessian on 60 training images, top 5, "
        "residuals at most 0.01"
    )


def test_a_caption_says_which_block_was_measured_and_how():
    changes = {("spectrum", "final", "parameters"): "0.*", ("spectrum", "final", "precision"): "bfloat16"}
    caption = expand(small(*changes.items())).caption("results")
    assert "Hessian of 0.* on 60 training images, top 5, found in bfloat16, residuals at most 0.01" in caption


def test_a_caption_says_how_a_device_may_look_for_eigenvectors_and_how_often_a_run_was_evaluated():
    study = expand(small((("spectrum", "leading", "precision"), "auto"), (("evaluation_epochs",), [1, 4, 9])))
    assert "1 seed; evaluated after 2 of 4 epochs; spectrum final" in study.caption("results")
    assert "evaluated" not in study.caption("rates")
    assert "top 5, found in bfloat16 where the device has instructions for it, residuals" in study.caption("rates")


# What its author reads when something is wrong.

RATES = ("experiments", "rates")
AXES = (*RATES, "grids", "learning_rate", 0)
LEADING = ("spectrum", "leading")

SHORT = {"rates": RATES, "axes": AXES, "leading": LEADING}
# What is wrong: a key of the small study, the value it gets, and what the message has.
BAD_VALUES = yaml.safe_load(r"""
# Keys that are not known, or not there.
an unknown section: [seeds, 3, "unknown key 'seeds' in the study, known are ", study]
a misspelt section: [experimnts, {}, unknown key 'experimnts', "did you mean experiments?"]
a misspelt field: [defaults.learning_rat, 1, "'learning_rat' in defaults", "did you mean learning_rate?"]
a misspelt axis: [axes.gama, 1, "'gama' in experiments.rates.grids.learning_rate[0]", "mean gamma?"]
a misspelt setting: [leading.tolerence, 1, "'tolerence' in spectrum.leading", "mean tolerance?"]
a misspelt measurement: [rates.measure.spektrum, [a], "'spektrum' in experiments.rates.measure"]
a key like nothing known: [defaults.qqqq, 1, "unknown key 'qqqq' in defaults, known are data, "]
a missing section: [experiments, DELETED, the study lacks the key 'experiments']
an experiment of no kind: [rates.kind, DELETED, experiments.rates lacks the key 'kind']
a key that is a number: [[checkpoints, 1], {at_epochs: [0]}, checkpoints is, its key 1 is not text]
a key that is a truth value: [[true], 1, the study is, its key True is not text]
a name with a dash: [[checkpoints, a-b], {at_epochs: [0]}, "a name in checkpoints is 'a-b', must match"]
a name with a line break: [[experiments, "a\n"], {}, "a name in experiments is 'a\\n', must match"]
# Values of the wrong type.
text for a number: [defaults.momentum, much, "defaults.momentum is 'much', must be of type number"]
a number with an exponent and no dot: [defaults.learning_rate, 1e-3,
  "defaults.learning_rate is '1e-3', must be of type number (YAML reads it as text; write 0.001)"]
a small number with an exponent and no dot: [defaults.l2, 2e-6,
  "defaults.l2 is '2e-6', must be of type number (YAML reads it as text; write 2.0e-06)"]
a quoted integer: [defaults.epochs, "100", defaults.epochs is '100', integer (, write 100)]
a number with a decimal place for an integer: [defaults.epochs, 4.0,
  "defaults.epochs is 4.0, must be of type integer"]
a truth value for an integer: [defaults.seed, true, "defaults.seed is True, must be of type integer"]
a truth value for a number: [defaults.gamma, true, "defaults.gamma is True, must be of type number"]
an integer for a truth value: [defaults.augment, 1, "defaults.augment is 1, must be of type boolean"]
nothing for a number: [defaults.gamma, null, "defaults.gamma is None, must be of type number"]
not a number: [defaults.gamma, .nan, "defaults.gamma is nan, must be of type number"]
a list in the defaults: [defaults.seed, [0, 1], "defaults.seed is [0, 1], must be of type integer"]
a mapping as an axis: [axes.seed, {a: 1}, "learning_rate[0].seed is {'a': 1}, must be of type integer"]
a list for a mapping: [defaults, [1], "defaults is [1], must be of type object"]
a mapping for a list: [rates.grids.learning_rate, {seed: 1}, "learning_rate is {'seed': 1}", array]
no experiments: [experiments, null, "experiments is None, must be of type object"]
a section that is empty: [spectrum, null, "spectrum is None, must be of type object"]
text for the null of a patience: [defaults.stop_patience, never, is 'never', integer or null]
# Values out of range.
a learning rate of zero: [defaults.learning_rate, 0, "defaults.learning_rate is 0, must be greater than 0"]
an infinite rate: [defaults.learning_rate, .inf, "learning_rate is inf, must be at most 1000"]
a momentum of one: [defaults.momentum, 1, "defaults.momentum is 1, must be less than 1"]
a negative seed: [axes.seed.1, -1, "learning_rate[0].seed[1] is -1, must be at least 0"]
a batch of no images: [axes.batch_size, [8, 0], "batch_size[1] is 0, must be at least 1"]
a part too many: [chunks_per_run, 1001, "chunks_per_run is 1001, must be at most 1000"]
a negative time: [checkpoints.early.at_epochs, [0, -1], "early.at_epochs[1] is -1, must be at least 0"]
# Words that are not among the known ones.
an unknown model: [defaults.model, resnet23, "defaults.model is 'resnet23', known are simple_cnn, ",
  "did you mean resnet32?", the network]
an unknown model on an axis: [axes.model, [vgg11, vgg], "learning_rate[0].model[1] is 'vgg', known are"]
an unknown data set: [defaults.data, cifar, "defaults.data is 'cifar', known are", cifar10]
an unknown kind: [rates.kind, slice, "experiments.rates.kind is 'slice', known", "did you mean slices?"]
another word for a full batch: [defaults.batch_size, all, batch_size is 'all', or full for the whole]
a full batch with a line break: [defaults.batch_size, "full\n", batch_size is 'full\n', must match]
a study named like a folder: [study, a/b, "study is 'a/b', must match", name of the study]
a study with a line break: [study, "small\n", "study is 'small\\n', must match"]
# Nothing, or the same twice.
an empty axis: [axes.seed, [], "experiments.rates.grids.learning_rate[0].seed is empty, give at least one"]
an empty grid: [rates.grids.learning_rate, [], experiments.rates.grids.learning_rate is empty]
no grids: [rates.grids, {}, "experiments.rates.grids is empty, give at least one value"]
an empty set of experiments: [experiments, {}, "experiments is empty, give at least one value"]
an empty schedule: [checkpoints.early, {}, "checkpoints.early is empty, give at least one value"]
a density of no dense start: [checkpoints.early, {dense_images: 2},
  checkpoints.early has 'dense_images' and lacks 'dense_epochs']
a value twice on an axis: [axes.learning_rate, [0.1, 0.1],
  "experiments.rates.grids.learning_rate[0].learning_rate is [0.1, 0.1], must not repeat a value"]
# Names that lead nowhere.
an unknown name of settings: [rates.measure.spectrum, [leeding],
  "experiments.rates.measure.spectrum names 'leeding', known are", "did you mean leading?"]
an unknown schedule: [leading.checkpoints, erly, "spectrum.leading.checkpoints is 'erly', known are",
  "did you mean early?"]
a schedule with the name of the ends: [checkpoints.ends, {at_epochs: [1]}, checkpoints.ends, taken]
an experiment with the name of the verdicts: [experiments.claims,
  &spectrum {kind: spectrum, measure: {spectrum: [leading]}}, experiments.claims, taken]
an experiment with the name of the table of runs: [experiments.runs, *spectrum, experiments.runs,
  taken by the table of all runs]
a measurement without its section: [slices, DELETED, "experiments.slice.measure.slices names 'top', known"]
a kind without its measurement: [rates.kind, slices, experiments.rates.measure lacks slices]
a table without a spectrum: [experiments.results.measure, {}, experiments.results.measure lacks spectrum]
# Sizes that do not fit one another.
an early epoch after the end: [validation_epoch, 5, validation_epoch must be at most 4, got 5]
a Hessian on more images than there are: [leading.num_examples, 101,
  spectrum.leading.num_examples must be at most 100, got 101]
a loss on more images than there are: [slices.top.loss_examples, 500, slices.top.loss_examples must be at most 100,
  got 500]
more eigenvalues than products: [leading.num_eigenvalues, 31, spectrum.leading.num_eigenvalues must be at most 30]
a last epoch that is not evaluated: [evaluation_epochs, [1, 2], evaluation_epochs must have 4, "got [1, 2]"]
an early epoch that is not evaluated: [evaluation_epochs, [2, 4], evaluation_epochs must have 1]
a norm without a standard error: [leading.frobenius_products, 1, spectrum.leading.frobenius_products must be 0, got 1]
a batch larger than the data: [axes.batch_size, [10, 101], batch_size must be at most num_training,
  101 with num_training 100]
a nudge without directions: [axes.gamma, 0.5, "num_directions must be at least 1 where gamma is not 1, got 0"]
more training images than the data set has: [defaults.num_training, 1301, num_training must be at most 1300, "1301"]
a warm-up longer than the run: [defaults.schedule, {name: cosine, warmup: 5}, schedule.warmup must be at most epochs,
  got 5 epochs of warm-up with epochs 4]
a batch of one image for the norm of a vector: [axes, {data: cifar10, model: vgg11_bn, batch_size: [1, 2]},
  "batch_size must be at least 2 for vgg11_bn, got 1"]
a network too large for its images: [axes.model, vgg11, vgg11 cannot work on images of 1x16x16]
a setting that the network does not have: [axes.init_scale, 0.5,
  "init_scale is a setting of resnet8, resnet32, resnet32_bn only, got 0.5 for simple_cnn"]
a padding that the network does not have: [axes, {model: resnet8, padding: same},
  "padding is a setting of simple_cnn, simple_cnn_medium only, got 'same' for resnet8"]
# What could only be found out after training.
a pattern that is no name of a parameter: [leading.parameters, layer3.*, spectrum.leading.parameters is 'layer3.*']
a pattern that looks like an option: [leading.parameters, -h, spectrum.leading.parameters is '-h']
more eigenvalues than the block has: [leading,
  {checkpoints: early, num_examples: 60, parameters: 13.bias, num_eigenvalues: 11},
  spectrum.leading.num_eigenvalues must be at most 10]
scales without the weights themselves: [slices.top.scales, [-1, 0.5, 1],
  "slices.top.scales is [-1, 0.5, 1], must have 0 and a positive k"]
negative scales only: [slices.top.scales, [-2, -1, 0],
  "slices.top.scales is [-2, -1, 0], must have values on both sides of 0"]
positive scales only: [slices.top.scales, [0, 1, 2],
  "slices.top.scales is [0, 1, 2], must have values on both sides of 0"]
scales that a figure does not show: [slices.top.scales, [-16, 0, 16], must have values on both sides of 0 within ±8]
the ends where planned checkpoints are drawn: [leading.checkpoints, ends,
  "spectrum.leading.checkpoints is 'ends', must be a schedule of planned ones"]
planned checkpoints for a table: [spectrum.final.checkpoints, early,
  "spectrum.final.checkpoints is 'early', must be ends, the best and the last"]
two settings where one is shown: [rates.measure.spectrum, [leading, final],
  "experiments.rates.measure.spectrum names leading, final, kind eigenvalues shows one"]
widths of the first epoch only: [experiments.slice,
  {kind: widths, measure: {slices: [top]}, grids: {learning_rate: [{learning_rate: [0.1, 0.2], epochs: 1}]}},
  "slices.top.checkpoints is 'later', must keep one of digits-100-", from epoch 2 on]
a preconditioner of SGD: [leading.preconditioner, optimizer,
  "spectrum.leading.preconditioner must be null for digits-100-", "sgd does not divide its steps by anything"]
# Names.
a name longer than a file's: [
  experiments.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,
  {}, a name in experiments is 'aaaa, must have at most 100 characters]
a study longer than a folder's name: [study,
  aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,
  study is 'aaa, at most 100 characters]
a name that repeats itself: [checkpoints.abababababababababababababababababababab, {at_epochs: [1]},
  a name in checkpoints is 'abab, must not repeat a part twenty times]
a study in the place of the data: [study, data, study is 'data']
two experiments with one figure: [experiments.rates_peaks, *spectrum,
  "experiments.rates_peaks: its figure rates_peaks has the name of one of experiments.rates"]
two experiments with one table: [experiments.rates_history,
  &table {kind: table, measure: {spectrum: [final]}, grids: {gamma: [{gamma: [1, 0.1]}]}},
  "experiments.rates_history: its table rates_history has the name of one of experiments.rates"]
a table that a rule could take for another's: [experiments.rates_slices, *table,
  "experiments.rates_slices: its table rates_slices has the name of one of experiments.rates"]
a table with the report's log: [experiments.report, *table,
  "experiments.report: the name is taken, the study has its report"]
# Axes that no product tells apart.
a batch size beside the rate: [axes.batch_size, [10, 50], "batch_size is 10 and 50 at learning rate 0.1, ",
  which kind eigenvalues would average as if they were seeds]
a rate beside gamma: [experiments.results.grids.gamma.0, {gamma: [1, 0.1], learning_rate: [0.1, 0.2]},
  "experiments.results.grids.gamma: learning_rate is 0.1 and 0.2 at gamma 1", kind table would average]
a gamma beside the rate: [axes.gamma, [1, 0.1], gamma is 1 and 0.1 at learning rate 0.1]
more panels than an image can have: [experiments.slice.grids.run,
  [{learning_rate: [0.1, 0.2, 0.3], batch_size: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]}],
  experiments.slice has 51 configurations]
a schedule after the end: [checkpoints.early.at_epochs, [5, 6], spectrum.leading.checkpoints is 'early']
""")


@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_wrong_study_is_refused_in_one_line_with_the_key_the_value_and_the_demand(name):
    key, value, *fragments = BAD_VALUES[name]
    first, *keys = key if isinstance(key, list) else [int(part) if part.isdigit() else part for part in key.split(".")]
    path = (*SHORT.get(first, (first,)), *keys)
    further = [(("defaults", "num_directions"), 0)] if path[-1] == "gamma" and value == 0.5 else []

    message = message_of(small((path, DELETED if value == "DELETED" else value), *further))

    assert message.startswith("study.yaml: ")
    assert [str(fragment) for fragment in fragments if str(fragment) not in message] == []
    assert len(message.splitlines()) == 1


def test_functions_of_ones_own_that_return_nothing_are_refused_before_they_run(own_folder):
    path = own_folder / "mine.py"
    path.write_text("def draw(history):\n    print(history)\n\n\ndef probe(landscape, checkpoint):\n    return None\n")
    place = ("experiments", "rates")
    said = message_of(small(((*place, "figures"), "mine.py:draw"), ((*place, "measurements"), "mine.py:probe")))
    assert f"experiments.rates.figures: {path}, line 1: must return a matplotlib figure, and returns nothing" in said
    assert f"experiments.rates.measurements: {path}, line 5: must return a row, {{'norm': 1.5}}, or rows" in said


@pytest.mark.parametrize("config", [[], [1], "text", None, 3], ids=repr)
def test_a_study_that_is_not_a_mapping_is_refused(config):
    assert message_of(config).startswith(f"study.yaml: the study is {config!r}, must be of type object")


def test_an_empty_study_is_told_what_it_lacks():
    assert message_of({}).splitlines() == [
        "study.yaml: the study lacks the key 'study'",
        "study.yaml: the study lacks the key 'experiments'",
        "study.yaml: 2 things are wrong with this study",
    ]


@pytest.mark.parametrize("text", ["1e-3", "1e-6", "2.5e-7", "1e5", "1E-2", "100", ".5e-3"])
def test_the_hint_for_a_number_read_as_text_is_read_as_that_number(text):
    message = message_of(small((("defaults", "augment"), text)))
    written = re.search(r"write (\S+)\)", message).group(1)

    assert yaml.safe_load(written) == float(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "much", "", "1e999", "1.2.3"])
def test_text_that_is_no_number_gets_no_hint(text):
    assert "YAML" not in message_of(small((("defaults", "momentum"), text)))


def test_settings_that_name_no_experiment_are_accepted():
    config = small((("experiments", "slice"), DELETED))

    assert set(expand(config).experiments) == {"rates", "results"}


# Nothing else comes out, whatever goes in.


def paths_of(node: object) -> list[tuple]:
    """The path of every value below ``node``."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path for key, value in items for path in ((key,), *((key, *below) for below in paths_of(value)))]


KEYS = st.sampled_from(["seed", "ends", "leading", "batch_size", "a\n", "", "naïve"]) | st.text(max_size=5)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2_000),
    st.integers(),
    st.floats(),
    st.sampled_from(["full", "full\n", "1e-3", "ends", "few", "digits", "resnet8", "spectrum", "slices", "4"]),
    st.text(max_size=8),
    st.dates(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.integers() | st.booleans(), inner, max_size=3)
    ),
    max_leaves=6,
)
DIGITS = yaml.safe_load((ROOT / "workflow/studies/digits.yaml").read_text())


def outcome_of(config) -> tuple[Study | None, str]:
    """The study, or why it is refused; anything but a StudyError fails the test."""
    try:
        return study_of(config, source="digits.yaml"), ""
    except StudyError as error:
        return None, str(error)


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_study_with_anything_anywhere_is_expanded_or_refused_a_line_for_each_thing(data):
    config = copy.deepcopy(DIGITS)
    for _ in range(data.draw(st.integers(1, 2))):
        *parents, last = data.draw(st.sampled_from(paths_of(config)))
        parent = config
        for key in parents:
            parent = parent[key]
        action = data.draw(st.sampled_from(["delete", "replace", "replace", "replace", "add"]))
        if action == "delete" and len(config) > 1:
            del parent[last]
        elif action == "add" and isinstance(parent, dict):
            parent[data.draw(KEYS | st.none() | st.integers())] = data.draw(VALUES)
        else:
            parent[last] = data.draw(VALUES)

    study, message = outcome_of(config)

    if study is None:
        lines = message.splitlines()
        assert all(line.startswith("digits.yaml: ") for line in lines)
        assert len(lines) == 1 or lines[-1].startswith(f"digits.yaml: {len(lines) - 1} things are wrong")
    else:
        # What is accepted can be planned.
        assert study.chunks.keys() == study.runs.keys()
        for name in study.experiments:
            assert study.caption(name)
        for run, measurement, name in study.measured:
            assert study.parts(run, measurement, name)


VARIANT = """
checkpoints: later
num_examples: 60
tolerance: 0.01
max_products: 30
loss_examples: 100
num_steps: 6
num_directions: 1
gamma: 1.0
gamma_outside: 1.0
measure_every: 3
renew_every: null
follow_products: 4
"""


def varied(**changed) -> list:
    """The small study with two variants, the second of other settings."""
    sgd = copy.copy(yaml.safe_load(VARIANT))
    experiment = {"kind": "variants", "measure": {"variants": ["sgd", "top_only"]}, "grids": {"run": [{"seed": 0}]}}
    settings = {"sgd": sgd, "top_only": {**sgd, "gamma_outside": 0.0, "renew_every": 1, **changed}}
    return [(("variants",), settings), (("experiments", "variants"), experiment)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("checkpoints", "early"),
        ("num_examples", 30),
        ("tolerance", 0.1),
        ("loss_examples", 50),
        ("num_steps", 9),
        ("measure_every", 2),
    ],
)
def test_variants_that_are_compared_are_measured_alike(key, value):
    expand(small(*varied()))
    wanted = f"variants.top_only.{key} must be that of sgd, "
    assert wanted in message_of(small(*varied(**{key: value})))


@pytest.mark.parametrize(("num_steps", "measure_every"), [(6, 7), (1, 2), (3, 1000)])
def test_variants_of_which_only_the_start_would_be_measured_are_refused(num_steps, measure_every):
    def of(every):
        alike = {"num_steps": num_steps, "measure_every": every}
        return small(*varied(**alike), *((("variants", "sgd", key), value) for key, value in alike.items()))

    expand(of(num_steps))
    message = message_of(of(measure_every))
    for name in ("sgd", "top_only"):
        demand = rf"variants\.{name}\.measure_every must be at most {num_steps}, its num_steps, .*got {measure_every}$"
        assert re.search(demand, message, re.MULTILINE)


# Of each kind: axes that its products tell apart, and such as they do not, beside the first.
AXES_OF_KINDS = {
    "spectrum": ({"learning_rate": [0.1, 0.2]}, None),
    "eigenvalues": ({"learning_rate": [0.1, 0.2]}, {"batch_size": [10, 50]}),
    "schedules": ({"learning_rate_epochs": [[], [1], [2]]}, {"learning_rate_factor": [0.1, 0.5]}),
    "slices": ({"batch_size": [10, 50]}, None),
    "widths": ({"learning_rate": [0.1, 0.2]}, {"momentum": [0.0, 0.9]}),
    "steps": ({"model": ["simple_cnn", "resnet8"]}, {"learning_rate": [0.1, 0.2]}),
    "variants": ({"model": ["simple_cnn", "resnet8"]}, {"batch_size": [10, 50]}),
    "gradients": ({"learning_rate": [0.1, 0.2]}, {"l2": [0.0, 0.1]}),
    "nudged": ({"gamma": [0.1, 1]}, {"batch_size": [10, 50]}),
    "agreement": ({"precision": ["float32", "bfloat16"]}, {"learning_rate": [0.1, 0.2]}),
    "table": ({"gamma": [0.1, 1]}, {"learning_rate": [0.1, 0.2]}),
}


@pytest.mark.parametrize("kind", AXES_OF_KINDS)
def test_axes_that_a_product_does_not_tell_apart_are_refused(kind):
    shown, pooled = AXES_OF_KINDS[kind]
    grid = {"nudged": "gamma", "table": "gamma"}.get(kind, "learning_rate")
    measurement = KINDS[kind].measurements[0]
    settings = {
        "spectrum": "final" if kind == "table" else "leading",
        "slices": "top",
        "steps": "scaled",
        "variants": "sgd",
        "gradients": "top5",
    }[measurement]
    base = yaml.safe_load(SMALL)["slices"]["top"]
    sections = {
        "steps": {"scaled": {**{key: base[key] for key in base if key != "scales"}, "alphas": [0.5, 1, 2]}},
        "variants": {"sgd": yaml.safe_load(VARIANT)},
        "gradients": {"top5": {**{key: base[key] for key in base if key != "scales"}, "num_eigenvalues": 5}},
    }
    changes = [((name,), section) for name, section in sections.items() if name == measurement]

    def study(axes):
        experiment = {"kind": kind, "measure": {measurement: [settings]}, "grids": {grid: [axes]}}
        return small(*changes, (("experiments", "tried"), experiment))

    seeds = {"seed": [0, 1, 2]}
    assert len(expand(study({**shown, **seeds})).experiments["tried"].runs) == 3 * len(next(iter(shown.values())))
    if pooled is None:
        return
    (field,) = pooled
    message = message_of(study({**shown, **pooled, **seeds}))
    assert f"experiments.tried.grids.{grid}: {field} is " in message
    assert (
        f"which kind {kind} would average as if they were seeds; give each {field} an experiment of its own" in message
    )


def test_a_length_that_goes_with_a_setting_is_no_axis_of_its_own():
    blocks = [{"batch_size": 10, "seed": [0, 1]}, {"batch_size": 50, "epochs": 6, "seed": [0, 1]}]
    assert len(expand(small(((*RATES, "grids", "batch_size"), blocks))).experiments["rates"].runs) == 4 + 2


def test_grids_that_a_figure_shows_together_are_pooled_too():
    base = yaml.safe_load(SMALL)["slices"]["top"]
    section = {"scaled": {**{key: base[key] for key in base if key != "scales"}, "alphas": [0.5, 1, 2]}}
    grids = {"one": [{"learning_rate": 0.1}], "two": [{"learning_rate": 0.2}]}
    experiment = {"kind": "steps", "measure": {"steps": ["scaled"]}, "grids": grids}
    message = message_of(small((("steps",), section), (("experiments", "tried"), experiment)))
    assert (
        "experiments.tried.grids one and two: learning_rate is 0.1 and 0.2, which kind steps would average" in message
    )


def test_more_densities_than_a_figure_shows_are_refused():
    def of(epochs):
        grids = {"run": [{"epochs": epochs}]}
        dense = {"kind": "density", "measure": {"density": ["whole"]}, "grids": grids}
        settings = {"whole": {"checkpoints": "all"}}
        changes = {("checkpoints", "all"): {"every_epochs": 1}, ("density",): settings, ("experiments", "dense"): dense}
        return small(*changes.items())

    expand(of(199))  # and the checkpoint before the first
    assert "density.whole.checkpoints is 'all', which keeps 201 checkpoints" in message_of(of(200))


def test_one_run_under_several_names_is_trained_once():
    names = [{"batch_size": ["full", 100]}, {"batch_size": "full", "learning_rate_epochs": [[4], [5, 9]]}]
    study = expand(small((("experiments", "slice", "grids", "run"), names)))
    assert list(study.experiments["slice"].runs) == ["digits-100-simple_cnn-lr0.1-bsfull-e4-seed0"]


def test_a_wrong_file_is_refused_before_a_forecast_and_a_publication(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(SMALL + "study: again\n")
    with pytest.raises(StudyError, match="the key 'study' is given twice, in line 2 and in line"):
        forecast(path)
    with pytest.raises(StudyError, match="the key 'study' is given twice, in line 2 and in line"):
        publish(path, tmp_path, tmp_path)


def test_a_training_job_that_no_command_could_start_is_refused():
    parts = message_of(small((("chunks_per_run",), 1000), (("study",), "a_rather_long_name_of_a_study")))
    assert "chunks_per_run is 1000, with 6 checkpoints of digits-100-simple_cnn" in parts
    dense = {"dense_epochs": 3000, "dense_images": 1}
    steps = message_of(small((("checkpoints", "early"), dense), (("defaults", "epochs"), 3000)))
    assert "chunks_per_run is 3, with 30000 checkpoints of digits-100-simple_cnn" in steps
    assert "at most 100,000 can be run" in steps


def test_directions_that_could_not_be_followed_or_found_are_refused():
    expand(small(*varied(num_directions=4)))
    message = message_of(small(*varied(num_directions=5)))
    assert "variants.top_only.follow_products must be at least 5, its num_directions, where they are renewed" in message
    expand(small(*varied(num_directions=5, renew_every=None)))
    message = message_of(small((("defaults", "direction_tolerance"), 0)))
    assert "direction_tolerance must be positive where gamma is not 1, got 0" in message
