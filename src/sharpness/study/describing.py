"""The page on measurements in the documentation: ``python -m sharpness.study.describing > docs/measurements.md``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sharpness.study.measurement import Measurement
from sharpness.study.registry import MEASUREMENTS
from sharpness.study.settings import schema_of, settings_in

_HEAD = """\
# Measurements

What can be measured at the checkpoints of a run, with which settings, and what the tables hold. This page is written
by `python -m sharpness.study.describing`, from the modules in `src/sharpness/measurements`. Each section of a study's
file has named settings of one measurement; what a study does not say is as here. Before the columns below each table
has the run, the name of the settings, the checkpoint, step and epoch, and whether the run diverged or had stopped;
behind them, what computed them.
"""
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def page() -> str:
    """The page, in Markdown."""
    return "\n".join([_HEAD, *("\n".join(_section(name, found)) for name, found in MEASUREMENTS.items())])


def _section(name: str, measurement: type[Measurement]) -> Iterator[str]:
    looks_back = " Each checkpoint is compared with the one before." if measurement.looks_back else ""
    yield f"## {name}\n\n{_sentence(measurement.title)} {' '.join(str(measurement.__doc__).split())}{looks_back}\n"
    properties = schema_of(measurement)["properties"]
    schedule = "the named schedule of checkpoints to measure, or ends for the best and the last"
    rows = [["`checkpoints`", "string", f"`{measurement.checkpoints}`", schedule]]
    for key, found in settings_in(measurement).items():
        default = getattr(found.default, "words", None) or f"`{_value(found.default)}`"
        rows.append([f"`{key}`", _range(properties[key]), default, found.description])
    yield from _table(["Setting", "Type", "Default", "What it is"], rows)
    yield ""
    columns = [[f"`{key}`", column.unit, column.description] for key, column in measurement.columns.items()]
    yield from _table(["Column", "Unit", "What it holds"], columns)
    yield ""


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _table(header: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    for row in [header, ["---"] * len(header), *rows]:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _range(schema: dict[str, Any]) -> str:
    """``integer, ≥ 1, ≤ 100``; of a list, what its items are."""
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    named = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if named == ["array"]:
        return f"list of {_range(schema['items'])}"
    bounds = [f"{sign} {schema[rule]:,}" for rule, sign in _BOUNDS.items() if rule in schema]
    return ", ".join([" or ".join(named), *bounds])


def _value(default: Any) -> str:
    if isinstance(default, list | tuple):
        return f"[{', '.join(map(_value, default))}]"
    return "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


if __name__ == "__main__":
    print(page(), end="")
