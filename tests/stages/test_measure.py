"""The one stage of all measurements."""

from dataclasses import fields

import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from sharpness.measurements.measuring import Part
from sharpness.runtime.words import flags
from sharpness.stages import measure
from sharpness.study.effective import effective
from sharpness.study.kinds import KINDS
from sharpness.study.registry import MEASUREMENTS


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_the_settings_of_a_study_come_through_the_command_line(name, monkeypatch):
    kind = next(kind for kind, entry in KINDS.items() if name in entry.measurements)
    study = effective({"study": "s", "defaults": {"data": "digits"}, "experiments": {"e": {"kind": kind}}}).config
    measured = []
    monkeypatch.setattr(measure, "measure", lambda *given: measured.append(given))
    part = {field.name: [] if "list" in str(field.type) else "1" for field in fields(Part)}

    for section in study[name].values():
        settings = {key: value for key, value in section.items() if key != "checkpoints"}
        words = [*flags("settings", settings), *flags("part", part)]
        tyro.cli(measure.stage_of(name), args=words, config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands))
        given, _ = measured.pop()
        assert given == MEASUREMENTS[name](**settings)


@given(name=st.one_of(st.sampled_from(["along", "landscape", "measuring", "slice", "", "slices.", "."]), st.text()))
def test_what_is_no_measurement_is_no_stage(name):
    if name not in MEASUREMENTS:
        with pytest.raises((ModuleNotFoundError, ValueError)):
            measure.stage_of(name)
