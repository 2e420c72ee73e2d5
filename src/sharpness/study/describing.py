"""Pages of the documentation that the code writes: ``python -m sharpness.study.describing PAGE > docs/PAGE.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sharpness.study.keys import Whole, measurement_settings, settings_schema
from sharpness.study.kinds import BASE, KINDS
from sharpness.study.measurement import Column, Measurement
from sharpness.study.records import columns_of
from sharpness.study.registry import MEASUREMENTS
from sharpness.study.run import Run
from sharpness.study.schedule import SCHEDULES, Schedule
from sharpness.study.settings import Derived, Setting, schema_of, settings_in

_HEAD = """\
# Measurements

What can be measured at the checkpoints of a run, with which settings, and what the tables hold. This page is written
by `python -m sharpness.study.describing measurements`, from the modules in `src/sharpness/measurements`. Each section
of a study's file has named settings of one measurement; keys that a study omits have these defaults. Before the columns
below each table has the name of the run, the name of the settings, the checkpoint, step and epoch, and whether the run
diverged or had stopped; behind them, what computed them.
"""
_HISTORY = """## history

The course of each training: a row at initialisation and after each epoch that the study evaluates.
"""
_RUNS = """## runs

`tables/runs.csv`, made from the plan, has a row for every run of the study: `run`, the name that it has in all other
tables, and the fields of the run, which no other table has ([what each is](configuration.md#defaults)). A list is
written as `1 50`; null and an empty list are empty cells.
"""
_CONFIGURATION = """\
# Configuration

Every key of a study's file. This page is written by `python -m sharpness.study.describing configuration`, from the code
that reads them. A study needs `study`, its name, and `experiments`; all else has a default, and `make config STUDY=...`
shows which values a study comes to, and from where. What is wrong with a file is said at once, a line each.

    study: mine
    defaults: { data: digits, model: simple_cnn, num_training: 500, epochs: 2 }
    experiments:
      rates:
        kind: eigenvalues
        grids:
          learning_rate: [{ learning_rate: [0.05, 0.1, 0.2], seed: [0, 1] }]

Single values may be given beside the file, and are checked as if they stood in it:

    snakemake -n --configfile mine.yaml --config 'defaults={epochs: 3}' evaluation_examples=100
    sharpness plan mine --config defaults.epochs=3 evaluation_examples=100

Snakemake's own `--config` does not accept dotted keys.
"""
_HEADER = ["Key", "Type", "Default", "What it is"]
_EXPERIMENT = [
    ["`kind`", ", ".join(KINDS), "none: it must be given", "what is drawn from it"],
    [
        "`measure`",
        "measurement to names",
        "that of the kind",
        "the settings with which each measurement is taken",
    ],
    ["`measurements`", "file.py:name or a list", "none", "your own, beside those of the kind ([own.md](own.md))"],
    ["`figures`", "file.py:function or a list", "none", "your own, from the experiment's tables"],
    ["`grids`", "name to list of axes", "one run, `{}`", "the runs: named sets of the combinations of axes"],
]
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def page() -> str:
    """Write the page on measurements, in Markdown."""
    sections = ["\n".join(_section(name, found)) for name, found in MEASUREMENTS.items()]
    return "\n".join([_HEAD, *sections, _HISTORY, *_columns(columns_of("history")), "", _RUNS])


def _section(name: str, measurement: type[Measurement]) -> Iterator[str]:
    looks_back = " Each checkpoint is compared with the one before." if measurement.looks_back else ""
    yield f"## {name}\n\n{_sentence(measurement.title)} {' '.join(str(measurement.__doc__).split())}{looks_back}\n"
    yield from _keys(settings_schema(name)["properties"], measurement_settings(name))
    yield from _columns(measurement.columns)
    yield ""


def configuration() -> str:
    """Write the page on a study's file, in Markdown."""
    return "\n".join([_CONFIGURATION, *_sections()])


def _sections() -> Iterator[str]:
    yield "## The study\n\nBeside these, `study` is its name, after which its results are kept: `results/<study>/`.\n"
    yield from _keys(schema_of(Whole)["properties"], settings_in(Whole))
    yield (
        "## defaults\n\nThe fields of every run that a grid does not set. A default that follows from another field "
        "follows it in a grid, too; of an axis with several values, the smallest counts.\n"
    )
    yield from _keys(schema_of(Run)["properties"], settings_in(Run))
    yield (
        "## checkpoints\n\nNamed schedules, each the union of what its keys ask for. Every study has these, unless it "
        "declares its own of that name:\n"
    )
    yield from _table(["Schedule", "It is"], [[f"`{name}`", f"`{_value(keys)}`"] for name, keys in SCHEDULES.items()])
    yield ""
    yield from _keys(schema_of(Schedule)["properties"], settings_in(Schedule))
    yield (
        "## experiments\n\nNamed experiments. The axes of a grid are fields of a run, each with its value or a list of "
        "them; the values of all axes are combined with one another. Grids have names of your own: figures, tables and "
        "claims follow what the runs of a grid differ in, be it a key of `optimizer`, `schedule` or `model_args`.\n"
    )
    yield from _table(_HEADER, _EXPERIMENT)
    yield ""
    rows = [
        [f"`{name}`", f"`{_value(kind.default_measure)}`", ", ".join(map("`{}`".format, kind.figures)) or "a table"]
        for name, kind in KINDS.items()
    ]
    yield from _table(["Kind", "`measure` if it does not say", "What is drawn"], rows)
    yield (
        f"\n## {', '.join(MEASUREMENTS)}\n\nEach of these sections has named settings of one measurement. Those under "
        f"the name `{BASE}` are taken by all others of the section that do not say otherwise. "
        "[measurements.md](measurements.md) has the tables that come of them.\n"
    )
    for name, found in MEASUREMENTS.items():
        yield f"### {name}\n\n{_sentence(found.title)}\n"
        if found.named:
            yield f"Every study has the settings `{_value(found.named)}`.\n"
        yield from _keys(settings_schema(name)["properties"], measurement_settings(name))


def _keys(properties: dict[str, Any], settings: dict[str, Setting]) -> Iterator[str]:
    """Write a table of settings."""
    rows = [
        [
            f"`{key}`",
            _range(properties[key]),
            found.default.words if isinstance(found.default, Derived) else f"`{_value(found.default)}`",
            found.description,
        ]
        for key, found in settings.items()
    ]
    yield from _table(_HEADER, rows)
    yield ""


def _columns(columns: Mapping[str, Column]) -> Iterator[str]:
    rows = [[f"`{key}`", column.unit, column.description] for key, column in columns.items()]
    yield from _table(["Column", "Unit", "What it holds"], rows)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _table(header: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    for row in [header, ["---"] * len(header), *rows]:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _range(schema: dict[str, Any]) -> str:
    """``integer, ≥ 1, ≤ 100``; of a list, what its items are."""
    if "known" in schema:
        return f"{', '.join(schema['known'])}, or your own"
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
    if isinstance(default, Mapping):
        return f"{{ {', '.join(f'{key}: {_value(value)}' for key, value in default.items())} }}" if default else "{}"
    return "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


if __name__ == "__main__":
    print({"measurements": page, "configuration": configuration}[sys.argv[1]](), end="")
