"""Measure one part of a run: ``python -m sharpness.stages.measure NAME --settings.KEY VALUE --part.KEY VALUE ...``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from sharpness.measurements.measuring import Part, measure
from sharpness.runtime.stage import run_stage
from sharpness.study.measurement import Measurement, measurement


def stage_of(name: str) -> Callable[..., None]:
    """The stage of a measurement, with the types of its own settings for the command line."""
    settings_type = measurement(name)

    def stage(settings: Measurement, part: Part) -> None:
        measure(settings, part)

    stage.__name__, stage.__doc__ = name, settings_type.__doc__
    stage.__annotations__ |= {"settings": settings_type, "part": Part}
    return stage


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("measure: name a measurement, and what it needs follows with --help")
    try:
        found = stage_of(sys.argv[1])
    except ModuleNotFoundError:
        sys.exit(f"measure: there is no measurement {sys.argv[1]!r}")
    del sys.argv[1]
    run_stage(found)
