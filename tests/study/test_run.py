"""One training run as a value, its name, and the axes that make many of them."""

import dataclasses
import itertools
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_run import RUN

from sharpness.data import catalogue
from sharpness.study.axes import runs_of
from sharpness.study.keys import study_schema
from sharpness.study.run import LOSSES, Run
from sharpness.training import models

FIELDS = [field.name for field in dataclasses.fields(Run)]
NUDGING = (
    "num_directions",
    "direction_examples",
    "direction_tolerance",
    "direction_products",
    "direction_precision",
)

NUDGED = dataclasses.replace(RUN, gamma=0.1)
SCHEDULED = dataclasses.replace(RUN, learning_rate_epochs=(50, 75), learning_rate_factor=0.1)


PATIENCE = st.none() | st.integers(1, 12)
PRECISION = st.sampled_from(["float32", "bfloat16"])
POSSIBLE = {
    "data": st.sampled_from(catalogue.DATA_SETS),
    "num_training": st.integers(100, 50_000),
    "augment": st.booleans(),
    "model": st.sampled_from(models.NAMES),
    "padding": st.sampled_from(["alternating", "same"]),
    "init_scale": st.none() | st.floats(0, 10, exclude_min=True),
    "learning_rate": st.floats(0, 1000, exclude_min=True),
    "learning_rate_epochs": st.lists(st.integers(1, 100), max_size=3, unique=True).map(tuple),
    "learning_rate_factor": st.floats(0, 1000, exclude_min=True),
    "batch_size": st.just("full") | st.integers(1, 100),
    "momentum": st.floats(-0.0, 1, exclude_max=True),
    "l2": st.floats(-0.0, 10),
    "precision": PRECISION,
    "gamma": st.just(1) | st.floats(-0.0, 1000),
    "gamma_outside": st.just(1) | st.floats(-0.0, 1000),
    "num_directions": st.integers(1, 12),
    "direction_examples": st.integers(1, 100),
    "direction_tolerance": st.floats(0, 1, exclude_min=True),
    "direction_products": st.integers(12, 100),
    "direction_precision": PRECISION,
    "epochs": st.integers(1, 100),
    "plateau_patience": PATIENCE,
    "stop_patience": PATIENCE,
    "loss_bound": st.none() | st.floats(0, 1e6, exclude_min=True),
    "seed": st.integers(0, 2**32 - 1),
    "model_args": st.sampled_from(
        ["{}", '{"a": 1}', '{"a": "1"}', '{"a1": 1}', '{"a": 11}', '{"a_b": true, "c": [1, 2]}']
    ),
    "loss": st.sampled_from(LOSSES),
    # With a momentum of its own, it is no optimizer for a run that has one.
    "optimizer": st.just("{}"),
    "schedule": st.sampled_from(
        ["{}", '{"name": "cosine"}', '{"name": "linear", "warmup": 0.5}', '{"name": "cosine", "end": 0.1}']
    ),
}
RUNS = st.builds(Run, **POSSIBLE)


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[Run, Run]:
    """Two runs that differ in few fields and by little, if at all."""
    run = draw(RUNS)
    changes = {}
    for field in draw(st.lists(st.sampled_from(FIELDS), max_size=2)):
        value = getattr(run, field)
        # A name that rounds would give the nearest number the same folder.
        nearest = st.just(math.nextafter(value, 0.5)) if isinstance(value, float) else st.nothing()
        changes[field] = draw(nearest | POSSIBLE[field])
    return run, dataclasses.replace(run, **changes)


# The name of a run.


def test_every_field_of_a_run_is_varied_in_the_tests_of_its_name():
    assert list(POSSIBLE) == FIELDS


@pytest.mark.slow
@settings(max_examples=200)
@given(neighbours())
def test_two_canonical_runs_have_the_same_name_exactly_if_they_are_equal(pair):
    first, second = (run.canonical() for run in pair)

    assert (first.name == second.name) == (first == second)


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_is_left_out_of_the_name(field):
    run = dataclasses.replace(SCHEDULED, gamma=0.1)
    other = {
        "data": "cifar100",
        "augment": True,
        "model": "resnet32",
        "padding": "same",
        "init_scale": 0.5,
        "num_training": 40_000,
        "learning_rate_epochs": (50,),
        "batch_size": "full",
        "precision": "bfloat16",
        "direction_precision": "bfloat16",
        "model_args": {"width": 64},
        "loss": "mse",
        "optimizer": "adam",
        "schedule": "cosine",
    }.get(field, 0.5 if isinstance(getattr(run, field), float) else 7)

    assert dataclasses.replace(run, **{field: other}).name != run.name


