"""All measurements, by name. Free of torch: rules, schema, forecast, tables and documentation follow from it."""

from __future__ import annotations

from sharpness.study.measurement import Measurement, measurement

MEASUREMENTS: dict[str, type[Measurement]] = {
    name: measurement(name) for name in ("spectrum", "density", "slices", "steps", "variants", "gradients")
}
