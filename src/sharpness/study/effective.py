"""The whole study: what a study's file says, and the default of everything that it does not say."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sharpness.study.axes import values_of
from sharpness.study.keys import Whole, default_grids, measurement_settings
from sharpness.study.kinds import BASE, KINDS
from sharpness.study.registry import MEASUREMENTS
from sharpness.study.run import NEUTRAL, Run
from sharpness.study.schedule import SCHEDULES, Schedule
from sharpness.study.settings import Derived, Setting, settings_in

Path = tuple[str | int, ...]  # to a value, from the top of a study


@dataclass(frozen=True)
class Effective:
    """A study in which nothing is left out; read as a study again, it is the same."""

    config: dict[str, Any]
    origins: dict[Path, Path] = field(default_factory=dict)  # of what the file says: where it does; others are defaults

    def take(self, path: Path, layers: Iterable[tuple[Path | None, Mapping[str, Any]]], known: Iterable[str]) -> Any:
        """Merge mappings, later ones overriding earlier ones; keys in the order of ``known``."""
        values: dict[str, Any] = {}
        for origin, layer in layers:
            for key, value in layer.items():
                values[key] = value
                self.origins.pop((*path, key), None)
                if origin is not None:
                    self.origins[*path, key] = (*origin, key)
        return {key: values[key] for key in known if key in values}


def effective(study: Mapping[str, Any]) -> Effective:
    """Fill in every default.

    Args:
        study: what the file says, right by the schema.
    """
    whole = Effective({"study": study["study"]}, {("study",): ("study",)})
    defaults = _fields_of_a_run(whole, study.get("defaults", {}))
    experiments = {name: _experiment(whole, name, section, defaults) for name, section in study["experiments"].items()}
    extremes = _extremes(defaults, experiments)
    keys = settings_in(Whole)
    whole.config.update(filled(whole.take((), [((), study)], keys), keys, extremes))
    sections = {name: _settings(whole, study, name, experiments, extremes) for name in MEASUREMENTS}
    whole.config["defaults"] = defaults
    whole.config["checkpoints"] = _schedules(whole, study.get("checkpoints", {}), sections)
    whole.config.update({name: section for name, section in sections.items() if section})
    whole.config["experiments"] = experiments
    return whole


def filled(given: Mapping[str, Any], settings: Mapping[str, Setting], others: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the defaults of those that are not given, in their order; ``others`` are needed for some."""
    values = dict(others)
    for name, found in settings.items():
        if name in given or not isinstance(found.default, Derived):
            values[name] = given.get(name, found.default)
    for name, found in settings.items():
        if name not in given and isinstance(found.default, Derived):
            values[name] = found.default.function(*(values.get(need) for need in found.default.needs))
    return {name: values[name] for name in settings}


def _fields_of_a_run(whole: Effective, given: Mapping[str, Any]) -> dict[str, Any]:
    # Of what was added once there were results, a study that says nothing of it is told nothing either.
    fields = {name: found for name, found in settings_in(Run).items() if name not in NEUTRAL or name in given}
    return filled(whole.take(("defaults",), [(("defaults",), given)], fields), fields, {})


_OF_AN_EXPERIMENT = ("kind", "measure", "measurements", "figures", "grids")


def _experiment(whole: Effective, name: str, section: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    path, kind = ("experiments", name), KINDS[section["kind"]]
    filled = {"measure": kind.default_measure, "grids": default_grids(section["kind"])}
    taken = whole.take(path, [(None, filled), (path, section)], _OF_AN_EXPERIMENT)
    grids = {
        grid: [_block(whole, (*path, "grids", grid, index), block, defaults) for index, block in enumerate(blocks)]
        for grid, blocks in taken["grids"].items()
    }
    return {**taken, "grids": grids}


def _block(whole: Effective, path: Path, block: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Add to a grid's axes the fields whose defaults derive from them; an axis of many values counts by its least."""
    axes = dict(block)
    whole.origins.update({(*path, key): (*path, key) for key in block})
    for name, found in settings_in(Run).items():
        derived = found.default
        if not isinstance(derived, Derived) or name in axes or ("defaults", name) in whole.origins:
            continue
        if axes.keys() & derived.needs:
            needed = [values_of(need, axes.get(need, defaults[need])) for need in derived.needs]
            axes[name] = min(derived.function(*values) for values in itertools.product(*needed))
    return axes


def _extremes(defaults: Mapping[str, Any], experiments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the least values, over all runs of a study, of the fields that other defaults derive from."""
    blocks = [axes for section in experiments.values() for blocks in section["grids"].values() for axes in blocks]
    return {
        name: min(min(values_of(name, axes.get(name, defaults[name]))) for axes in [*blocks] or [{}])
        for name in ("num_training", "epochs")
    }


def _settings(
    whole: Effective,
    study: Mapping[str, Any],
    measurement: str,
    experiments: Mapping[str, Any],
    extremes: Mapping[str, Any],
) -> dict[str, Any]:
    """Collect the named settings of a measurement: those in the file, and those that experiments name."""
    given, always = study.get(measurement, {}), MEASUREMENTS[measurement].named
    known = measurement_settings(measurement)
    used = dict.fromkeys(name for section in experiments.values() for name in section["measure"].get(measurement, ()))
    names = [name for name in given if name != BASE or name in used]
    names += [name for name in used if name not in given and (name == BASE or name in always)]
    sections = {}
    for name in names:
        layers = [
            ((measurement, BASE), given.get(BASE, {})),
            (None, always.get(name, {})),
            ((measurement, name), given.get(name, {})),
        ]
        sections[name] = filled(whole.take((measurement, name), layers, known), known, extremes)
    return sections


def _schedules(whole: Effective, given: Mapping[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the schedules in the file, and those that measurements name."""
    used = dict.fromkeys(settings["checkpoints"] for section in sections.values() for settings in section.values())
    names = [*given, *(name for name in used if name in SCHEDULES and name not in given)]
    keys = settings_in(Schedule)
    schedules = {}
    for name in names:
        layer = (None, SCHEDULES[name]) if name not in given else (("checkpoints", name), given[name])
        schedules[name] = filled(whole.take(("checkpoints", name), [layer], keys), keys, {})
    return schedules