def test_runs_whose_long_names_begin_alike_have_names_of_their_own():
    digits = 1.2345678901234567e-200
    long = dataclasses.replace(
        NUDGED, **{name: digits for name in FIELDS if isinstance(getattr(NUDGED, name), float)}, init_scale=digits
    )
    runs = [dataclasses.replace(long, padding="same", augment=True, seed=seed) for seed in range(50)]
    assert len({run.name for run in runs}) == 50
    assert {len(run.name) for run in runs} == {255}


@given(RUNS)
def test_a_name_is_safe_as_the_name_of_a_folder(run):
    assert re.fullmatch(r"[a-z][A-Za-z0-9_.+-]{0,254}", run.canonical().name)
    assert ".." not in run.name


@pytest.mark.parametrize(
    ("one", "other"), [(0.1, 0.10), (1, 1.0), (1e-3, 0.001), (1e-05, 0.00001), (10, 1e1)], ids=repr
)
def test_equal_numbers_give_one_name_however_they_are_written(one, other):
    assert dataclasses.replace(RUN, learning_rate=one).name == dataclasses.replace(RUN, learning_rate=other).name


def test_minus_zero_and_zero_give_one_name():
    assert dataclasses.replace(RUN, gamma=-0.0).name == dataclasses.replace(RUN, gamma=0.0).name


def test_numbers_that_differ_in_the_last_digit_only_give_two_names():
    beside = math.nextafter(0.01, 1)

    assert dataclasses.replace(RUN, learning_rate=beside).name != RUN.name


def test_the_name_of_plain_sgd_says_what_was_chosen_and_nothing_of_directions():
    assert RUN.name == "cifar10-45000-simple_cnn-lr0.01-bs128-e100-seed0"


def test_the_name_of_a_run_with_everything_set_spells_it_all():
    run = dataclasses.replace(
        NUDGED,
        augment=True,
        model="resnet32",
        padding="same",
        init_scale=0.5,
        learning_rate=1e-05,
        learning_rate_epochs=(50, 75),
        learning_rate_factor=0.1,
        batch_size="full",
        momentum=0.9,
        l2=1e-4,
        precision="bfloat16",
        gamma_outside=0.0,
        direction_precision="bfloat16",
        plateau_patience=10,
        stop_patience=20,
        loss_bound=1e3,
        seed=7,
    )

    assert run.name == (
        "cifar10-45000-augmented-resnet32-same-init0.5-lr1e-05-x0.1at50_75-bsfull-m0.9-l2_0.0001-bfloat16"
        "-gamma0.1-outside0-K5-n2500-tol0.05-max100-inbfloat16-e100-plateau10-stop20-bound1000-seed7"
    )


# Equal runs are equal.


@given(RUNS, RUNS)
def test_without_a_nudge_the_settings_of_directions_make_no_difference(run, other):
    plain = dataclasses.replace(run, gamma=1, gamma_outside=1)
    directions = {field: getattr(other, field) for field in NUDGING}

    assert dataclasses.replace(plain, **directions).canonical() == plain.canonical()


@given(RUNS, st.floats(0, 1000))
def test_without_epochs_at_which_the_rate_changes_its_factor_makes_no_difference(run, factor):
    constant = dataclasses.replace(run, learning_rate_epochs=())

    assert dataclasses.replace(constant, learning_rate_factor=factor).canonical() == constant.canonical()


@pytest.mark.parametrize("epochs", [(50, 75), (75, 50), [75, 50]])
def test_the_epochs_at_which_the_rate_changes_are_one_run_in_any_order(epochs):
    assert dataclasses.replace(SCHEDULED, learning_rate_epochs=epochs) == SCHEDULED


@given(RUNS, st.integers(1, 50))
def test_rate_changes_after_the_last_epoch_make_no_difference(run, later):
    changes = (*run.learning_rate_epochs, run.epochs, run.epochs + later)

    assert dataclasses.replace(run, learning_rate_epochs=changes).canonical() == run.canonical()


