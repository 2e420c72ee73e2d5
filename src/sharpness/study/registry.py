"""All measurements, by name. Free of torch: rules, schema, forecast, tables and documentation follow from it."""

from __future__ import annotations

from sharpness.study.measurement import Measurement, measurement

_NAMES = (
    "spectrum",
    "density",
    "slices",
    "steps",
    "variants",
    "gradients",
    "gradient_step",
)

MEASUREMENTS: dict[str, type[Measurement]] = {name: measurement(name) for name in _NAMES}
