"""The documentation of measurements is that of the code."""

from pathlib import Path

import jsonschema
import pytest

from sharpness.study.describing import configuration, page
from sharpness.study.effective import effective
from sharpness.study.keys import study_schema
from sharpness.study.kinds import KINDS
from sharpness.study.registry import MEASUREMENTS
from sharpness.study.runs import FIELDS
from sharpness.study.settings import schema_of, settings_in

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("name", "written"), [("measurements", page), ("configuration", configuration)])
def test_a_page_is_the_one_that_the_code_writes(name, written):
    assert (DOCS / f"{name}.md").read_text(encoding="utf-8") == written(), (
        f"write it: python -m sharpness.study.describing {name} > docs/{name}.md"
    )


def described(schema: dict) -> set[str]:
    """Every key below a schema."""
    properties = schema.get("properties", {})
    below = [*properties.values(), schema.get("additionalProperties"), schema.get("items")]
    return {*properties}.union(*(described(each) for each in below if isinstance(each, dict)))


def test_every_key_of_a_study_is_described():
    page = configuration()
    assert [key for key in described(study_schema()) if f"`{key}`" not in page and f"# {key}\n" not in page] == []


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_says_what_each_setting_and_each_column_is(name):
    measurement = MEASUREMENTS[name]
    section = page().split("\n## ")[1 + [*MEASUREMENTS].index(name)]
    assert section.startswith(f"{name}\n")
    for key, found in settings_in(measurement).items():
        assert f"| `{key}` | " in section
        assert found.description
    assert all(column.description and f"| `{key}` | " in section for key, column in measurement.columns.items())
    assert not set(measurement.columns) & set(FIELDS)
    assert any(column.finite for column in measurement.columns.values())


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_of_which_a_study_says_nothing_is_one(name, run):
    kind = next(name_of_kind for name_of_kind, kind in KINDS.items() if name in kind.measurements)
    filled = effective({"study": "s", "defaults": {"data": "digits"}, "experiments": {"e": {"kind": kind}}}).config
    assert filled[name]
    for section in filled[name].values():
        settings = {key: value for key, value in section.items() if key != "checkpoints"}
        jsonschema.validate(settings, schema_of(MEASUREMENTS[name]))
        measurement = MEASUREMENTS[name](**settings)
        assert measurement.in_words()
        work = measurement.work(run)
        assert work.gradients + work.evaluated + sum(some.at_most for some in work.products) > 0
        assert all(0 < some.expected <= some.at_most for some in work.products if some.at_most)
