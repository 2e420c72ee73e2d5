"""Single values beside a study's file, with points into its mappings."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from snakemake.cli import parse_config

from sharpness.command.overrides import for_snakemake, merged, overrides
from sharpness.study.file import with_types
from sharpness.study.schema import StudyError

KEYS = st.from_regex("[a-z][a-z_]{0,3}[a-z]", fullmatch=True)
VALUES = st.one_of(
    st.integers(-5, 100_000),
    st.floats(0.001, 1000),
    st.booleans(),
    st.none(),
    st.sampled_from(["adam", "full"]),
    st.lists(st.integers(0, 9), max_size=3),
)
NESTED = st.recursive(VALUES, lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3), max_leaves=6)


def flat(value, path=()):
    if not isinstance(value, dict):
        yield ".".join(path), value
        return
    for key, inner in value.items():
        yield from flat(inner, (*path, key))


@pytest.mark.slow
@given(st.dictionaries(KEYS, NESTED, max_size=4))
def test_points_lead_into_mappings_and_snakemake_reads_the_same(values):
    words = [f"{path}={json.dumps(value)}" for path, value in flat(values)]

    assert overrides(words) == values
    handed = for_snakemake(values)
    read = parse_config(handed[1:]) if handed else {}
    assert with_types(read, read) == values


@given(st.dictionaries(KEYS, NESTED, max_size=4), st.dictionaries(KEYS, NESTED, max_size=4))
def test_what_is_not_given_stays_and_what_is_given_is_there(study, given_values):
    found = merged(study, given_values)

    there = dict(flat(found))
    assert all(there[path] == value for path, value in flat(given_values))
    paths = [path for path, _ in flat(given_values)]
    for path, value in flat(study):
        if not any(path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.") for other in paths):
            assert there[path] == value


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["epochs"], "takes KEY=VALUE"),
        (["=3"], "takes KEY=VALUE"),
        (["defaults..epochs=3"], "takes KEY=VALUE"),
        (["defaults.epochs=3", "defaults.epochs=4"], "the key 'defaults.epochs' is given twice, as 3 and as 4"),
        (["defaults=3", "defaults.epochs=4"], "the key 'defaults' is given twice, as 3 and as {epochs: 4}"),
        (["defaults={epochs: 1}", "defaults={epochs: 3}"], "the key 'defaults.epochs' is given twice, as 1 and as 3"),
        (["defaults={epochs: 1, epochs: 3}"], "the key 'epochs' is given twice in line 1, as 1 and as 3"),
        (["defaults={data: a, optimizer: {x: [1], x: {y: 2}}}"], "twice in line 1, as [1] and as {y: 2}"),
        (["defaults.seed=010"], "010 in line 1 has a leading zero, by which YAML reads it as 8: write 10 or 8"),
        (["study=2020-13-45"], "the value is not valid YAML (month must be in 1..12)"),
        (["defaults.epochs=[3"], "the value is not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(words, said):
    with pytest.raises(StudyError, match="--config") as error:
        overrides(words)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_values_are_those_of_yaml():
    assert overrides(["defaults.optimizer={name: adam, beta2: 0.9}", "study=mine"]) == {
        "defaults": {"optimizer": yaml.safe_load("{name: adam, beta2: 0.9}")},
        "study": "mine",
    }