@given(RUNS)
def test_a_batch_of_all_images_is_the_full_one(run):
    whole = dataclasses.replace(run, batch_size=run.num_training).canonical()

    assert whole == dataclasses.replace(run, batch_size="full").canonical()
    assert whole.name == dataclasses.replace(whole, batch_size="full").name
    assert (whole.examples_per_step, whole.steps_per_epoch) == (run.num_training, 1)


def test_a_models_own_first_variance_is_that_of_no_setting():
    own = dataclasses.replace(RUN, model="resnet8", init_scale=1 / 3)

    assert own.canonical() == dataclasses.replace(RUN, model="resnet8", init_scale=None).canonical()
    assert dataclasses.replace(own, init_scale=0.5).canonical().init_scale == 0.5


def rates(run) -> list[float]:
    """The learning rate of each epoch, without a look at how a run is spelt."""
    changes = [run.learning_rate_factor if epoch in run.learning_rate_epochs else 1.0 for epoch in range(run.epochs)]
    return [run.learning_rate * math.prod(changes[: epoch + 1]) for epoch in range(run.epochs)]


@given(RUNS)
def test_a_canonical_run_differs_in_settings_without_effect_only_and_stays_as_it_is(run):
    canonical = run.canonical()

    spelt = {"batch_size", "init_scale", "learning_rate_epochs", "learning_rate_factor"}
    idle = set() if run.is_nudged else set(NUDGING)
    for field in set(FIELDS) - idle - spelt:
        assert getattr(canonical, field) == getattr(run, field)
    assert canonical.examples_per_step == run.examples_per_step
    assert rates(canonical) == rates(run)
    assert canonical.canonical() == canonical
    if all(getattr(canonical, field) == getattr(run, field) for field in spelt - {"learning_rate_factor"}):
        assert canonical.name == run.name


@pytest.mark.parametrize("factors", [(0.1, 1), (1, 0.1), (0.5, 0.5), (0, 1), (1, 0)])
def test_a_nudged_run_keeps_its_settings_of_directions(factors):
    run = dataclasses.replace(RUN, gamma=factors[0], gamma_outside=factors[1])

    assert run.is_nudged
    assert run.canonical() == run


# Impossible runs.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batch_size": 45_001},
            "batch_size must be at most num_training, got batch_size 45001 with num_training 45000",
        ),
        ({"gamma": 0.5, "num_directions": 0}, "num_directions must be at least 1 where gamma is not 1, got 0"),
        ({"gamma_outside": 0, "num_directions": 0}, "num_directions must be at least 1 where gamma is not 1, got 0"),
        ({"gamma": 0.5, "direction_examples": 0}, "between 1 and num_training, got 0 with num_training 45000"),
        ({"gamma": 0.5, "direction_examples": 45_001}, "between 1 and num_training, got 45001 with num_training 45000"),
        (
            {"gamma": 0.5, "direction_products": 4},
            "direction_products must be at least num_directions, got 4 with num_directions 5",
        ),
    ],
)
def test_an_impossible_run_is_refused_with_its_values(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(RUN, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 45_000},
        {"num_training": 100, "batch_size": "full"},
        {"num_directions": 0, "direction_examples": 0, "direction_products": 0},
        {"num_training": 200, "direction_examples": 2_500},
        {"gamma": 0.5, "direction_examples": 45_000},
        {"gamma": 0.5, "direction_products": 5},
    ],
    ids=str,
)
def test_a_run_at_the_edge_of_the_possible_is_accepted(changes):
    run = dataclasses.replace(RUN, **changes)

    assert {field: getattr(run, field) for field in changes} == changes


@pytest.mark.parametrize(("batch_size", "steps_per_epoch"), [(128, 351), (8, 5625), (1024, 43), ("full", 1)])
def test_the_last_incomplete_batch_is_left_out_of_an_epoch(batch_size, steps_per_epoch):
    assert dataclasses.replace(RUN, batch_size=batch_size).steps_per_epoch == steps_per_epoch


# Grids.


def test_axes_are_combined_with_one_another_in_order_the_last_changing_fastest():
    axes = {"learning_rate": [0.2, 0.1], "model": "resnet8", "seed": [0, 1, 2]}

    runs = runs_of(dataclasses.asdict(NUDGED), axes)

    expected = [(0.2, 0), (0.2, 1), (0.2, 2), (0.1, 0), (0.1, 1), (0.1, 2)]
    assert [(run.learning_rate, run.seed) for run in runs] == expected
    assert {dataclasses.replace(run, learning_rate=0.01, seed=0) for run in runs} == {
        dataclasses.replace(NUDGED, model="resnet8")
    }


