"""The documentation of measurements is that of the code."""

from pathlib import Path

import jsonschema
import pytest

from sharpness.study.describing import page
from sharpness.study.registry import MEASUREMENTS
from sharpness.study.settings import defaults_of, schema_of, settings_in

PAGE = Path(__file__).parents[2] / "docs" / "measurements.md"


def test_the_page_on_measurements_is_the_one_that_the_code_writes():
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "write it: python -m sharpness.study.describing > docs/measurements.md"
    )


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_says_what_each_setting_and_each_column_is(name):
    measurement = MEASUREMENTS[name]
    section = page().split("\n## ")[1 + [*MEASUREMENTS].index(name)]
    assert section.startswith(f"{name}\n")
    for key, found in settings_in(measurement).items():
        assert f"| `{key}` | " in section
        assert found.description
    assert all(column.description and f"| `{key}` | " in section for key, column in measurement.columns.items())
    assert any(column.finite for column in measurement.columns.values())


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_default_lies_in_its_range_and_is_a_measurement_as_a_whole(name, run):
    settings = defaults_of(MEASUREMENTS[name])
    jsonschema.validate(settings, schema_of(MEASUREMENTS[name]))
    work = MEASUREMENTS[name](**settings).work(run)
    assert work.gradients + work.evaluated + sum(some.at_most for some in work.products) > 0
    assert all(0 < some.expected <= some.at_most for some in work.products if some.at_most)