@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from([1, 8, 128, "full"]), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from([0.1, 1, 10]), min_size=1, max_size=3, unique=True),
)
def test_a_grid_is_the_cartesian_product_of_its_axes(seeds, batch_sizes, gammas):
    runs = runs_of(dataclasses.asdict(RUN), {"seed": seeds, "batch_size": batch_sizes, "gamma": gammas})

    assert [(run.seed, run.batch_size, run.gamma) for run in runs] == list(
        itertools.product(seeds, batch_sizes, gammas)
    )


def test_no_axes_give_the_one_run_of_the_defaults():
    assert runs_of(dataclasses.asdict(NUDGED), {}) == [NUDGED]


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ([], [()]),
        ([50], [(50,)]),
        ([50, 75], [(50, 75)]),
        ([[50, 75]], [(50, 75)]),
        ([[]], [()]),
        ([[], [50], [50, 75]], [(), (50,), (50, 75)]),
    ],
    ids=str,
)
def test_epochs_at_which_the_rate_changes_are_one_list_or_a_list_of_lists(axis, values):
    runs = runs_of(dataclasses.asdict(SCHEDULED), {"learning_rate_epochs": axis, "seed": [0, 1]})

    assert [(run.learning_rate_epochs, run.seed) for run in runs] == list(itertools.product(values, [0, 1]))
    assert runs == [Run(**json.loads(json.dumps(dataclasses.asdict(run)))) for run in runs]  # from a file too


def test_five_thousand_seeds_give_five_thousand_names():
    runs = runs_of(dataclasses.asdict(RUN), {"seed": list(range(5_000))})

    assert [run.seed for run in runs] == list(range(5_000))
    assert len({run.name for run in runs}) == 5_000


def test_runs_of_a_grid_are_canonical():
    defaults = dataclasses.asdict(RUN)

    assert runs_of(defaults, {"num_directions": 5}) == runs_of(defaults, {"num_directions": 20})


def test_an_impossible_combination_is_refused_with_its_values():
    with pytest.raises(ValueError, match="got batch_size 512 with num_training 256"):
        runs_of(dataclasses.asdict(RUN), {"batch_size": [128, 512], "num_training": [1024, 256]})


# The schema of a study follows from the fields.


def _first(schema: dict) -> dict:
    return schema["anyOf"][0] if "anyOf" in schema else schema


def nodes(node: object, place: str = "") -> list[tuple[str, dict]]:
    """Every mapping of the schema with its place."""
    if isinstance(node, list):
        return [found for index, item in enumerate(node) for found in nodes(item, f"{place}/{index}")]
    if not isinstance(node, dict):
        return []
    return [(place, node), *(found for key, value in node.items() for found in nodes(value, f"{place}/{key}"))]


def test_every_property_in_the_schema_has_a_description():
    described = {
        f"{place}/{key}": _first(value).get("description")
        for place, node in nodes(study_schema())
        if not place.endswith("/properties")
        for key, value in node.get("properties", {}).items()
    }

    assert len(described) > 2 * len(FIELDS)
    assert [place for place, description in described.items() if not description] == []


def test_no_mapping_of_the_schema_takes_keys_that_nobody_described():
    open_mappings = [
        place
        for place, node in nodes(study_schema())
        if node.get("type") == "object" and "additionalProperties" not in node
    ]

    assert open_mappings == []


# Senseless numbers.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (field, value)
        for field in FIELDS
        if isinstance(getattr(RUN, field), int | float) and not isinstance(getattr(RUN, field), bool)
        for value in (-1, math.nan)
    ]
    + [("learning_rate", 0), ("learning_rate", math.inf), ("momentum", 1), ("l2", math.inf), ("gamma", math.inf)]
    + [("learning_rate_epochs", (0,)), ("init_scale", 0.0), ("plateau_patience", 0), ("stop_patience", -3)]
    + [("loss_bound", 0.0), ("loss_bound", math.nan), ("batch_size", 0)],
)
def test_a_senseless_number_is_refused_by_the_name_of_its_field(field, value):
    with pytest.raises(ValueError, match=rf"^{field} must be .*, got "):
        dataclasses.replace(RUN, **{field: value})
